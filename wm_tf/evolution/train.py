"""Evolves a controller: ask, evaluate, tell; select, save, go on.

After every generation the state is written as one npz file: the strategy's (see `Strategy`), the
scores of the means that were tried on the selection seeds, and the best such mean, which is the
result. SIGKILL at any moment costs the generation that was being evaluated.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wm_tf import storage
from wm_tf.config import ControllerConfig, Task, completed
from wm_tf.errors import DamagedFile
from wm_tf.evolution.fitness import FitnessFunction
from wm_tf.evolution.space import Space, Weights
from wm_tf.evolution.strategy import Strategy
from wm_tf.progress import Progress
from wm_tf.training.fit import Log

KIND = "evolution"
FORMAT_VERSION = 1

Select = Callable[[np.ndarray], np.ndarray]
"""Parameters [N] to their returns on the selection seeds."""


@dataclass
class Evolved:
    """An evolution as far as it went."""

    strategy: Strategy
    space: Space
    """Of which the strategy's points are."""
    best: np.ndarray
    """Parameters [N] of the mean with the highest selection score."""
    selections: list[tuple[int, float, float]]
    """(generation, mean return, standard error) of each mean that was tried."""
    seconds: float = 0.0

    @property
    def mean(self) -> np.ndarray:
        """Parameters [N] of the distribution's mean."""
        return self.space.parameters(self.strategy.mean)

    @property
    def best_score(self) -> float:
        return max((score for _, score, _ in self.selections), default=-np.inf)


def evolve(
    fitness: FitnessFunction,
    select: Select,
    space: Space,
    config: ControllerConfig,
    *,
    task: Task,
    seed: int,
    path: Path,
    logs: Path,
    facts: Mapping[str, Any],
) -> Evolved:
    """Runs, or goes on with, an evolution of `config.generations` generations.

    Args:
      fitness: of a generation's candidates.
      select: scores a mean on the selection seeds.
      space: what is searched, around the controller to begin with.
      config: sizes and intervals.
      task: whose controller it is.
      seed: of the run.
      path: of the state.
      logs: folder of TensorBoard events and metrics.jsonl.
      facts: what the state belongs to, as JSON values; another state is not gone on with.

    Raises:
      DamagedFile: the state at `path` is damaged or belongs to something else.
      RunFailed: a fitness is not finite.
    """
    facts = {**facts, "task": task.name, "config": _identity(config)}
    initial = space.parameters(space.start)
    evolved = _load(path, space, task, facts) if path.exists() else None
    if evolved is None:
        strategy = Strategy(space.start, config.sigma, config.population, seed)
        evolved = Evolved(strategy, space, np.array(initial), [])
    strategy = evolved.strategy
    with (
        Log(logs) as log,
        Progress("evolve", config.generations, "generations", done=strategy.generation) as bar,
    ):
        if not evolved.selections and initial.any():
            _select(evolved, select, log)
        while strategy.generation < config.generations:
            start = time.monotonic()
            generation = strategy.generation
            result = fitness(space.parameters(strategy.ask()), generation)
            evaluated = time.monotonic() - start
            strategy.tell(result.returns)
            figures = {
                "best": float(result.returns.max()),
                "mean": float(result.returns.mean()),
                "sigma": strategy.sigma,
                "steps_per_second": result.steps / evaluated,
            }
            last = strategy.generation == config.generations
            if last or strategy.generation % config.selection_interval == 0:
                _select(evolved, select, log)
            evolved.seconds += time.monotonic() - start
            _save(path, evolved, facts)
            log.write(generation, **figures)
            print(_line(generation, figures, evolved.best_score), flush=True)
            bar.advance(**figures)
    return evolved


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
    evolved = Evolved(strategy, Weights(parameters), strategy.mean, [])
    _save(path, evolved, {**facts, "task": task.name, "config": _identity(config)})


def _select(evolved: Evolved, select: Select, log: Log) -> None:
    returns = select(evolved.mean)
    score = float(returns.mean())
    error = float(returns.std(ddof=1) / np.sqrt(len(returns))) if len(returns) > 1 else 0.0
    if score > evolved.best_score:
        evolved.best = evolved.mean
    evolved.selections.append((evolved.strategy.generation, score, error))
    log.write(evolved.strategy.generation, selection=score, selection_error=error)
    print(
        f"generation {evolved.strategy.generation}: the mean scores {score:.1f} ± {error:.1f} "
        f"on {len(returns)} selection episodes",
        flush=True,
    )


def _line(generation: int, figures: Mapping[str, float], selected: float) -> str:
    return (
        f"generation {generation}: best {figures['best']:.1f}, mean {figures['mean']:.1f}, "
        f"sigma {figures['sigma']:.4f}, {figures['steps_per_second']:,.0f} steps/s, "
        f"selected {selected:.1f}"
    )


def _identity(config: ControllerConfig) -> dict[str, Any]:
    """What the trajectory depends on: all but how long it goes on."""
    values = dataclasses.asdict(config)
    del values["generations"]
    return values


def _save(path: Path, evolved: Evolved, facts: Mapping[str, Any]) -> None:
    arrays, strategy = evolved.strategy.state()
    arrays |= {"best": evolved.best, "mean": evolved.mean}
    arrays |= {"selections": np.array(evolved.selections).reshape(-1, 3)}
    metadata = {
        "kind": KIND, "format_version": FORMAT_VERSION, "strategy": strategy,
        "facts": dict(facts), "seconds": evolved.seconds,
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


def _load(path: Path, space: Space, task: Task, facts: Mapping[str, Any]) -> Evolved:
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
    best = arrays["best"]
    strategy = Strategy.restore(arrays, metadata["strategy"])
    return Evolved(strategy, space, best, selections, metadata["seconds"])
