"""The stages of a run, each for one round.

Every stage reads what the stages before it wrote and is skipped when its result is there and still
belongs to its inputs (see `wm_tf.pipeline.run`).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np

from wm_tf import seeding, storage
from wm_tf.collect import collect
from wm_tf.config import CollectConfig, ControllerConfig, MemoryConfig, VisionConfig
from wm_tf.data.episodes import episode_path
from wm_tf.dream.population import PopulationRollout
from wm_tf.errors import UserError
from wm_tf.evolution.fitness import DreamFitness, FitnessFunction, RealFitness, select_score
from wm_tf.evolution.train import evolve
from wm_tf.pipeline import pictures
from wm_tf.pipeline.checkpoints import CONTROLLER_STAGES, Env, last_controller, last_parameters
from wm_tf.pipeline.dataset import encode_rounds, held_out_part, training_part
from wm_tf.pipeline.exports import array_digest, export_round, exported_models
from wm_tf.pipeline.run import Run, Values
from wm_tf.seeding import Purpose
from wm_tf.serving import manifest
from wm_tf.serving.initial import InitialLatents
from wm_tf.serving.load import load_keras
from wm_tf.training import checkpoint
from wm_tf.training.fit import Places
from wm_tf.training.measure import measure_memory, measure_vision
from wm_tf.training.memory import make_memory, train_memory
from wm_tf.training.vision import make_vision, train_vision


def collect_round(run: Run, executor: Executor, round_index: int, config: CollectConfig) -> Values:
    """Gathers a round's episodes.

    The controller's are driven in turn by the best and by the last mean of the round before: the
    first drives well, the second shows M where the dream was wrong.
    """
    task, folder = run.config.task, run.rollouts(round_index)
    inputs = {**_identity(config, "episodes"), "seed": run.config.seed}
    made, drivers = None, []
    if config.policy == "controller":
        made = last_controller(run, round_index, "dream")
        if made is None:
            raise UserError(f"{run.folder}: there is no controller to collect with; train one")
        drivers = [made.parameters, made.last]
        inputs["networks"] = _networks(run, made.round_index)
        inputs["drivers"] = [array_digest(driver) for driver in drivers]

    def work() -> tuple[list[Path], Values]:
        models = None
        if made is not None:
            export_round(run, made.round_index, made.parameters)
            models = exported_models(run)
        outcomes = collect(
            executor,
            task,
            folder,
            config,
            seed=run.config.seed,
            round_index=round_index,
            models=models,
            controllers=drivers,
        )
        files = [episode_path(folder, index) for index in range(config.episodes)]
        if not outcomes:
            return files, {}
        return files, {
            "mean_return": float(np.mean([outcome.total for outcome in outcomes])),
            "steps": sum(outcome.steps for outcome in outcomes),
        }

    return run.stage(
        "collect",
        round_index,
        inputs,
        work,
        goal=config.episodes,
        partial=[
            path
            for place in (folder, run.latents(round_index))
            for path in place.glob("episode-*.npz")
        ],
    )


def vision_round(run: Run, round_index: int, config: VisionConfig) -> Values:
    """Trains V on all episodes so far, going on from the round before."""

    if config.epochs == 0:
        return {}
    task, seed = run.config.task, run.config.seed
    episodes = run.episodes(round_index)
    places, before = _places(run, "vision", round_index)
    vision = make_vision(task, config, seed)

    def work() -> tuple[list[Path], Values]:
        train_vision(
            vision,
            training_part(episodes),
            task,
            config,
            places,
            seed=seed,
            epochs=before + config.epochs,
        )
        checkpoint.restore(places.checkpoint, vision)
        return [places.checkpoint], measure_vision(vision, held_out_part(episodes), task)

    return run.stage(
        "vision",
        round_index,
        _training_inputs(run, config, places, episodes),
        work,
        goal=config.epochs,
        partial=[places.checkpoint],
    )


def memory_round(run: Run, round_index: int, config: MemoryConfig) -> Values:
    """Trains M on all episodes so far, going on from the round before."""

    task, seed = run.config.task, run.config.seed
    latents = encode_rounds(run, round_index)
    places, before = _places(run, "memory", round_index)
    memory = make_memory(task, config, seed)

    def work() -> tuple[list[Path], Values]:
        train_memory(
            memory,
            training_part(latents),
            task,
            config,
            places,
            seed=seed,
            epochs=before + config.epochs,
        )
        checkpoint.restore(places.checkpoint, memory)
        measured = measure_memory(memory, held_out_part(latents), task, config.done_positive_weight)
        return [places.checkpoint], measured

    return run.stage(
        "memory",
        round_index,
        _training_inputs(run, config, places, latents),
        work,
        goal=config.epochs,
        partial=[places.checkpoint],
    )


def controller_round(
    run: Run,
    executor: Executor,
    round_index: int,
    config: ControllerConfig,
    *,
    env: Env = "dream",
    initial: np.ndarray | None = None,
) -> Values:
    """Evolves C for the exported V and M, in the dream or in the real environment.

    Args:
      env: where the fitness comes from.
      initial: parameters [N] to begin with; None: the run's last controller, or zeros.
    """

    task, seed = run.config.task, run.config.seed
    name = CONTROLLER_STAGES[env]
    path = run.checkpoint(name, round_index)
    if initial is None:
        initial = last_parameters(run, round_index, env)
    if initial is None:
        initial = np.zeros(task.controller_parameters)
    inputs = {
        **_identity(config, "generations"),
        "env": env,
        "initial": array_digest(initial),
        "networks": _networks(run, round_index),
        "seed": seed,
    }

    def work() -> tuple[list[Path], Values]:
        export_round(run, round_index, last_parameters(run, round_index, env))
        models = exported_models(run)
        evolved = evolve(
            _fitness(run, executor, round_index, config, env),
            lambda parameters: select_score(
                executor,
                task,
                models,
                parameters,
                seed=seed,
                episodes=config.selection_episodes,
            ),
            initial,
            config,
            task=task,
            seed=_round_seed(run, Purpose.EVOLUTION, round_index),
            path=path,
            logs=run.logs(name, round_index),
            facts=inputs,
        )
        if evolved.selections:
            curve = pictures.training_curve(f"{task.name}, {env}", evolved.selections)
            storage.write_bytes(run.logs(name, round_index) / "training.png", curve)
        return [path], {"selection": evolved.best_score}

    return run.stage(name, round_index, inputs, work, goal=config.generations, partial=[path])


def _fitness(
    run: Run, executor: Executor, round_index: int, config: ControllerConfig, env: Env
) -> FitnessFunction:

    task = run.config.task
    seed = _round_seed(run, Purpose.FITNESS, round_index)
    models = exported_models(run)
    if env == "real":
        return RealFitness(executor, task, models, config, seed)
    folder = models.folder / task.name
    _, memory, _ = load_keras(models.folder, task.name)
    end = manifest.EndRule.of(manifest.read(folder, task.name))
    return DreamFitness(
        task, PopulationRollout(task, memory, end), InitialLatents.read(folder, task), config, seed
    )


def _networks(run: Run, round_index: int) -> Values:
    """Which V and M a round has."""
    return {
        model: storage.stamp(run.required_checkpoint(model, round_index))
        for model in ("vision", "memory")
    }


def _places(run: Run, model: str, round_index: int) -> tuple[Places, int]:
    """(where a training writes and goes on from, epochs of the rounds before)."""

    start = run.last_checkpoint(model, round_index - 1)
    before = 0 if start is None else int(checkpoint.facts(start)["epochs"])
    path = run.checkpoint(model, round_index)
    return Places(path, run.logs(model, round_index), start), before


def _training_inputs(
    run: Run, config: VisionConfig | MemoryConfig, places: Places, data: Sequence[Path]
) -> Values:
    return {
        **_identity(config, "epochs"),
        "data": hashlib.sha256("".join(map(storage.stamp, data)).encode()).hexdigest(),
        "seed": run.config.seed,
        "start": None if places.start is None else storage.stamp(places.start),
    }


def _identity(config: Any, goal: str) -> Values:
    """A config without the field that only says how far to go."""
    values = dataclasses.asdict(config)
    del values[goal]
    return values


def _round_seed(run: Run, purpose: Purpose, round_index: int) -> int:
    return seeding.environment_seed(seeding.sequence(run.config.seed, purpose, round_index))
