"""What CMA-ES searches: every weight of a controller, or how it uses each action.

A fitness of few real rollouts is mostly noise. It shows the way among six numbers or some dozens,
not among 867.

Weights are searched as they are or scaled, in units of one over the standard deviation of what each
reads. M's state varies by a sixth of what the latent does: a step that is the same for all weights
then hardly uses it, and what the latent's noise does to the actions hides what it could do.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from wm_tf.config import ControllerConfig, Task
from wm_tf.errors import UserError
from wm_tf.evolution.strategy import one_thread

SMALLEST_SPREAD = 0.02
"""Added to the standard deviation of what a weight reads: some features hardly vary."""


class Space(Protocol):
    """A space of points that stand for controllers."""

    start: np.ndarray
    """The point [D] of the controller that the search begins with."""

    def parameters(self, points: np.ndarray) -> np.ndarray:
        """Points [..., D] to controllers' flat parameters [..., N]."""


class Weights:
    """Weights and biases: a point is the parameters themselves, D = N, or those that are free.

    Args:
      initial: parameters [N] of the controller to begin with.
      free: which of them are searched, bool [N]; the others are 0. None: all.
      units: a point is the parameters in these units, positive [N]; None: 1.
    """

    def __init__(
        self,
        initial: np.ndarray,
        free: np.ndarray | None = None,
        units: np.ndarray | None = None,
    ) -> None:
        initial = np.asarray(initial, np.float64)
        self._free = np.ones(len(initial), bool) if free is None else free
        self._units = np.ones(len(self._free)) if units is None else units
        self.start = (initial / self._units)[self._free]

    def parameters(self, points: np.ndarray) -> np.ndarray:
        parameters = np.zeros((*points.shape[:-1], len(self._free)))
        parameters[..., self._free] = points
        return parameters * self._units


class Actuators:
    """A gain and an offset of each action before it is squashed, and how it follows P features.

        action_i = squash(exp(g_i) (w_i x + b_i) + o_i + sum_j m_ij p_j(x)),   x = [z, h]

    A point is (g_1 .. g_A, o_1 .. o_A, m_11 .. m_AP), D = (2 + P) A. The features p_j are what C
    sees along its P principal components, with mean 0 and variance 1.

    Args:
      task: whose controller it is.
      initial: parameters [N] of the controller whose actions are changed.
      seen: what C sees at some moments, [M, F], of which the components are; None: P = 0.
      components: P, less than M and at most F.

    Raises:
      UserError: there are too few moments.
    """

    def __init__(
        self,
        task: Task,
        initial: np.ndarray,
        seen: np.ndarray | None = None,
        components: int = 0,
    ) -> None:
        self._actions = task.action_size
        self._initial = np.asarray(initial, np.float64)
        self._center, self._directions = _components(task, seen, components)
        self.start = np.zeros((2 + components) * self._actions)

    def parameters(self, points: np.ndarray) -> np.ndarray:
        actions = self._actions
        gain = np.exp(points[..., :actions])
        follow = points[..., 2 * actions :].reshape(*points.shape[:-1], actions, -1)
        change = follow @ self._directions
        kernel = self._initial[:-actions].reshape(actions, -1)
        kernel = gain[..., np.newaxis] * kernel + change
        bias = gain * self._initial[-actions:] + points[..., actions : 2 * actions]
        bias = bias - change @ self._center
        return np.concatenate([kernel.reshape(*points.shape[:-1], -1), bias], axis=-1)


def _components(
    task: Task, seen: np.ndarray | None, components: int
) -> tuple[np.ndarray, np.ndarray]:
    """(mean [F], [P, F]) of which the product with x - mean has mean 0 and variance 1."""
    if components == 0:
        return np.zeros(task.controller_inputs), np.zeros((0, task.controller_inputs))
    moments = 0 if seen is None else len(seen)
    if seen is None or moments <= components:
        raise UserError(
            f"--components: expected fewer than the {moments} moments of the models' starts, "
            f"got {components}"
        )
    center = seen.mean(axis=0, dtype=np.float64)
    with one_thread():
        _, values, directions = np.linalg.svd(seen - center, full_matrices=False)
    deviations = values[:components, np.newaxis] / np.sqrt(len(seen))
    return center, directions[:components] / deviations


def _of_latent(task: Task, hidden: int) -> np.ndarray:
    """Which parameters have nothing to do with M's state, bool [N]."""
    free = np.ones(task.controller_size(hidden), bool)
    _reading(free, task, hidden)[:, task.latent_size :] = False
    return free


def _units(task: Task, hidden: int, seen: np.ndarray) -> np.ndarray:
    """Of each parameter, [N], those in which equal steps change equally much of what C does.

    Args:
      seen: what C sees at some moments, [M, F].
    """
    units = np.ones(task.controller_size(hidden))
    spread = seen.std(axis=0, dtype=np.float64)
    _reading(units, task, hidden)[:] = 1.0 / (spread + SMALLEST_SPREAD)
    return units


def _reading(parameters: np.ndarray, task: Task, hidden: int) -> np.ndarray:
    """Those of parameters [N] that C multiplies what it sees by, [U or A, F]; a view."""
    rows = hidden or task.action_size  # of the first layer
    return parameters[: rows * task.controller_inputs].reshape(rows, -1)


def check_space(config: ControllerConfig, task: Task, initial: np.ndarray) -> None:
    """Raises UserError where a task's controller has no such space around `initial`, [N]."""
    held = task.hidden_units(len(initial))
    if config.hidden != held:
        raise UserError(
            f"--hidden: expected {held}, as the controller to begin with has, got {config.hidden}"
        )
    if config.search != "actuators":
        return
    if not task.controller_has_bias:  # which an offset would have to be
        raise UserError(f"--search actuators: the controller of {task.name} has no bias")
    if not np.any(initial):
        raise UserError("--search actuators: expected a controller to begin with, got none")
    if config.components > task.controller_inputs:
        raise UserError(
            f"--components: expected at most {task.controller_inputs}, got {config.components}"
        )


def make_space(
    config: ControllerConfig, task: Task, initial: np.ndarray, seen: np.ndarray | None = None
) -> Space:
    """The space that a configuration names around a controller's parameters [N].

    Args:
      config: its `search` and `components`.
      task: whose controller it is.
      initial: its parameters [N].
      seen: what C sees at some moments, [M, F]; needed for components and for scaled weights.

    Raises:
      UserError: there are too few moments for the components, or none.
    """
    if config.search == "actuators":
        return Actuators(task, initial, seen, config.components)
    free = None if config.sees == "state" else _of_latent(task, config.hidden)
    if config.search == "weights":
        return Weights(initial, free)
    if seen is None:
        raise UserError("--search scaled: expected models with starts on the way, got none")
    return Weights(initial, free, _units(task, config.hidden, seen))
