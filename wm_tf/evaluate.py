"""Scores of a controller, in the real environment or in the dream, on fresh seeds.

Episode i of seed S draws its random numbers from (S, EVALUATION, i), dreams that are dreamt side by
side from that of the first of them. The same command gives the same numbers, with any number of
workers, and fewer episodes give the first of more.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from wm_tf import agent, seeding, storage
from wm_tf.config import Task, get_task
from wm_tf.envs import task_module
from wm_tf.errors import DamagedFile, UserError
from wm_tf.execution import run_chunks
from wm_tf.precision import Arithmetic, Precision, compute_dtype
from wm_tf.progress import Progress
from wm_tf.seeding import Purpose
from wm_tf.serving import manifest

if TYPE_CHECKING:
    from wm_tf.models import Controller, Memory
    from wm_tf.serving.initial import InitialLatents

FORMAT_VERSION = 1

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
    frames: Frames | None = None,
    precision: Precision | None = None,
    random: bool = False,
    temperature: float | None = None,
) -> dict[str, Any]:
    """Plays episodes and sums them up.

    Args:
      executor: plays the chunks of the real environment.
      task: the task's name.
      models: the folder that holds the task's SavedModels.
      env: where to play.
      episodes: how many.
      seed: of the episodes.
      frames: official, or fast drawing of the real car_racing; None: official.
      precision: of V's convolutions (of the real environment alone); None: float32, as V is served.
      random: score the task's random policy instead of the controller.
      temperature: of the dream (of it alone); None: that of the manifest.

    Returns:
      ``task``, ``env`` {name, id, version, frames, and precision if it is not float32}, ``policy``,
      ``episodes``, ``seed``, ``mean``, ``std`` (population), ``se`` (of the mean), ``min``,
      ``max``, ``returns``, ``lengths``, ``seconds``, and ``models``, their
      `manifest.models_checksum`, unless none was looked at.

    Raises:
      UserError: there are no such models, or what is given belongs to the other `env`.
    """
    for name, value, where in (
        ("frames", frames, "real"),
        ("precision", precision, "real"),
        ("temperature", temperature, "dream"),
    ):
        if value is not None and env != where:
            raise UserError(f"--{name} {value}: expected only with --env {where}, got --env {env}")
    if random and precision is not None:
        raise UserError(f"--precision {precision}: the random policy does not look at frames")
    dtype = compute_dtype(precision or "float32")
    if frames == "fast" and task != "car_racing":
        raise UserError(f"--frames fast: {task} is drawn one way, which is official")
    frames = frames or "official"
    start = time.monotonic()
    facts = get_task(task)
    folder = None if env == "real" and random else manifest.find_models(models, task)
    scored = {}
    if folder is not None:  # now: what is there later may be others
        scored["models"] = manifest.models_checksum(manifest.read(folder, task))
    if env == "real":
        located = None if folder is None else agent.ModelsAt.now(folder)
        returns, lengths = _play_real(executor, facts, located, episodes, seed, frames, dtype)
    else:
        assert folder is not None
        play = _dream_randomly if random else _dream
        dreams = _Dreams.of(facts, folder, temperature)
        with Progress("evaluate", episodes, "dreams") as progress:
            returns, lengths = play(dreams, episodes, seed, progress)
    environment = task_module(task).ENVIRONMENT
    described = {"name": env, "id": environment["id"], "version": environment["version"]}
    if env == "real":
        described["frames"] = frames
        if dtype != "float32":
            described["precision"] = dtype
    else:
        described |= {"id": facts.dream, "temperature": dreams.temperature}
    return {
        "task": task,
        "env": described,
        "policy": "random" if random else "controller",
        "seed": seed,
        **summary(returns),
        "returns": [float(value) for value in returns],
        "lengths": [int(length) for length in lengths],
        "seconds": time.monotonic() - start,
        **scored,
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


def _play_real(
    executor: Executor,
    task: Task,
    models: agent.ModelsAt | None,
    episodes: int,
    seed: int,
    frames: Frames,
    dtype: Arithmetic,
) -> tuple[list[float], list[int]]:
    rollouts = [agent.Rollout(seed, (int(Purpose.EVALUATION), index)) for index in range(episodes)]
    slow = frames == "official" and task.name == "car_racing"  # as gymnasium draws
    chunks = agent.chunks(
        rollouts,
        agent.chunk_size(episodes, executor, slow),
        task=task.name,
        max_steps=task.max_steps,
        models=models,
        official_frames=frames == "official",
        precision=dtype,
    )
    results: dict[int, list[agent.Outcome]] = {}
    with Progress("evaluate", episodes, "episodes") as progress:
        for index, outcomes in run_chunks(executor, agent.play, chunks, describe=str):
            results[index] = outcomes
            played = [outcome.total for done in results.values() for outcome in done]
            progress.advance(len(outcomes), mean_return=float(np.mean(played)))
    ordered = [outcome for index in range(len(chunks)) for outcome in results[index]]
    return [outcome.total for outcome in ordered], [outcome.steps for outcome in ordered]


@dataclass(frozen=True)
class _Dreams:
    """What dreams are made of."""

    task: Task
    folder: Path
    memory: Memory
    controller: Controller | None
    starts: InitialLatents
    end: manifest.EndRule
    temperature: float

    @classmethod
    def of(cls, task: Task, folder: Path, temperature: float | None) -> _Dreams:
        from wm_tf.dream.world import checked_temperature
        from wm_tf.serving.initial import InitialLatents
        from wm_tf.serving.load import load_keras

        content = manifest.read(folder, task.name)
        _, memory, controller = load_keras(folder.parent, task.name)
        return cls(
            task,
            folder,
            memory,
            controller,
            InitialLatents.read(folder, task).beginnings(task),
            manifest.EndRule.of(content),
            content["temperature"] if temperature is None else checked_temperature(temperature),
        )


def _dream(
    dreams: _Dreams, episodes: int, seed: int, progress: Progress
) -> tuple[list[float], list[int]]:
    from wm_tf.dream.population import PopulationRollout, Starts

    task = dreams.task
    if dreams.controller is None:
        raise UserError(f"{dreams.folder}: there is no controller in these models to evaluate")
    parameters = dreams.controller.parameters.numpy()
    hidden = task.hidden_units(len(parameters))
    rollout = PopulationRollout(task, dreams.memory, dreams.end, hidden=hidden)
    returns: list[float] = []
    lengths: list[int] = []
    for first in range(0, episodes, DREAMS_PER_CALL):
        stream = seeding.sequence(seed, Purpose.EVALUATION, first)
        random = np.random.default_rng(stream)
        result = rollout(
            parameters[np.newaxis],
            Starts(*dreams.starts.sample(random, DREAMS_PER_CALL, task.hidden_size)),
            seed=seeding.environment_seed(stream),
            horizon=task.max_steps,
            temperature=dreams.temperature,
        )
        count = min(DREAMS_PER_CALL, episodes - first)
        returns += result.returns[0, :count].tolist()
        lengths += result.lengths[0, :count].astype(int).tolist()
        progress.advance(count)
    return returns, lengths


def _dream_randomly(
    dreams: _Dreams, episodes: int, seed: int, progress: Progress
) -> tuple[list[float], list[int]]:
    from wm_tf.dream.survival import RANDOM_DREAMS_PER_CALL, random_dreams

    firsts = range(0, episodes, RANDOM_DREAMS_PER_CALL)
    dreamt = random_dreams(
        dreams.task,
        dreams.memory,
        dreams.starts,
        episodes=episodes,
        streams=[seeding.sequence(seed, Purpose.EVALUATION, first) for first in firsts],
        temperature=dreams.temperature,
    )
    progress.advance(episodes)
    lengths = dreamt.lengths(dreams.end)
    played = zip(dreamt.reward, lengths, strict=True)
    return [float(reward[:length].sum()) for reward, length in played], lengths.tolist()


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Writes what `evaluate` returned, and the ``format_version``."""
    storage.write_json(path, {"format_version": FORMAT_VERSION, **result})


def read_json(path: Path) -> dict[str, Any]:
    """Reads what `write_json` wrote.

    Raises:
      DamagedFile: the file is damaged, of another format version or something else.
    """
    result = storage.read_json(path)
    version = result.get("format_version", 1)  # the first ones did not say
    if version != FORMAT_VERSION:
        raise DamagedFile(f"{path}: format version {version}, expected {FORMAT_VERSION}")
    missing = [name for name in ("task", "env", "policy", "seed", "mean") if name not in result]
    if missing:
        raise DamagedFile(f"{path}: not a score of evaluate --json: no {', '.join(missing)} in it")
    return result


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
    Console(markup=False).print(table)
