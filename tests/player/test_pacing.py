"""The clock: late ticks are not made up for; the garbage collector stays out of the way."""

from __future__ import annotations

import gc
import time
import weakref

import pytest

from player import pacing
from player.pacing import Pacer, Stopwatch, Sweeper


class Clock:
    """A clock that sleeping moves on."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pacing, "time", clock)
    return clock


def test_ticks_come_evenly_whatever_the_work_between_them(clock):
    pacer = Pacer(real_time=True)
    for work in (0.001, 0.015, 0.005, 0.019, 0.002):
        clock.now += work
        pacer.wait(0.02)
    gaps = [b - a for a, b in zip(list(pacer.ticks)[:-1], list(pacer.ticks)[1:], strict=True)]
    assert gaps == pytest.approx([0.02] * 4)
    assert pacer.rate == pytest.approx(50)


def test_a_late_tick_slows_down_and_is_not_made_up_for(clock):
    pacer = Pacer(real_time=True)
    for work in (0.0, 0.1, 0.0):
        clock.now += work
        pacer.wait(0.02)
    gaps = [b - a for a, b in zip(list(pacer.ticks)[:-1], list(pacer.ticks)[1:], strict=True)]
    assert gaps == pytest.approx([0.1, 0.02])


def test_the_rate_is_of_ticks_of_one_period(clock):
    pacer = Pacer(real_time=True)
    for period in (*[0.2] * 20, *[0.02] * 3):
        pacer.wait(period)
    assert pacer.rate == pytest.approx(50)


def test_without_real_time_nothing_waits():
    pacer = Pacer(real_time=False)
    began = time.perf_counter()
    for _ in range(100):
        pacer.wait(1.0)
    assert time.perf_counter() - began < 1.0


def test_stopwatch_reports_milliseconds():
    stopwatch = Stopwatch()
    assert stopwatch.milliseconds() == {"p50": None, "p99": None}
    for _ in range(10):
        stopwatch.add(0.004)
    assert stopwatch.milliseconds() == {"p50": 4.0, "p99": 4.0}


def test_what_lives_long_leaves_the_collectors_sight_and_is_freed_all_the_same():
    class Moment:
        pass

    moment = Moment()
    try:
        Sweeper().turn()
        assert not any(seen is moment for seen in gc.get_objects())
        gone = weakref.ref(moment)
        del moment
        assert gone() is None
    finally:
        gc.unfreeze()
