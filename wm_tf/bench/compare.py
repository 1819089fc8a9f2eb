"""Two ways to do the same work, measured in turns in one run.

The sides take turns, so that whatever else the machine does meets both alike; what counts is the
median of the rounds' ratios. Before that both sides give an answer, and the answers must agree.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wm_tf.errors import RunFailed

ROUNDS = 5


class Disagreement(RunFailed):
    """The two sides of a comparison do not give the same answer."""


@dataclass(frozen=True)
class Goal:
    """What a ratio is to reach."""

    bound: float
    most: bool = False
    """Whether it is to be at most this, instead of at least."""

    def reached_by(self, ratio: float) -> bool:
        return ratio <= self.bound if self.most else ratio >= self.bound

    def __str__(self) -> str:
        return f"{'≤' if self.most else '≥'} {self.bound:g}"


@dataclass(frozen=True)
class Side:
    """One way to do the work.

    Args:
      name: as the table shall name it.
      measure: does the work once and returns its figure, in the comparison's unit.
      answer: what the work gives, to compare with the other side's; None where the two sides do
        different things.
    """

    name: str
    measure: Callable[[], float]
    answer: Callable[[], Any] | None = None


@dataclass(frozen=True)
class Curve:
    """Figures over a size, in every round one for each."""

    title: str
    size: str
    """What the sizes count."""
    sizes: tuple[int, ...]
    figures: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Comparison:
    """One line of the table."""

    what: str
    unit: str
    ours: float
    """Median figure."""
    against: str
    peer: float
    """Median figure of the other side, in the same unit."""
    ratio: float
    """Median of the rounds' ratios, ours / peer."""
    spread: tuple[float, float]
    """The lowest and the highest of them."""
    goal: Goal | None = None
    curve: Curve | None = None
    """Where the two figures are the ends of a curve: at the largest size and at the smallest."""


def compare(
    what: str,
    unit: str,
    ours: Side,
    peer: Side,
    *,
    agree: Callable[[Any, Any], None] | None = None,
    goal: Goal | None = None,
    rounds: int = ROUNDS,
) -> Comparison:
    """Compares the sides' answers, warms both up, then measures them in turn.

    Args:
      what, unit: of the table's line.
      ours, peer: the sides.
      agree: raises `Disagreement` if the two answers are not the same.
      goal: of the ratio ours / peer.
      rounds: how often each side is measured.

    Raises:
      Disagreement: the answers differ; nothing was timed.
    """
    if agree is not None:
        answers = [_answer(side) for side in (ours, peer)]
        try:
            agree(*answers)
        except Disagreement as error:
            raise Disagreement(f"{what}: not the same as {peer.name}: {error}") from None
    ours.measure(), peer.measure()
    figures = np.array([(ours.measure(), peer.measure()) for _ in range(rounds)])
    return _line(what, unit, peer.name, figures, goal)


def against_limit(
    what: str, unit: str, figures: Sequence[float], limit: float, name: str, goal: Goal
) -> Comparison:
    """A line for figures that were measured beside a limit that is none."""
    pairs = np.array([(figure, limit) for figure in figures])
    return _line(what, unit, name, pairs, goal)


def over_sizes(
    title: str,
    size: str,
    sizes: Sequence[int],
    unit: str,
    measure: Callable[[int], float],
    rounds: int = ROUNDS,
) -> Comparison:
    """Measures all sizes in turns; the line compares the largest with the smallest."""
    measure(sizes[-1])  # warms up every process: a small size may need but one
    figures = np.array([[measure(number) for number in sizes] for _ in range(rounds)])
    what, against = (f"{title}, {number:,} {size}" for number in (sizes[-1], sizes[0]))
    line = _line(what, unit, against, figures[:, [-1, 0]], None)
    curve = Curve(title, size, tuple(sizes), tuple(map(tuple, figures.tolist())))
    return dataclasses.replace(line, curve=curve)


def _line(what: str, unit: str, against: str, figures: np.ndarray, goal: Goal | None) -> Comparison:
    ratios = figures[:, 0] / figures[:, 1]
    ours, peer = np.median(figures, axis=0)
    spread = float(ratios.min()), float(ratios.max())
    return Comparison(
        what, unit, float(ours), against, float(peer), float(np.median(ratios)), spread, goal
    )


def rate(amount: float, work: Callable[[], Any]) -> Callable[[], float]:
    """Measures `work`, which does `amount` units: units per second."""

    def measure() -> float:
        start = time.perf_counter()
        work()
        return amount / (time.perf_counter() - start)

    return measure


def rate_at(percentile: float, calls: int, call: Callable[[], Any]) -> Callable[[], float]:
    """Measures many calls: how many of them a second would hold that take the percentile's time."""

    def measure() -> float:
        seconds = []
        for _ in range(calls):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        return 1.0 / float(np.percentile(seconds, percentile))

    return measure


def close(relative: float, absolute: float = 0.0) -> Callable[[Any, Any], None]:
    """Agreement of arrays (or tuples of them), value by value, as `numpy.allclose` has it."""

    def agree(ours: Any, peer: Any) -> None:
        for mine, other in zip(_arrays(ours), _arrays(peer), strict=True):
            if mine.shape != other.shape:
                raise Disagreement(f"shape {list(mine.shape)} against {list(other.shape)}")
            if not np.allclose(mine, other, rtol=relative, atol=absolute):
                worst = float(np.abs(mine - other).max())
                raise Disagreement(f"values differ by up to {worst:.3g}")

    return agree


def _answer(side: Side) -> Any:
    if side.answer is None:
        raise ValueError(f"{side.name}: expected an answer to compare")
    return side.answer()


def _arrays(answer: Any) -> list[np.ndarray]:
    parts = answer if isinstance(answer, tuple) else (answer,)
    return [np.asarray(part, np.float64) for part in parts]
