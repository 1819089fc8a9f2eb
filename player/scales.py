"""The values that two keys step through: how fast the dream runs and how wild it is."""

from __future__ import annotations

from collections.abc import Sequence

SPEEDS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
"""How fast the dream runs, as a multiple of the environment's own rate."""

TEMPERATURES = (0.05, *(tenth / 10 for tenth in range(1, 12)), 1.15, 1.2, 1.3, 1.4, 1.5)
"""What `[` and `]` step through; any other positive one can be given at the start."""


def below(scale: Sequence[float], value: float) -> float:
    """The next smaller value of a scale; `value` itself where there is none."""
    return max((step for step in scale if step < value), default=value)


def above(scale: Sequence[float], value: float) -> float:
    """The next larger value of a scale; `value` itself where there is none."""
    return min((step for step in scale if step > value), default=value)
