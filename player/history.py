"""The past of a dream, and the future that was rewound: a list of moments and a place in it.

A moment takes a few kilobytes (car_racing 3.4, take_cover 5.6), so ten minutes are 103 and 118 MB.
Frames are not stored: a latent decodes to the same picture each time. Only real frames are, of the
one episode that runs beside the dream: 16 and 39 MB more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from player.real import RealMoment, drift

if TYPE_CHECKING:
    from wm_tf.dream.world import DreamState

MEMORY_LIMIT = 180_000_000
"""Bytes; when they are used up, the oldest moments are forgotten."""

_OVERHEAD = 1_400  # bytes of Python objects in a moment, beside its arrays


@dataclass(frozen=True)
class Moment:
    """One point of a dream and the step that led to it (all zero at the beginning)."""

    state: DreamState
    action: np.ndarray  # [A] float32, as applied
    by_human: np.ndarray  # [A] bool, the components that a person drove
    wish: np.ndarray | None = None  # [A] float32, what the controller wanted
    temperature: float = 1.0
    reward: float = 0.0
    total: float = 0.0  # the return so far
    done_probability: float = 0.0
    danger: float = 0.0  # the sum of done_probability so far
    ended: bool = False
    pins: tuple[tuple[int, float], ...] = ()  # (dimension, value) set by hand after the step
    real: RealMoment | None = None  # the real environment, where it runs too
    from_real: bool = False  # its state is what V and M made of real frames, not of the step

    @cached_property
    def drift(self) -> float:
        """How far the dream is from what is real; 0 where nothing real runs."""
        return 0.0 if self.real is None else drift(self.real, self.state)

    @property
    def bytes(self) -> int:
        """About how much memory it takes, without what is real."""
        state = self.state
        return state.latent.nbytes + state.h.nbytes + state.c.nbytes + _OVERHEAD

    def bytes_after(self, before: Moment) -> int:
        """About how much memory it takes after another: once ended, the real one stays the same."""
        if self.real is None or self.real is before.real:
            return self.bytes
        return self.bytes + self.real.bytes


class History:
    """Moments in order, and which of them is now."""

    def __init__(self, first: Moment, limit: int = MEMORY_LIMIT) -> None:
        self._moments = [first]
        self._totals = [first.bytes]  # bytes of all moments up to each, since the history began
        self._forgotten = 0  # bytes of those that are no longer there
        self._gone = 0  # how many those are
        self._place = 0
        self._limit = limit

    @classmethod
    def of(cls, moments: Sequence[Moment]) -> History:
        """A history of those moments, whose present is the last of them."""
        history = cls(moments[0])
        for moment in moments[1:]:
            history.append(moment)
        return history

    @property
    def now(self) -> Moment:
        return self._moments[self._place]

    @property
    def moments(self) -> tuple[Moment, ...]:
        """From the oldest that is remembered up to now."""
        return tuple(self._moments[: self._place + 1])

    @property
    def place(self) -> int:
        return self._place

    @property
    def number(self) -> int:
        """How many moments came before the present, the forgotten ones too."""
        return self._gone + self._place

    def since(self, number: int) -> tuple[Moment, ...]:
        """From the moment of that number, or the oldest that is remembered, up to now."""
        return tuple(self._moments[max(0, number - self._gone) : self._place + 1])

    def at(self, number: int) -> Moment | None:
        """The moment of that number, be it past or a future that is still there."""
        place = number - self._gone
        return self._moments[place] if 0 <= place <= self.last_place else None

    @property
    def last_place(self) -> int:
        return len(self._moments) - 1

    @property
    def has_future(self) -> bool:
        """Whether it was rewound and the future that was left is still there."""
        return self._place < self.last_place

    def recent(self, count: int) -> list[Moment]:
        """At most `count` moments up to now, oldest first."""
        return self._moments[max(0, self._place + 1 - count) : self._place + 1]

    def append(self, moment: Moment) -> None:
        """Goes on with `moment`; a future that was rewound is gone."""
        self._forget_future()
        self._totals.append(self._totals[-1] + moment.bytes_after(self._moments[-1]))
        self._moments.append(moment)
        if self._totals[-1] - self._forgotten > self._limit:
            # A tenth at once: deleting from the front moves the whole list.
            oldest = max(1, len(self._moments) // 10)
            self._forgotten = self._totals[oldest - 1]
            self._gone += oldest
            del self._moments[:oldest], self._totals[:oldest]
        self._place = self.last_place

    def go_to(self, moment: Moment, within: int) -> bool:
        """Makes one of the last `within` moments the present; False if it is not among them."""
        for place in range(self._place, max(-1, self._place - within), -1):
            if self._moments[place] is moment:
                self._place = place
                return True
        return False

    def replace_now(self, moment: Moment) -> None:
        """Changes the present; a future that was rewound is gone."""
        self._forget_future()
        self._moments[self._place] = moment

    def _forget_future(self) -> None:
        del self._moments[self._place + 1 :], self._totals[self._place + 1 :]

    def move(self, steps: int) -> bool:
        """Goes `steps` forward (or back, if negative); False at the end of what is remembered."""
        place = min(max(self._place + steps, 0), self.last_place)
        moved = place != self._place
        self._place = place
        return moved
