"""What the mixture panel draws, as numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pygame
import pytest

from player.commands import Command
from player.driving import Driver, Hands
from player.real import RealMoment
from player.session import Session
from player.view.instruments import _life, heartbeat
from player.view.panels import mixture_bars, responsible
from player.view.sparing import Sparing


def test_a_component_is_as_wide_as_its_weight_and_reaches_over_its_spread():
    cell = pygame.Rect(10, 100, 40, 60)  # 10 pixels per unit of the latent
    expected = {
        "weights": np.array([[0.75, 0.25, 0.0]]),
        "mean": np.array([[1.0, -9.0, 0.0]]),
        "std": np.array([[0.5, 0.1, 1.0]]),
    }
    first, second, third = mixture_bars([cell], expected)[0].tolist()
    assert first == [10, 115, 29, 10]
    assert second[0::2] == [40, 9]
    assert second[1] == cell.bottom  # beyond the range: at its end
    assert third[2] == 0


def test_the_heartbeat_moves_on_and_is_faster_in_danger():
    steps = np.arange(200)
    calm, hurried = (np.cumsum(np.full(200, danger)) for danger in (0.0, 0.15))
    line = heartbeat(steps, calm)
    assert np.abs(line[130:] - line[129:-1]).max() > 0.1  # the window of a moment before
    np.testing.assert_array_equal(heartbeat(steps[130:], calm[130:]), line[130:])
    beats = [int((np.diff(np.sign(heartbeat(steps, d) - 0.3)) > 0).sum()) for d in (calm, hurried)]
    assert beats == [6, 9]


@pytest.mark.parametrize(
    ("end", "word"),
    [({}, "alive"), ({"terminated": True}, "dead"), ({"truncated": True}, "survived")],
)
def test_who_lives_until_the_time_is_up_is_not_dead(world, end, word):
    now = Session(world).now
    real = RealMoment(np.zeros((64, 64, 3), np.uint8), now.state, **end)
    assert _life(replace(now, real=real, ended=real.ended, from_real=True)) == word
    assert _life(replace(now, real=real, ended=True)) == "dead"  # in the dream beside it


def test_the_component_that_gave_a_value_is_found():
    expected = {
        "weights": np.array([[0.5, 0.5, 0.0]]),
        "mean": np.array([[-1.0, 1.0, 0.9]]),
        "std": np.array([[0.3, 0.3, 0.3]]),
    }
    assert responsible(expected, np.array([0.9])).tolist() == [1]
    assert responsible(expected, np.array([-0.4])).tolist() == [0]


@pytest.mark.parametrize("speed", [1.0, 2.0, 4.0])
def test_what_is_computed_sparingly_takes_turns_at_every_speed(world, speed):
    session = Session(world, driver=Driver.HUMAN)
    session.speed = speed
    both = [Sparing(parity) for parity in (0, 1)]
    counts = [0, 0]
    for _ in range(10):
        for _ in range(round(speed)):
            session.tick(Hands(gas=1.0))
        assert not session.ended
        before = list(counts)
        for index, sparing in enumerate(both):
            sparing.of(session, lambda index=index: counts.__setitem__(index, counts[index] + 1))
        assert session.step <= 2 * speed or sum(counts) - sum(before) == 1
    assert min(counts) >= 4


def test_what_is_computed_sparingly_is_of_the_present_where_time_stands_still(mortal_world):
    session = Session(mortal_world, driver=Driver.HUMAN)
    both = [Sparing(parity) for parity in (0, 1)]

    def steps() -> list[int]:
        session.tick(Hands(gas=1.0))
        return [sparing.of(session, lambda: session.step) for sparing in both]

    for _ in range(4):
        steps()
    assert sorted(steps()) == [4, 5]
    session.do(Command.FORK)
    assert steps() == [5, 5]
    session.do(Command.FORK)
    while not session.ended:
        steps()
    assert steps() == [session.step] * 2
