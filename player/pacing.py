"""The clock of the loop: the environment's own rate in a window, as fast as it goes without one."""

from __future__ import annotations

import gc
import time
from collections import deque

import numpy as np


class Pacer:
    """Waits for the next tick, evenly, and measures."""

    def __init__(self, real_time: bool) -> None:
        self.real_time = real_time
        self._due: float | None = None
        self._period: float | None = None
        self.ticks: deque[float] = deque(maxlen=50)

    def wait(self, period: float) -> None:
        """Waits until `period` seconds after the last tick.

        A tick that comes late is not made up for: the dream slows down and no input is skipped.
        """
        now = time.perf_counter()
        if period != self._period:
            self.ticks.clear()
            self._period = period
        if self.real_time and self._due is not None:
            remaining = self._due + period - now
            if remaining > 0:
                time.sleep(remaining)
                self._due += period
            else:
                self._due = now
        else:
            self._due = now
        self.ticks.append(time.perf_counter())

    @property
    def rate(self) -> float:
        """Ticks per second, over the last 50 of the same period."""
        if len(self.ticks) < 2:
            return 0.0
        return (len(self.ticks) - 1) / (self.ticks[-1] - self.ticks[0])


class Stopwatch:
    """Durations of the steps, for the report."""

    def __init__(self) -> None:
        self._seconds: list[float] = []

    def add(self, seconds: float) -> None:
        self._seconds.append(seconds)

    def milliseconds(self) -> dict[str, float | None]:
        """{"p50", "p99"}; None where nothing was measured."""
        if not self._seconds:
            return {"p50": None, "p99": None}
        p50, p99 = np.percentile(self._seconds, (50, 99)) * 1000
        return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}


class Sweeper:
    """Keeps Python's garbage collector from stopping the dream.

    A full collection looks at every object there is: TensorFlow brings a million, and a history
    of minutes a few hundred thousand, which makes a visible pause. What has lived for some seconds
    is therefore taken out of the collector's sight; reference counts free all of it but the models
    of a task that was left.
    """

    _TURNS = 250

    def __init__(self) -> None:
        self._turns = 0

    def turn(self) -> None:
        """One turn of the loop went by."""
        if self._turns % self._TURNS == 0:
            gc.collect(1 if self._turns else 2)
            gc.freeze()
        self._turns += 1

    @staticmethod
    def sweep() -> None:
        """Frees what was left, however long it has lived; takes a moment."""
        gc.unfreeze()
        gc.collect()
