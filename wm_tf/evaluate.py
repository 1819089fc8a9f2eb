"""Scores of a controller, in the real environment or in the dream, on fresh seeds.

Episode i of seed S draws its random numbers from (S, EVALUATION, i). The same command gives the
same numbers, with any number of workers.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wm_tf import agent, seeding, storage
from wm_tf.config import Task, get_task
from wm_tf.envs import task_module
from wm_tf.execution import run_chunks
from wm_tf.progress import Progress
from wm_tf.seeding import Purpose
from wm_tf.serving import manifest

DREAMS_PER_CALL = 16
"""Dreams rolled out together: fixed, because a network's result depends on the batch's size."""

Frames = Literal["official", "fast"]


def evaluate(
    executor: Executor,
    task: str,
    models: Path,
    *,
    env: Literal["real", "dream"],
    episodes: int,
    seed: int,
    frames: Frames = "official",
    random: bool = False,
) -> dict[str, Any]:
    """Plays episodes and sums them up.

    Args:
      executor: plays the chunks of the real environment.
      task: the task's name.
      models: the folder that holds the task's SavedModels.
      env: where to play.
      episodes: how many.
      seed: of the episodes.
      frames: official or fast drawing (real environment).
      random: score the task's random policy instead of the controller (real environment).

    Returns:
      ``task``, ``env`` {name, id, version, frames}, ``episodes``, ``seed``, ``mean``, ``std``
      (population), ``se`` (of the mean), ``min``, ``max``, ``returns``, ``lengths``, ``seconds``.
    """
    start = time.monotonic()
    facts = get_task(task)
    if env == "real":
        located = None if random else _located(models, task)
        returns, lengths = _play_real(executor, facts, located, episodes, seed, frames)
    else:
        folder = manifest.find_models(models, task)
        returns, lengths = _play_dreams(facts, folder, episodes, seed)
    environment = task_module(task).ENVIRONMENT
    described = {"name": env, "id": environment["id"], "version": environment["version"]}
    if env == "real":
        described["frames"] = frames
    else:
        described["id"] = facts.dream
    return {
        "task": task,
        "env": described,
        "seed": seed,
        **summary(returns),
        "returns": [float(value) for value in returns],
        "lengths": [int(length) for length in lengths],
        "seconds": time.monotonic() - start,
    }


def summary(returns: Sequence[float]) -> dict[str, float]:
    """``episodes``, ``mean``, ``std``, ``se``, ``min`` and ``max`` of some returns."""
    values = np.asarray(returns, np.float64)
    count = len(values)
    deviation = float(values.std(ddof=1)) if count > 1 else 0.0
    return {
        "episodes": count,
        "mean": float(values.mean()),
        "std": float(values.std()),
        "se": deviation / float(np.sqrt(count)),
        "min": float(values.min()),
        "max": float(values.max()),
    }


def _located(models: Path, task: str) -> agent.ModelsAt:
    folder = manifest.find_models(models, task)
    return agent.ModelsAt(folder.parent, manifest.checksum(folder))


def _play_real(
    executor: Executor,
    task: Task,
    models: agent.ModelsAt | None,
    episodes: int,
    seed: int,
    frames: Frames,
) -> tuple[list[float], list[int]]:
    rollouts = [agent.Rollout(seed, (int(Purpose.EVALUATION), index)) for index in range(episodes)]
    chunks = agent.chunks(
        rollouts,
        task=task.name,
        max_steps=task.max_steps,
        models=models,
        official_frames=frames == "official",
    )
    results: dict[int, list[agent.Outcome]] = {}
    with Progress("evaluate", episodes, "episodes") as progress:
        for index, outcomes in run_chunks(executor, agent.play, chunks, describe=str):
            results[index] = outcomes
            played = [outcome.total for done in results.values() for outcome in done]
            progress.advance(len(outcomes), mean_return=float(np.mean(played)))
    ordered = [outcome for index in range(len(chunks)) for outcome in results[index]]
    return [outcome.total for outcome in ordered], [outcome.steps for outcome in ordered]


def _play_dreams(
    task: Task, folder: Path, episodes: int, seed: int
) -> tuple[list[float], list[int]]:
    from wm_tf.dream.population import PopulationRollout, Starts
    from wm_tf.errors import UserError
    from wm_tf.serving.initial import InitialLatents
    from wm_tf.serving.load import load_keras

    _, memory, controller = load_keras(folder.parent, task.name)
    if controller is None:
        raise UserError(f"{folder}: there is no controller in these models to evaluate")
    content = manifest.read(folder, task.name)
    starts = InitialLatents.read(folder, task)
    rollout = PopulationRollout(task, memory, manifest.EndRule.of(content))
    returns: list[float] = []
    lengths: list[int] = []
    with Progress("evaluate", episodes, "dreams") as progress:
        for first in range(0, episodes, DREAMS_PER_CALL):
            stream = seeding.sequence(seed, Purpose.EVALUATION, first)
            start = starts.sample(np.random.default_rng(stream), DREAMS_PER_CALL, task.hidden_size)
            result = rollout(
                controller.parameters.numpy()[np.newaxis],
                Starts(*start),
                seed=seeding.environment_seed(stream),
                horizon=task.max_steps,
                temperature=content["temperature"],
            )
            count = min(DREAMS_PER_CALL, episodes - first)
            returns += result.returns[0, :count].tolist()
            lengths += result.lengths[0, :count].tolist()
            progress.advance(count)
    return returns, lengths


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Writes what `evaluate` returned."""
    storage.write_json(path, result)


def print_result(result: dict[str, Any]) -> None:
    """Shows a result as a table."""
    from rich.console import Console
    from rich.table import Table

    environment = result["env"]
    frames = f", {environment['frames']} frames" if "frames" in environment else ""
    table = Table(title=f"{environment['id']} {environment['version']}{frames}")
    for name in ("episodes", "mean", "std", "se", "min", "max", "seed", "seconds"):
        table.add_column(name, justify="right")
    table.add_row(
        str(result["episodes"]),
        *(f"{result[name]:.1f}" for name in ("mean", "std", "se", "min", "max")),
        str(result["seed"]),
        f"{result['seconds']:.0f}",
    )
    Console().print(table)
