"""Trains a controller: a generation, select, save, go on.

After every generation the state is written as one npz file: the learner's (see `Learner`), the
scores of the means that were tried on the selection seeds, and the best such mean, which is the
result. SIGKILL at any moment costs the generation that was under way.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from wm_tf import storage
from wm_tf.config import ControllerConfig, Task, completed
from wm_tf.errors import DamagedFile
from wm_tf.evolution.strategy import Strategy
from wm_tf.progress import Progress
from wm_tf.training.fit import Log

KIND = "evolution"
FORMAT_VERSION = 1

Select = Callable[[np.ndarray], np.ndarray]
"""Parameters [N] to their returns on the selection seeds."""


class Learner(Protocol):
    """Improves a controller, generation by generation."""

    @property
    def generation(self) -> int:
        """Generations so far."""

    @property
    def mean(self) -> np.ndarray:
        """Parameters [N] of the controller so far."""

    def advance(self) -> dict[str, float]:
        """A generation: its figures, ``steps`` among them, all that rollouts took together."""

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """(arrays, JSON facts) from which `restore` goes on."""

    def restore(self, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """Goes on where `state` was taken."""


@dataclass
class Trained:
    """A controller's training as far as it went."""

    best: np.ndarray
    """Parameters [N] of the mean with the highest selection score."""
    selections: list[tuple[int, float, float]]
    """(generation, mean return, standard error) of each mean that was tried."""
    seconds: float = 0.0

    @property
    def best_score(self) -> float:
        return max((score for _, score, _ in self.selections), default=-np.inf)


def train_controller(
    learner: Learner,
    select: Select,
    config: ControllerConfig,
    *,
    task: Task,
    path: Path,
    logs: Path,
    facts: Mapping[str, Any],
) -> Trained:
    """Runs, or goes on with, a training of `config.generations` generations.

    Args:
      learner: at its beginning.
      select: scores a mean on the selection seeds.
      config: sizes and intervals.
      task: whose controller it is.
      path: of the state.
      logs: folder of TensorBoard events and metrics.jsonl.
      facts: what the state belongs to, as JSON values; another state is not gone on with.

    Raises:
      DamagedFile: the state at `path` is damaged or belongs to something else.
      RunFailed: a figure is not finite.
    """
    facts = {**facts, "task": task.name, "config": _identity(config)}
    trained = Trained(learner.mean, [])
    if path.exists():
        trained = _load(path, learner, task, facts)
    with (
        Log(logs) as log,
        Progress(
            "train-controller", config.generations, "generations", done=learner.generation
        ) as bar,
    ):
        # The mean it begins with, and that of a state which is not gone on with.
        begins_or_ends = learner.generation == 0 or learner.generation >= config.generations
        if not trained.selections and learner.mean.any() and begins_or_ends:
            _select(trained, learner, select, log)
            if learner.generation:
                _save(path, trained, learner, facts)
        while learner.generation < config.generations:
            start = time.monotonic()
            generation = learner.generation
            figures = learner.advance()
            figures["steps_per_second"] = figures.pop("steps") / (time.monotonic() - start)
            last = learner.generation == config.generations
            if last or learner.generation % config.selection_interval == 0:
                _select(trained, learner, select, log)
            trained.seconds += time.monotonic() - start
            _save(path, trained, learner, facts)
            log.write(generation, **figures)
            print(_line(generation, figures, trained.best_score), flush=True)
            bar.advance(**figures)
    return trained


def save_initial(
    path: Path,
    parameters: np.ndarray,
    config: ControllerConfig,
    *,
    task: Task,
    seed: int,
    facts: Mapping[str, Any],
) -> None:
    """Writes the state of an evolution without generations, whose result is `parameters` [N]."""
    strategy = Strategy(parameters, config.sigma, config.population, seed)
    facts = {**facts, "task": task.name, "config": _identity(config)}
    _save(path, Trained(strategy.mean, []), strategy, facts)


def _select(trained: Trained, learner: Learner, select: Select, log: Log) -> None:
    returns = select(learner.mean)
    score = float(returns.mean())
    error = float(returns.std(ddof=1) / np.sqrt(len(returns))) if len(returns) > 1 else 0.0
    if score > trained.best_score:
        trained.best = learner.mean
    trained.selections.append((learner.generation, score, error))
    log.write(learner.generation, selection=score, selection_error=error)
    print(
        f"generation {learner.generation}: the mean scores {score:.1f} ± {error:.1f} "
        f"on {len(returns)} selection episodes",
        flush=True,
    )


def _line(generation: int, figures: Mapping[str, float], selected: float) -> str:
    shown = ", ".join(
        f"{name.replace('_', ' ')} {value:.4g}"
        for name, value in figures.items()
        if name != "steps_per_second"
    )
    return (
        f"generation {generation}: {shown}, {figures['steps_per_second']:,.0f} steps/s, "
        f"selected {selected:.1f}"
    )


def _identity(config: ControllerConfig) -> dict[str, Any]:
    """What the trajectory depends on: all but how long it goes on."""
    values = dataclasses.asdict(config)
    del values["generations"]
    return values


def _save(
    path: Path, trained: Trained, learner: Learner | Strategy, facts: Mapping[str, Any]
) -> None:
    arrays, strategy = learner.state()
    arrays |= {"best": trained.best, "mean": learner.mean}
    arrays |= {"selections": np.array(trained.selections).reshape(-1, 3)}
    metadata = {
        "kind": KIND, "format_version": FORMAT_VERSION, "strategy": strategy,
        "facts": dict(facts), "seconds": trained.seconds,
    }  # fmt: skip
    storage.write_npz(path, arrays, metadata, compress=False)


def read_state(path: Path, task: Task) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and facts of a saved evolution.

    Raises:
      DamagedFile: the file is damaged, of another kind, format version or task.
    """
    arrays, metadata = storage.read_npz(path)
    if metadata.get("kind") != KIND:
        raise DamagedFile(f"{path}: not the state of an evolution")
    version = metadata.get("format_version", 1)  # the first ones did not say
    if version != FORMAT_VERSION:
        raise DamagedFile(f"{path}: format version {version}, expected {FORMAT_VERSION}")
    if metadata["facts"]["task"] != task.name:
        held = metadata["facts"]["task"]
        raise DamagedFile(f"{path}: belongs to another task: {held}, expected {task.name}")
    return arrays, metadata


def _load(path: Path, learner: Learner, task: Task, facts: Mapping[str, Any]) -> Trained:
    arrays, metadata = read_state(path, task)
    held = completed(metadata["facts"], facts)
    held["config"] = completed(held["config"], facts["config"])
    if held != dict(facts):
        changed = sorted(
            name for name in {**facts, **held} if facts.get(name) != held.get(name)
        )  # fmt: skip
        raise DamagedFile(
            f"{path}: belongs to another {' and '.join(changed)}; remove it to begin anew"
        )
    selections = [
        (int(generation), float(score), float(error))
        for generation, score, error in arrays.pop("selections")
    ]
    try:
        learner.restore(arrays, metadata["strategy"])
    except (KeyError, ValueError) as error:
        raise DamagedFile(
            f"{path}: does not fit what learns in this version of the package; go on with the "
            "version that it was begun with, or remove it to begin anew"
        ) from error
    if not np.allclose(learner.mean, arrays["mean"], rtol=1e-5, atol=1e-7):
        raise DamagedFile(
            f"{path}: what is installed here does not draw the candidates that it tells of; go on "
            "with the packages and the kind of processor that it was begun with, or remove it"
        )
    return Trained(arrays["best"], selections, metadata["seconds"])
