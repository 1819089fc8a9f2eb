"""Who drives which axis, and how keys feel."""

from __future__ import annotations

import numpy as np
import pytest

from player import driving
from player.driving import Driver, Hands
from wm_tf.config import get_task

CAR, COVER = get_task("car_racing"), get_task("take_cover")
WISH = np.array([-0.5, 0.25, 0.1], np.float32)
REST = np.zeros(3, np.float32)
STEP = 0.02


def drive(driver, hands, wish=WISH, last=REST, task=CAR):
    return driving.combine(task, driver, hands, wish, last, STEP)


def test_controller_drives_all_axes_while_no_hand_is_on():
    result = drive(Driver.ASSIST, Hands())
    np.testing.assert_array_equal(result.action, WISH)
    assert not result.by_human.any()


def test_steering_overrides_the_wheel_alone():
    result = drive(Driver.ASSIST, Hands(steer=1.0))
    assert result.by_human.tolist() == [True, False, False]
    assert result.action[0] > 0
    np.testing.assert_array_equal(result.action[1:], WISH[1:])


@pytest.mark.parametrize("hands", [Hands(gas=1.0), Hands(brake=1.0)])
def test_a_foot_takes_both_pedals_and_leaves_the_wheel(hands):
    result = drive(Driver.ASSIST, hands)
    assert result.by_human.tolist() == [False, True, True]
    assert result.action[0] == WISH[0]


def test_a_key_overrides_the_controller_wholly_and_for_as_long_as_it_is_held():
    result = drive(Driver.CONTROLLER, Hands(steer=1.0))
    assert result.by_human.all()
    assert result.action[0] > 0
    assert result.action[1:].tolist() == [0.0, 0.0]
    result = drive(Driver.CONTROLLER, Hands(), last=result.action)
    np.testing.assert_array_equal(result.action, WISH)
    assert not result.by_human.any()


def test_human_alone_gets_no_help():
    result = drive(Driver.HUMAN, Hands())
    np.testing.assert_array_equal(result.action, REST)
    assert result.by_human.all()


def test_a_held_key_turns_the_wheel_gradually_to_full_and_it_returns_faster():
    values = [0.0]
    for _ in range(20):
        last = np.array([values[-1], 0, 0], np.float32)
        values.append(float(drive(Driver.HUMAN, Hands(steer=1.0), last=last).action[0]))
    assert 0 < values[1] < 0.2
    assert np.all(np.diff(values) >= 0)
    assert values[-1] == 1.0
    released = float(drive(Driver.HUMAN, Hands(), last=np.array([1, 0, 0], np.float32)).action[0])
    assert 1.0 - released > values[1] - values[0]


def test_taking_over_begins_where_the_controller_left_the_wheel():
    last = np.array([-0.5, 0.25, 0.0], np.float32)
    action = drive(Driver.ASSIST, Hands(steer=-1.0), last=last).action
    assert -0.7 < action[0] < -0.5


def test_a_stick_applies_at_once():
    hands = Hands(steer=0.6, analog=frozenset({"steer"}))
    assert drive(Driver.HUMAN, hands).action[0] == pytest.approx(0.6)


def test_take_cover_moves_at_once():
    last = np.zeros(1, np.float32)
    result = drive(Driver.HUMAN, Hands(steer=-1.0), None, last, COVER)
    assert result.action.tolist() == [-1.0]


@pytest.mark.parametrize("driver", [Driver.CONTROLLER, Driver.ASSIST])
def test_a_foot_on_pedals_that_a_task_has_not_overrides_nothing(driver):
    wish, last = np.array([0.8], np.float32), np.zeros(1, np.float32)
    for hands in (Hands(gas=1.0), Hands(brake=1.0)):
        result = drive(driver, hands, wish, last, COVER)
        assert result.action == wish
        assert not result.by_human.any()
    assert drive(driver, Hands(steer=-1.0, gas=1.0), wish, last, COVER).action == -1.0


def test_clip_keeps_actions_in_range():
    action = driving.clip(CAR, np.array([-3.0, 2.0, -1.0]))
    assert action.tolist() == [-1.0, 1.0, 0.0]
    assert action.dtype == np.float32
