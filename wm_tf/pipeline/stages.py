"""The stages of a run that train, each for one round (`gathering` has the one that plays).

Every stage reads what the stages before it wrote and is skipped when its result is there and still
belongs to its inputs (see `wm_tf.pipeline.run`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path

import numpy as np

from wm_tf import seeding, storage
from wm_tf.config import ControllerConfig, MemoryConfig, VisionConfig
from wm_tf.data.episodes import collected
from wm_tf.errors import UserError
from wm_tf.evolution.dream_gradient import DreamGradient
from wm_tf.evolution.evolution import Evolution
from wm_tf.evolution.fitness import DreamFitness, FitnessFunction, RealFitness, real_returns
from wm_tf.evolution.real_gradient import RealGradient
from wm_tf.evolution.space import check_space, make_space
from wm_tf.evolution.train import Learner, train_controller
from wm_tf.models import controller
from wm_tf.pipeline import pictures
from wm_tf.pipeline.checkpoints import (
    checked_checkpoint,
    last_parameters,
    member_rounds,
    networks,
    parameters_as_of,
    round_of,
)
from wm_tf.pipeline.dataset import encode_rounds, held_out_part, training_part
from wm_tf.pipeline.exports import export_members, export_round, exported_models
from wm_tf.pipeline.run import CONTROLLER_STAGES, Env, Run, Values, array_digest, identity
from wm_tf.seeding import Purpose
from wm_tf.serving.initial import InitialLatents
from wm_tf.training import checkpoint
from wm_tf.training.devices import strategy
from wm_tf.training.fit import Places
from wm_tf.training.measure import measure_memory, measure_vision
from wm_tf.training.memory import make_memory, train_memory
from wm_tf.training.vision import make_vision, train_vision

MOMENTS = 8192
"""What C sees is sampled so often, for the spread of each feature."""


def vision_round(run: Run, round_index: int, config: VisionConfig, devices: int = 1) -> Values:
    """Trains V on all episodes so far, going on from the round before."""
    if config.epochs == 0:
        return {}
    task, seed = run.config.task, run.config.seed
    episodes = run.episodes(round_index)

    def train(places: Places, epochs: int) -> Values:
        with strategy(devices, config.batch_size).scope():
            vision = make_vision(task, config, seed)
        data = training_part(episodes)
        seconds = train_vision(vision, data, task, config, places, seed=seed, epochs=epochs)
        return {**measure_vision(vision, held_out_part(episodes), task), "seconds": seconds}

    return _training_stage(run, "vision", round_index, config, episodes, train)


def memory_round(run: Run, round_index: int, config: MemoryConfig, devices: int = 1) -> Values:
    """Trains M on all episodes so far, going on from the round before."""
    task, seed = run.config.task, run.config.seed
    episodes, vision = run.episodes(round_index), checked_checkpoint(run, "vision", round_index)
    made = round_of(vision)
    trained = run.record("vision", made)
    if trained is not None and not trained["done"]:
        raise UserError(
            f"{run.folder}: V of round {made} is not trained to its end; "
            f"train-vision --round {made} goes on with it"
        )
    # Not by their latents: those are of the last V that encoded them, perhaps of a later round's.
    seen = [*episodes, vision]

    def train(places: Places, epochs: int) -> Values:
        latents = encode_rounds(run, round_index)
        with strategy(devices, config.batch_size).scope():
            memory = make_memory(task, config, seed)
        data = training_part(latents)
        random: list[Path] = []
        if round_index:
            first = (path for path in data if path.parent == run.latents(0))
            random = collected(first, run.rollouts(0))
        others = set(random)
        later = [path for path in data if path not in others]
        seconds = train_memory(
            memory, later, task, config, places, seed=seed, epochs=epochs, random=random
        )  # fmt: skip
        figures = measure_memory(memory, held_out_part(latents), task, config.done_positive_weight)
        return {**figures, "seconds": seconds}

    inputs = {"vision": storage.stamp(vision)}
    return _training_stage(run, "memory", round_index, config, seen, train, inputs)


def controller_round(
    run: Run,
    executor: Executor,
    round_index: int,
    config: ControllerConfig,
    *,
    env: Env = "dream",
    initial: np.ndarray | None = None,
    name: str | None = None,
) -> Values:
    """Trains C for the exported V and M, in the dream or in the real environment.

    Args:
      env: where its rollouts are.
      initial: parameters [N] to begin with; None: the run's last controller, or zeros where there
        is none or the configuration says so.
      name: of the stage, for one that is not part of the procedure's rounds.
    """
    task, seed = run.config.task, run.config.seed
    name = name or CONTROLLER_STAGES[env]
    path = run.checkpoint(name, round_index)
    if initial is None and not config.fresh:
        initial = last_parameters(run, round_index, env)
    if initial is None:
        initial = np.zeros(task.controller_size(config.hidden))
    check_space(config, task, initial)  # before anything is done
    *earlier, _ = members = member_rounds(run, round_index, config.members if env == "dream" else 1)
    inputs = {
        **identity(config, "generations"),
        "env": env,
        "initial": array_digest(initial),
        "networks": networks(run, round_index),
        "seed": seed,
    }
    for index in earlier:
        networks(run, index)  # checks that each was trained on this V
    if earlier:
        memories = [checked_checkpoint(run, "memory", index) for index in earlier]
        inputs["earlier_memories"] = [storage.stamp(path) for path in memories]

    def work() -> tuple[list[Path], Values]:
        export_round(run, round_index, parameters_as_of(run, round_index))
        models = exported_models(run)
        seen = _seen(run, config, _round_seed(run, Purpose.EVOLUTION, round_index))
        # What an evolution's state depends on beside the inputs; another is not gone on with.
        facts = {"ends": "expected"} if task.mortal and env == "dream" else {}
        if config.method == "gradients" and env == "real":
            facts["critic"] = "of rewards beyond those ahead"
        if seen is not None:
            facts["seen"] = array_digest(seen)
        trained = train_controller(
            _learner(run, executor, round_index, config, env, members, initial, seen),
            lambda parameters: real_returns(
                executor,
                task,
                models,
                parameters,
                seed=seed,
                episodes=config.selection_episodes,
                precision=config.precision,
            ),
            config,
            task=task,
            path=path,
            logs=run.logs(name, round_index),
            facts={**inputs, **facts},
        )
        if trained.selections:
            curve = pictures.training_curve(f"{task.name}, {env}", trained.selections)
            storage.write_bytes(run.logs(name, round_index) / "training.png", curve)
        return [path], {"selection": trained.best_score, "seconds": trained.seconds}

    return run.stage(
        name, round_index, inputs, work, goal=config.generations, partial=lambda: [path]
    )


def _seen(run: Run, config: ControllerConfig, seed: int) -> np.ndarray | None:
    """What C sees at the moments at which the exports' later dreams start, for the search's space.

    Components are those of V's means; the spread of what weights read is that of samples.

    [M, F], or None without such moments and where the search does not need them.
    """
    scaled = config.search == "scaled"
    if not (config.components or scaled):
        return None
    task = run.config.task
    starts = InitialLatents.read(exported_models(run).folder / task.name, task).on_the_way()
    if starts.h is None or not len(starts):
        return None
    if not scaled:
        return np.concatenate([starts.mean, starts.h], axis=1)
    random = seeding.generator(seed, Purpose.EVOLUTION)
    return controller.features(task, *starts.sample(random, MOMENTS, task.hidden_size)).numpy()


def _learner(
    run: Run,
    executor: Executor,
    round_index: int,
    config: ControllerConfig,
    env: Env,
    members: Sequence[int],
    initial: np.ndarray,
    seen: np.ndarray | None,
) -> Learner:
    task, seed = run.config.task, _round_seed(run, Purpose.EVOLUTION, round_index)
    if config.method == "gradients" and env == "real":
        return RealGradient(executor, task, exported_models(run), config, seed, initial)
    if config.method == "gradients":
        return DreamGradient(task, export_members(run, members), config, seed, initial)
    fitness: FitnessFunction
    fitness_seed = _round_seed(run, Purpose.FITNESS, round_index)
    if env == "real":
        fitness = RealFitness(executor, task, exported_models(run), config, fitness_seed)
    else:
        models = export_members(run, members)
        fitness = DreamFitness(executor, task, models, config, fitness_seed)
    return Evolution(fitness, make_space(config, task, initial, seen), config, seed)


def _training_stage(
    run: Run,
    model: str,
    round_index: int,
    config: VisionConfig | MemoryConfig,
    data: Sequence[Path],
    train: Callable[[Places, int], Values],
    inputs: Values | None = None,
) -> Values:
    """A stage that trains a model on `data`, on from its checkpoint of the rounds before.

    Args:
      data: the files that it learns from.
      train: trains up to a number of epochs in total, and returns held-out figures and the
        ``seconds`` of training, those of the rounds before included.
      inputs: what else its record shall name.
    """
    start = run.last_checkpoint(model, round_index - 1)
    before = {"epochs": 0, "seconds": 0.0} if start is None else checkpoint.facts(start)
    path = run.checkpoint(model, round_index)
    places = Places(path, run.logs(model, round_index), start)
    inputs = {
        **(inputs or {}),
        **identity(config, "epochs"),
        "data": hashlib.sha256("".join(map(storage.stamp, data)).encode()).hexdigest(),
        "seed": run.config.seed,
        "start": None if start is None else storage.stamp(start),
    }

    def work() -> tuple[list[Path], Values]:
        figures = train(places, int(before["epochs"]) + config.epochs)
        return [path], {**figures, "seconds": figures["seconds"] - before["seconds"]}

    return run.stage(
        model,
        round_index,
        inputs,
        work,
        goal=config.epochs,
        partial=lambda: [path],
    )


def _round_seed(run: Run, purpose: Purpose, round_index: int) -> int:
    return seeding.environment_seed(seeding.sequence(run.config.seed, purpose, round_index))
