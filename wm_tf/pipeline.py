"""The stages of a run, each for one round, and the whole procedure made of them.

    collect -> V -> encode -> M -> export -> C -> export, and again with the new controller

Every stage reads what the stages before it wrote and is skipped when its result is there and still
belongs to its inputs (`wm_tf.run`). `reproduce` is all of them in a loop.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from wm_tf import agent, seeding, storage
from wm_tf.collect import collect
from wm_tf.config import CollectConfig, ControllerConfig, MemoryConfig, VisionConfig, to_dict
from wm_tf.data.episodes import episode_path
from wm_tf.envs import task_module
from wm_tf.errors import UserError
from wm_tf.run import Run, Values
from wm_tf.seeding import Purpose
from wm_tf.serving import manifest

if TYPE_CHECKING:
    from wm_tf.evolution.fitness import FitnessFunction
    from wm_tf.models import Memory, Vision
    from wm_tf.serving.initial import InitialLatents
    from wm_tf.training.fit import Places

Env = Literal["dream", "real"]

CONTROLLER_STAGES: dict[Env, str] = {"dream": "controller", "real": "controller-real"}
"""The stages that evolve a controller, in the order of a round."""
STAGES = ("collect", "vision", "memory", *CONTROLLER_STAGES.values())
"""The stages that leave a record, in the order of a round."""
HELD_OUT = 20
"""One episode in so many is kept for measuring and never trained on."""
START_MOMENTS = 1024
"""Real moments that an export holds for dreams to start from."""


def training_part(episodes: Sequence[Path]) -> list[Path]:
    """The episodes to train on."""
    return [path for index, path in enumerate(episodes) if index % HELD_OUT]


def held_out_part(episodes: Sequence[Path]) -> list[Path]:
    """The episodes to measure on; disjoint from `training_part`."""
    return [path for index, path in enumerate(episodes) if index % HELD_OUT == 0]


def collect_round(
    run: Run, executor: Executor, round_index: int, config: CollectConfig
) -> Values:
    """Gathers a round's episodes."""
    task, folder = run.config.task, run.rollouts(round_index)
    models = None
    if config.policy == "controller":
        models = exported_models(run)
        if not (models.folder / task.name / "controller").is_dir():
            raise UserError(f"{models.folder}: there is no controller to collect with; train one")

    def work() -> tuple[list[Path], Values]:
        outcomes = collect(
            executor,
            task,
            folder,
            config,
            seed=run.config.seed,
            round_index=round_index,
            models=models,
        )
        files = [episode_path(folder, index) for index in range(config.episodes)]
        if not outcomes:
            return files, {}
        return files, {
            "mean_return": float(np.mean([outcome.total for outcome in outcomes])),
            "steps": sum(outcome.steps for outcome in outcomes),
        }

    inputs = {**_identity(config, "episodes"), "seed": run.config.seed}
    if models is not None:
        inputs["models"] = exported_sources(run)
    return run.stage(
        "collect",
        round_index,
        inputs,
        work,
        goal=config.episodes,
        partial=sorted(folder.glob("episode-*.npz")),
    )


def vision_round(run: Run, round_index: int, config: VisionConfig) -> Values:
    """Trains V on all episodes so far, going on from the round before."""
    from wm_tf.training.checkpoint import restore
    from wm_tf.training.measure import measure_vision
    from wm_tf.training.vision import make_vision, train_vision

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
        restore(places.checkpoint, vision)
        return [places.checkpoint], measure_vision(vision, held_out_part(episodes), task)

    return run.stage(
        "vision",
        round_index,
        _training_inputs(run, config, places, episodes),
        work,
        goal=config.epochs,
        partial=[places.checkpoint],
    )


def encode_rounds(run: Run, round_index: int) -> list[Path]:
    """Encodes all episodes so far with the present V; returns the encoded ones."""
    from wm_tf.training.encode import encode_episodes

    vision = load_vision(run, round_index)
    encoded: list[Path] = []
    for index in range(round_index + 1):
        episodes = sorted(run.rollouts(index).glob("episode-*.npz"))
        if episodes:
            encoded += encode_episodes(vision, episodes, run.latents(index), run.config.task)
    if not encoded:
        run.episodes(round_index)  # says what is missing
    return encoded


def memory_round(run: Run, round_index: int, config: MemoryConfig) -> Values:
    """Trains M on all episodes so far, going on from the round before."""
    from wm_tf.training.checkpoint import restore
    from wm_tf.training.measure import measure_memory
    from wm_tf.training.memory import make_memory, train_memory

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
        restore(places.checkpoint, memory)
        measured = measure_memory(
            memory, held_out_part(latents), task, config.done_positive_weight
        )
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
    from wm_tf.evolution.fitness import select_score
    from wm_tf.evolution.train import evolve

    task, seed = run.config.task, run.config.seed
    models = exported_models(run)
    name = CONTROLLER_STAGES[env]
    path = run.checkpoint(name, round_index)
    if initial is None:
        initial = last_parameters(run, round_index, env)
    if initial is None:
        initial = np.zeros(task.controller_parameters)
    inputs = {
        **_identity(config, "generations"),
        "env": env,
        "initial": _array_digest(initial),
        "networks": _networks(run),
        "seed": seed,
    }

    def select(parameters: np.ndarray) -> np.ndarray:
        episodes = config.selection_episodes
        return select_score(executor, task, models, parameters, seed=seed, episodes=episodes)

    def work() -> tuple[list[Path], Values]:
        evolved = evolve(
            _fitness(run, executor, round_index, config, env),
            select,
            initial,
            config,
            task=task,
            seed=_round_seed(run, Purpose.EVOLUTION, round_index),
            path=path,
            logs=run.logs(name, round_index),
            facts=inputs,
        )
        selections = [list(selection) for selection in evolved.selections]
        return [path], {"selection": evolved.best_score, "selections": selections}

    return run.stage(
        name, round_index, inputs, work, goal=config.generations, partial=[path]
    )


def export_round(run: Run, round_index: int, controller: np.ndarray | None) -> None:
    """Writes the run's exports: V and M as of a round, and C where there is one.

    Nothing is written if the exports are these already.
    """
    from wm_tf.models import Controller
    from wm_tf.serving.export import export

    task = run.config.task
    vision_path = run.required_checkpoint("vision", round_index)
    memory_path = run.required_checkpoint("memory", round_index)
    sources = {
        "vision": storage.stamp(vision_path),
        "memory": storage.stamp(memory_path),
        "controller": None if controller is None else _array_digest(controller),
    }
    if exported_sources(run) == sources:
        return
    vision = load_vision(run, round_index)
    memory = load_memory(run, round_index)
    stages = run.config.round(round_index)
    facts = manifest.Facts(
        environment=task_module(task.name).ENVIRONMENT,
        end=manifest.EndRule("never"),
        temperature=stages.controller.temperature,
        preset=run.config.preset,
        config={
            "sources": sources,
            "first": to_dict(run.config.first),
            "later": to_dict(run.config.later),
        },
        training=training_facts(run, round_index),
    )
    export(
        run.exports / task.name,
        task,
        vision=vision,
        memory=memory,
        controller=None if controller is None else Controller(task, controller),
        initial_latents=_starts(run, memory, round_index),
        facts=facts,
    )


def reproduce(run: Run, executor: Executor, iterations: int | None = None) -> None:
    """Runs the whole procedure; what is done already is skipped."""
    rounds = run.config.iterations if iterations is None else iterations
    for index in range(rounds):
        stages = run.config.round(index)
        collect_round(run, executor, index, stages.collect)
        vision_round(run, index, stages.vision)
        memory_round(run, index, stages.memory)
        export_round(run, index, last_parameters(run, index, "dream"))
        controller_round(run, executor, index, stages.controller)
        export_round(run, index, best_of_round(run, index).parameters)
        print(_round_line(run, index), flush=True)


def _round_line(run: Run, round_index: int) -> str:
    best = best_of_round(run, round_index)
    seconds = training_facts(run, round_index)["seconds"]
    return (
        f"round {round_index}: {best.selection:.1f} on the selection seeds, "
        f"{seconds / 60:.0f} minutes of computing so far"
    )


def training_facts(run: Run, round_index: int) -> Values:
    """What a manifest says of the training: stages with their seconds and held-out figures."""
    stages = {
        f"{name}-{index:02d}": record
        for index in range(round_index + 1)
        for name in STAGES
        if (record := run.stage_record(name, index)) is not None
    }
    return {
        "what": f"{run.config.preset} preset, {round_index + 1} rounds",
        "seconds": sum(record["seconds"] for record in stages.values()),
        "seeds": {"run": run.config.seed},
        "stages": stages,
    }


def load_vision(run: Run, round_index: int) -> Vision:
    """V as of a round, in float32."""
    from wm_tf.models import Vision
    from wm_tf.training.checkpoint import restore

    vision = Vision(run.config.task.latent_size)
    restore(run.required_checkpoint("vision", round_index), vision, weights_only=True)
    return vision


def load_memory(run: Run, round_index: int) -> Memory:
    """M as of a round."""
    from wm_tf.models import Memory
    from wm_tf.training.checkpoint import restore

    task = run.config.task
    memory = Memory(task.latent_size, task.action_size, task.hidden_size, task.mixtures)
    restore(run.required_checkpoint("memory", round_index), memory, weights_only=True)
    return memory


@dataclass(frozen=True)
class Evolved:
    """What an evolution of the run gave."""

    parameters: np.ndarray
    selection: float  # mean return on the selection seeds
    round_index: int
    env: Env


def controllers(run: Run) -> list[Evolved]:
    """The run's controllers in the order of their making."""
    found = []
    for round_index in range(run.config.iterations):
        for env, name in CONTROLLER_STAGES.items():
            path = run.checkpoint(name, round_index)
            if path.exists():
                arrays, _ = storage.read_npz(path)
                scores = [score for _, score, _ in arrays["selections"]]
                best = max(scores, default=-np.inf)
                found.append(Evolved(arrays["best"], best, round_index, env))
    return found


def last_controller(run: Run, round_index: int, env: Env) -> Evolved | None:
    """The last controller made before that of a round and an environment."""
    order = list(CONTROLLER_STAGES)
    place = (round_index, order.index(env))
    earlier = [
        found for found in controllers(run)
        if (found.round_index, order.index(found.env)) < place
    ]  # fmt: skip
    return earlier[-1] if earlier else None


def last_parameters(run: Run, round_index: int, env: Env) -> np.ndarray | None:
    """The parameters of `last_controller`, or None."""
    found = last_controller(run, round_index, env)
    return None if found is None else found.parameters


def best_of_round(run: Run, round_index: int) -> Evolved:
    """A round's controller with the highest score on the selection seeds."""
    made = [found for found in controllers(run) if found.round_index == round_index]
    if not made:
        raise UserError(f"{run.folder}: round {round_index} has no controller; train it first")
    return max(made, key=lambda found: found.selection)


def controller_of(models: Path, task: str) -> np.ndarray:
    """The parameters of the controller in a folder of models."""
    from wm_tf.serving.load import load_keras

    _, _, controller = load_keras(models, task)
    if controller is None:
        raise UserError(f"{models}: there is no controller of {task} in these models")
    return controller.parameters.numpy().astype(np.float64)


def exported_models(run: Run) -> agent.ModelsAt:
    """The run's exports; raises UserError if there are none."""
    folder = manifest.find_models(run.exports.resolve(), run.config.task.name)
    return agent.ModelsAt(folder.parent, manifest.checksum(folder))


def exported_sources(run: Run) -> Values | None:
    """Which checkpoints and controller the exports were made from; None if there are none."""
    folder = run.exports / run.config.task.name
    if not (folder / manifest.FILE_NAME).exists():
        return None
    return dict(manifest.read(folder, run.config.task.name)["config"]["sources"])


def _networks(run: Run) -> Values:
    sources = exported_sources(run) or {}
    return {name: sources.get(name) for name in ("vision", "memory")}


def _fitness(
    run: Run, executor: Executor, round_index: int, config: ControllerConfig, env: Env
) -> FitnessFunction:
    from wm_tf.dream.population import PopulationRollout
    from wm_tf.evolution.fitness import DreamFitness, RealFitness
    from wm_tf.serving.initial import InitialLatents
    from wm_tf.serving.load import load_keras

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


def _starts(run: Run, memory: Memory, round_index: int) -> InitialLatents:
    from wm_tf.training.starts import choose_starts

    latents = encode_rounds(run, round_index)
    random = seeding.generator(run.config.seed, Purpose.MEMORY, round_index, 1)
    return choose_starts(memory, latents, run.config.task, count=START_MOMENTS, random=random)


def _places(run: Run, model: str, round_index: int) -> tuple[Places, int]:
    """(where a training writes and goes on from, epochs of the rounds before)."""
    from wm_tf.training import checkpoint
    from wm_tf.training.fit import Places

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


def _array_digest(array: np.ndarray) -> str:
    return hashlib.sha256(array.astype(np.float64).tobytes()).hexdigest()
