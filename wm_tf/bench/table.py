"""The table that `bench` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from wm_tf.bench.compare import Comparison


def print_table(lines: Sequence[Comparison], omitted: Mapping[str, str]) -> None:
    """Prints the comparisons, and why some are left out: {benchmark: reason}."""
    console = Console()
    table = Table(title="medians of the rounds, and the lowest and highest ratio")
    for name in ("what", "ours", "against", "theirs", "ratio", "spread", "to reach"):
        table.add_column(name)
    for line in lines:
        table.add_row(
            line.what,
            f"{number(line.ours)} {line.unit}",
            line.against,
            f"{number(line.peer)} {line.unit}",
            number(line.ratio),
            f"{number(line.spread[0])} to {number(line.spread[1])}",
            _goal(line),
        )
    if lines:
        console.print(table)
    for name, reason in omitted.items():
        console.print(f"{name}: left out: {reason}", markup=False, soft_wrap=True)


def number(value: float) -> str:
    """A figure with three digits or more: ``0.0213``, ``3.14``, ``21,930``."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _goal(line: Comparison) -> str:
    if line.goal is None:
        return ""
    return f"{line.goal}{'' if line.goal.reached_by(line.ratio) else ' (missed)'}"
