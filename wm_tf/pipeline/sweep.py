"""Controllers evolved at several temperatures of the dream: the paper's table 2.

For each temperature C is evolved from nothing in the dream, and then scored there (virtual) and in
the real environment (actual), on seeds that it has not met.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from wm_tf import storage
from wm_tf.config import ControllerConfig
from wm_tf.evaluate import summary
from wm_tf.evolution.dreams import dream_all
from wm_tf.evolution.fitness import real_returns
from wm_tf.evolution.train import read_state
from wm_tf.pipeline import pictures
from wm_tf.pipeline.checkpoints import last_parameters
from wm_tf.pipeline.exports import export_round, exported_models
from wm_tf.pipeline.run import Run
from wm_tf.pipeline.stages import controller_round
from wm_tf.seeding import Purpose

PAPER = {
    "take_cover": {
        0.5: ((2060, 277), (196, 50)),
        1.0: ((1145, 690), (868, 511)),
        1.15: ((918, 546), (1092, 556)),
        1.3: ((732, 269), (753, 139)),
    }
}
"""Virtual and actual score, each mean and standard deviation (Ha & Schmidhuber 2018, table 2)."""


class Line(NamedTuple):
    """What the controller of one temperature reached: as `wm_tf.evaluate.summary` sums it up."""

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
    """Evolves and scores a controller for each temperature; what is done already is skipped.

    A table is printed, and sweep.json and sweep.png are written into the run's folder.

    Args:
      run: whose V and M are used, and whose controllers are left alone.
      executor: plays the real episodes.
      round_index: of V and M.
      config: of the evolutions, but for its temperature.
      temperatures: of the dreams.
      episodes: of each score.
    """
    lines = []
    export_round(run, round_index, last_parameters(run, round_index, "dream"))
    for temperature in temperatures:
        at = dataclasses.replace(config, temperature=temperature)
        name = f"sweep{temperature:g}"
        initial = np.zeros(run.config.task.controller_parameters)
        controller_round(run, executor, round_index, at, initial=initial, name=name)
        arrays, _ = read_state(run.checkpoint(name, round_index), run.config.task)
        lines.append(_scored(run, executor, at, arrays["best"], episodes))
    content = {"lines": [line._asdict() for line in lines]}
    storage.write_json(run.folder / "sweep.json", content)
    task = run.config.task.name
    storage.write_bytes(run.folder / pictures.SWEEP, pictures.temperature_curve(task, lines))
    Console().print(_table(task, lines))
    return lines


def _scored(
    run: Run, executor: Executor, config: ControllerConfig, parameters: np.ndarray, episodes: int
) -> Line:
    task, seed = run.config.task, run.config.seed
    many = dataclasses.replace(config, rollouts=episodes, horizon=task.max_steps, dropout=0.0)
    models = exported_models(run)
    dreams = dream_all(
        executor, parameters[np.newaxis],
        task=task.name, models=models, config=many, seed=seed,
        purpose=Purpose.EVALUATION, generation=0, expected=False,
    )  # fmt: skip
    actual = real_returns(
        executor, task, models, parameters,
        seed=seed, episodes=episodes, purpose=Purpose.EVALUATION,
    )  # fmt: skip
    return Line(config.temperature, summary(dreams.returns[0].tolist()), summary(actual.tolist()))


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


def _score(figures: dict[str, float]) -> str:
    return f"{figures['mean']:.0f} ± {figures['std']:.0f}"
