"""Controllers that are evolved to be compared: the paper's table 2 and its ablations.

Each is evolved from nothing in the dream, and then scored there (virtual) and in the real
environment (actual), on seeds that it has not met. The run's own controllers are left alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from wm_tf import storage
from wm_tf.config import ControllerConfig
from wm_tf.errors import UserError
from wm_tf.evaluate import summary
from wm_tf.evolution.dreams import dream_all
from wm_tf.evolution.fitness import real_returns
from wm_tf.evolution.train import read_state
from wm_tf.pipeline import pictures
from wm_tf.pipeline.checkpoints import (
    best_of_round,
    controllers,
    networks,
    parameters_as_of,
)
from wm_tf.pipeline.exports import export_round, exported_models
from wm_tf.pipeline.run import Run
from wm_tf.pipeline.stages import controller_round
from wm_tf.seeding import Purpose
from wm_tf.serving.load import is_temperature

PAPER = {
    "take_cover": {
        0.5: ((2060, 277), (196, 50)),
        1.0: ((1145, 690), (868, 511)),
        1.15: ((918, 546), (1092, 556)),
        1.3: ((732, 269), (753, 139)),
    }
}
"""Virtual and actual score, each mean and standard deviation (Ha & Schmidhuber 2018, table 2)."""

ABLATIONS: dict[str, dict[str, Any]] = {
    "z alone": {"sees": "latent", "hidden": 0},
    "z alone, hidden layer of 40": {"sees": "latent", "hidden": 40},
    "z and M's state": {"sees": "state", "hidden": 0},
}
PAPER_ABLATIONS = {"car_racing": ((632, 251), (788, 141), (906, 21))}
"""Of the same controllers, evolved in the real environment (Ha & Schmidhuber 2018, table 1)."""


class Scores(NamedTuple):
    """What a controller reached, as `wm_tf.evaluate.summary` sums it up."""

    virtual: dict[str, float]
    actual: dict[str, float]


class Line(NamedTuple):
    """What the controller of one temperature reached."""

    temperature: float
    virtual: dict[str, float]
    actual: dict[str, float]


def sweep(
    run: Run,
    executor: Executor,
    round_index: int,
    config: ControllerConfig,
    *,
    temperatures: Sequence[float],
    episodes: int,
) -> list[Line]:
    """Evolves a controller for each temperature, unless that is done already, and scores it.

    A table is printed, and sweep.json and sweep.png are written into the run's folder.

    Args:
      run: whose V and M are used, and whose controllers are left alone.
      executor: plays the real episodes.
      round_index: of V and M.
      config: of the evolutions, but for its temperature.
      temperatures: of the dreams.
      episodes: of each score.
    """
    _check_episodes(episodes)
    if not temperatures or not all(map(is_temperature, temperatures)):
        given = " ".join(f"{temperature:g}" for temperature in temperatures) or "none"
        raise UserError(f"--temperatures: expected numbers above 0, got {given}")
    lines = []
    with _exports_kept(run):
        for temperature in temperatures:
            at = dataclasses.replace(config, temperature=temperature)
            name = f"sweep{np.format_float_positional(temperature, trim='-')}"
            lines.append(Line(temperature, *_study(run, executor, round_index, at, name, episodes)))
    content = {
        "networks": networks(run, round_index),
        "lines": [line._asdict() for line in lines],
    }
    task, picture = run.config.task.name, run.folder / pictures.SWEEP
    storage.write_bytes(picture, pictures.temperature_curve(task, lines))
    storage.write_json(picture.with_suffix(".json"), content)
    Console().print(_table(task, lines))
    return lines


def ablate(
    run: Run, executor: Executor, round_index: int, config: ControllerConfig, *, episodes: int
) -> dict[str, Scores]:
    """Evolves a controller for each of `ABLATIONS`, unless that is done already, and scores it.

    A table is printed, and ablation.json is written into the run's folder.

    Args:
      run: whose V and M are used.
      executor: plays the real episodes.
      round_index: of V and M.
      config: of the evolutions, but for what C sees and its hidden units.
      episodes: of each score.

    Raises:
      UserError: the method is not evolution.
    """
    _check_episodes(episodes)
    if config.method != "evolution":
        raise UserError(f"--method: expected evolution, got {config.method}: it has hidden units")
    scores = {}
    with _exports_kept(run):
        for label, changes in ABLATIONS.items():
            changed = dataclasses.replace(config, **changes)
            name = f"ablation-{changed.sees}-{changed.hidden}"
            scores[label] = _study(run, executor, round_index, changed, name, episodes)
    lines = [{"controller": label, **found._asdict()} for label, found in scores.items()]
    storage.write_json(run.folder / "ablation.json", {"lines": lines})
    Console().print(_ablation_table(run.config.task.name, scores))
    return scores


def _check_episodes(episodes: int) -> None:
    if episodes < 1:
        raise UserError(f"--episodes: expected at least 1, got {episodes}")


def _study(
    run: Run,
    executor: Executor,
    round_index: int,
    config: ControllerConfig,
    name: str,
    episodes: int,
) -> Scores:
    task, seed = run.config.task, run.config.seed
    export_round(run, round_index, parameters_as_of(run, round_index))
    config = dataclasses.replace(config, fresh=True)
    controller_round(run, executor, round_index, config, name=name)
    arrays, _ = read_state(run.checkpoint(name, round_index), task)
    parameters = arrays["best"]
    many = dataclasses.replace(
        config,
        rollouts=episodes,
        horizon=task.max_steps,
        dropout=0.0,
        patience=0,
        goal=0.0,
        goal_rise=0.0,
        members=1,
    )
    models = exported_models(run)
    dreams = dream_all(
        executor, parameters[np.newaxis],
        task=task.name, models=models, config=many, seed=seed,
        purpose=Purpose.EVALUATION, generation=0, expected=False,
    )  # fmt: skip
    actual = real_returns(
        executor, task, models, parameters,
        seed=seed, episodes=episodes, purpose=Purpose.EVALUATION, precision=config.precision,
    )  # fmt: skip
    return Scores(summary(dreams.returns[0].tolist()), summary(actual.tolist()))


@contextlib.contextmanager
def _exports_kept(run: Run) -> Iterator[None]:
    """Leaves the exports those of the run's last controller, where it has one."""
    try:
        yield
    finally:
        made = controllers(run)
        if made:
            last = made[-1].round_index
            export_round(run, last, best_of_round(run, last).parameters)


def _table(task: str, lines: Sequence[Line]) -> Table:
    table = Table(title=f"{task}: evolved in dreams of several temperatures")
    paper = PAPER.get(task, {})
    names = ("temperature", "virtual", "actual", "se")
    for name in (*names, *(("paper's virtual", "paper's actual") if paper else ())):
        table.add_column(name, justify="right")
    for line in lines:
        row = [
            f"{line.temperature:g}", _score(line.virtual), _score(line.actual),
            f"{line.actual['se']:.0f}",
        ]  # fmt: skip
        if paper:
            row += [f"{mean} ± {std}" for mean, std in paper.get(line.temperature, ())]
        table.add_row(*row)
    return table


def _ablation_table(task: str, scores: Mapping[str, Scores]) -> Table:
    table = Table(title=f"{task}: what the controller sees")
    paper = [f"{mean} ± {std}" for mean, std in PAPER_ABLATIONS.get(task, ())]
    table.add_column("C sees")
    for name in ("virtual", "actual", "se", *(("paper",) if paper else ())):
        table.add_column(name, justify="right")
    for row, (label, found) in enumerate(scores.items()):
        figures = [_score(found.virtual), _score(found.actual), f"{found.actual['se']:.0f}"]
        table.add_row(label, *figures, *paper[row : row + 1])
    return table


def _score(figures: dict[str, float]) -> str:
    return f"{figures['mean']:.0f} ± {figures['std']:.0f}"
