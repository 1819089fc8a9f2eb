"""The whole procedure: collect, V, M, C, and again with the new controller.

A round may end in the real environment, where C is fine-tuned.
"""

from __future__ import annotations

import math
from concurrent.futures import Executor

from rich.console import Console
from rich.table import Table

from wm_tf import storage
from wm_tf.errors import UserError
from wm_tf.pipeline import pictures
from wm_tf.pipeline.checkpoints import best_of_round
from wm_tf.pipeline.exports import (
    STAGES,
    draw_contact_sheet,
    export_round,
    selections,
)
from wm_tf.pipeline.gathering import collect_round
from wm_tf.pipeline.run import Run
from wm_tf.pipeline.stages import controller_round, memory_round, vision_round


def reproduce(run: Run, executor: Executor, iterations: int | None = None) -> None:
    """Runs the whole procedure; what is done already is skipped.

    At the end a table of the rounds is printed, and `contact_sheet.png` and `training.png` are
    written into the run's folder.

    Raises:
      UserError: the run was begun with another preset or seed, or no iterations are asked for.
    """
    run.check_begun_alike()
    rounds = run.config.iterations if iterations is None else iterations
    if rounds < 1:
        raise UserError(f"--iterations: expected at least 1, got {rounds}")
    for index in range(rounds):
        stages = run.config.round(index)
        collect_round(run, executor, index, stages.collect)
        if not run.adopted("vision", index):
            vision_round(run, index, stages.vision)
        if not run.adopted("memory", index):
            memory_round(run, index, stages.memory)
        if not run.adopted("controller", index):
            controller_round(run, executor, index, stages.controller)
        if stages.tuning is not None:
            controller_round(run, executor, index, stages.tuning, env="real")
    export_round(run, rounds - 1, best_of_round(run, rounds - 1).parameters)
    storage.write_bytes(run.folder / "contact_sheet.png", draw_contact_sheet(run, rounds - 1))
    tried = selections(run)
    if tried:
        curve = pictures.training_curve(run.config.task.name, tried)
        storage.write_bytes(run.folder / "training.png", curve)
    Console().print(_table(run, rounds))


def _table(run: Run, rounds: int) -> Table:
    """A line for each round: its score, and what it cost."""
    table = Table(
        title=f"{run.config.task.name}, {run.config.preset} preset: "
        "scores on the selection seeds, and minutes"
    )
    # Short, so that eighty columns hold them.
    headings = {"vision": "V", "memory": "M", "controller": "C", "controller-real": "C, real"}
    stages = (headings.get(name, name) for name in STAGES)
    for name in ("round", "score", "se", *stages, "in all"):
        table.add_column(name, justify="right")
    total = 0.0
    for index in range(rounds):
        best = best_of_round(run, index)
        tried = [(score, error) for _, score, error in best.tried]
        score, error = max(tried, default=(math.nan, math.nan))  # an imported one has none
        records = [run.stage_record(name, index) for name in STAGES]
        seconds = [record["seconds"] if record else 0.0 for record in records]
        total += sum(seconds)
        table.add_row(
            str(index),
            f"{score:.1f}",
            f"{error:.1f}",
            *(f"{value / 60:.1f}" for value in seconds),
            f"{total / 60:.1f}",
        )
    return table
