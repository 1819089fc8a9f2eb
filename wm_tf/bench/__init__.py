"""Speeds side by side: `python -m wm_tf bench`.

A module for each part of the procedure holds functions that give lines of one table; `compare` is
how a line is measured. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal, get_args

from wm_tf import storage
from wm_tf.bench.compare import Comparison
from wm_tf.errors import RunFailed, UserError
from wm_tf.progress import Progress
from wm_tf.runtime import import_tensorflow

Benchmark = Literal[
    "car-racing",
    "car-racing-envpool",
    "take-cover",
    "rollouts",
    "vision-training",
    "vision-encoding",
    "vision-decoding",
    "memory-training",
    "dream",
    "evolution",
    "player",
    "growth",
    "training-footprint",
]

_FUNCTIONS: dict[Benchmark, str] = {
    "car-racing": "environments.car_racing_gymnasium",
    "car-racing-envpool": "environments.car_racing_envpool",
    "take-cover": "environments.take_cover_vizdoom",
    "rollouts": "rollouts.rollouts",
    "vision-training": "vision.training",
    "vision-encoding": "vision.encoding",
    "vision-decoding": "vision.decoding",
    "memory-training": "memory.training",
    "dream": "dream.dreams",
    "evolution": "evolution.strategies",
    "player": "player.players",
    "growth": "growth.curves",
    "training-footprint": "footprint.training",
}

NAMES: tuple[Benchmark, ...] = get_args(Benchmark)

_LONG: frozenset[Benchmark] = frozenset({"training-footprint"})
"""Measured only if they are asked for."""


def bench(
    only: Sequence[Benchmark] = (), json: Path | None = None, plot: Path | None = None
) -> None:
    """Measures, prints the table and writes what is asked for.

    Args:
      only: benchmarks; all but the long ones if there are none.
      json: where to write the table.
      plot: where to draw how cost grows (png).

    Raises:
      Disagreement: two sides of a comparison do not give the same answer. What was measured before
        is printed and written all the same.
    """
    names = only or [name for name in NAMES if name not in _LONG]
    if plot is not None and "growth" not in names:
        raise UserError("--plot draws the benchmark growth, which --only leaves out")
    import_tensorflow()
    lines: list[Comparison] = []
    omitted: dict[str, str] = {}
    failed: RunFailed | None = None
    with Progress("bench", len(names), "benchmarks") as progress:
        for name in names:
            try:
                lines += function_of(name)()
            except UserError as error:  # such as: a peer that is not installed
                omitted[name] = str(error)
            except RunFailed as error:
                omitted[name], failed = str(error), error
                break
            progress.advance()
    from wm_tf.bench.table import print_table  # its library is slow to import

    print_table(lines, omitted)
    if json is not None:
        comparisons = [asdict(line) for line in lines]
        storage.write_json(json, {"comparisons": comparisons, "omitted": omitted})
    curves = [line for line in lines if line.curve is not None]
    if plot is not None and curves:
        from wm_tf.bench import growth

        growth.plot(plot, curves)
    if failed is not None:
        raise failed


def function_of(name: Benchmark) -> Callable[[], list[Comparison]]:
    """What measures it; its module is imported now, which takes some of them seconds."""
    module, function = _FUNCTIONS[name].split(".")
    found: Callable[[], list[Comparison]] = getattr(
        importlib.import_module(f"{__name__}.{module}"), function
    )
    return found
