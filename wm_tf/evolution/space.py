"""What CMA-ES searches: every weight of a controller, or how strongly it uses each action.

A fitness of few real rollouts is mostly noise. It shows the way among six numbers, not among 867.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from wm_tf.config import Search, Task
from wm_tf.errors import UserError


class Space(Protocol):
    """A space of points that stand for controllers."""

    start: np.ndarray
    """The point [D] of the controller that the search begins with."""

    def parameters(self, points: np.ndarray) -> np.ndarray:
        """Points [..., D] to controllers' flat parameters [..., N]."""


class Weights:
    """Every weight and bias: a point is the parameters themselves, D = N."""

    def __init__(self, initial: np.ndarray) -> None:
        self.start = np.asarray(initial, np.float64)

    def parameters(self, points: np.ndarray) -> np.ndarray:
        return points


class Actuators:
    """A gain and an offset of each action before it is squashed, D = 2 A.

        action_i = squash(exp(g_i) (w_i [z, h] + b_i) + o_i),   point = (g_1 .. g_A, o_1 .. o_A)

    Args:
      task: whose controller it is.
      initial: parameters [N] of the controller whose actions are scaled and moved.

    Raises:
      UserError: the task's controller has no bias, which an offset would have to be, or `initial`
        is zero.
    """

    def __init__(self, task: Task, initial: np.ndarray) -> None:
        if not task.controller_has_bias:
            raise UserError(f"--search actuators: the controller of {task.name} has no bias")
        if not np.any(initial):
            raise UserError("--search actuators: expected a controller to begin with, got none")
        self._actions = task.action_size
        self._initial = np.asarray(initial, np.float64)
        self.start = np.zeros(2 * self._actions)

    def parameters(self, points: np.ndarray) -> np.ndarray:
        gain = np.exp(points[..., : self._actions])
        kernel = self._initial[: -self._actions].reshape(self._actions, -1)
        scaled = gain[..., np.newaxis] * kernel
        bias = gain * self._initial[-self._actions :] + points[..., self._actions :]
        return np.concatenate([scaled.reshape(*points.shape[:-1], -1), bias], axis=-1)


def make_space(search: Search, task: Task, initial: np.ndarray) -> Space:
    """The space of that name around a controller's parameters [N]."""
    return Weights(initial) if search == "weights" else Actuators(task, initial)
