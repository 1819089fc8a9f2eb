"""Who drives: a person's hands and the controller's wish become one action.

The driver decides what a held key does:

* assist: the controller drives; a key overrides it on its own axis alone. The axes that a person
  takes over are the wheel, and the pedals together (a foot that brakes also leaves the gas).
* controller: the controller drives; a key overrides it on all axes, for as long as it is held.
* human: there is no controller; what is let go returns to rest.

Keys are digital, a wheel is not: while a key is held its value moves
towards the end of its range at a fixed rate, starting from what was applied last, so that taking
over from the controller is smooth; when it is let go, the value returns to rest. Everything here
is a pure function of what was applied last, hence a rewound dream drives on exactly.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from wm_tf.config import Task


class Driver(enum.Enum):
    """Who drives."""

    ASSIST = "assist"  # the controller; a hand on an axis overrides it there
    HUMAN = "human"
    CONTROLLER = "controller"  # the controller; a hand anywhere overrides it everywhere


@dataclass(frozen=True)
class Hands:
    """Where a person's hands are: a target per control, None for a control that is let go."""

    steer: float | None = None  # [-1, 1]
    gas: float | None = None  # [0, 1]
    brake: float | None = None  # [0, 1]
    analog: frozenset[str] = frozenset()  # which of them apply at once, as a stick does; keys ramp

    @property
    def on(self) -> bool:
        """Whether any control is held."""
        return not (self.steer is None and self.gas is None and self.brake is None)


HANDS_OFF = Hands()


@dataclass(frozen=True)
class Axis:
    """One component of an action: its range and how fast a held key moves it."""

    name: str
    low: float
    high: float
    seconds_to_full: float  # 0: at once
    seconds_to_rest: float


AXES: dict[str, tuple[Axis, ...]] = {
    "car_racing": (
        Axis("steer", -1.0, 1.0, 0.25, 0.12),
        Axis("gas", 0.0, 1.0, 0.20, 0.10),
        Axis("brake", 0.0, 1.0, 0.20, 0.06),
    ),
    "take_cover": (Axis("steer", -1.0, 1.0, 0.0, 0.0),),
}
"""The components of each task's action, in order."""


@dataclass(frozen=True)
class Drive:
    """An action [A] float32, and which of its components a person drove [A] bool."""

    action: np.ndarray
    by_human: np.ndarray


def combine(
    task: Task,
    driver: Driver,
    hands: Hands,
    wish: np.ndarray | None,
    last: np.ndarray,
    seconds: float,
) -> Drive:
    """The action of one step.

    Args:
      hands: where the person's hands are.
      wish: what the controller wants, [A]; None where there is no controller.
      last: the action applied in the step before, [A].
      seconds: the length of a step.
    """
    human = _hands_to_action(task, hands, last, seconds)
    if wish is None or driver is Driver.HUMAN:
        return Drive(human, np.ones(task.action_size, bool))
    held = held_axes(task, hands)
    by_human = np.full_like(held, held.any()) if driver is Driver.CONTROLLER else held
    return Drive(np.where(by_human, human, wish).astype(np.float32), by_human)


def clip(task: Task, action: np.ndarray) -> np.ndarray:
    """An action within the ranges of the task's axes."""
    axes = AXES[task.name]
    low, high = [axis.low for axis in axes], [axis.high for axis in axes]
    return np.clip(action, low, high).astype(np.float32)


def held_axes(task: Task, hands: Hands) -> np.ndarray:
    """Which components of a task's action a person holds, bool [A]; take_cover has no pedals."""
    wheel = hands.steer is not None
    pedals = hands.gas is not None or hands.brake is not None
    return np.array([wheel if axis.name == "steer" else pedals for axis in AXES[task.name]])


def _hands_to_action(task: Task, hands: Hands, last: np.ndarray, seconds: float) -> np.ndarray:
    targets = {"steer": hands.steer, "gas": hands.gas, "brake": hands.brake}
    values = [
        _ramp(axis, float(previous), targets[axis.name], axis.name in hands.analog, seconds)
        for axis, previous in zip(AXES[task.name], last, strict=True)
    ]
    return np.array(values, np.float32)


def _ramp(axis: Axis, value: float, target: float | None, analog: bool, seconds: float) -> float:
    aim = min(max(target or 0.0, axis.low), axis.high)
    # Against the present direction a key first works as letting go does: faster.
    returning = target is None or value * aim < 0 or abs(aim) < abs(value)
    duration = axis.seconds_to_rest if returning else axis.seconds_to_full
    if analog or duration <= 0:
        return aim
    reach = seconds / duration
    return min(max(aim, value - reach), value + reach)
