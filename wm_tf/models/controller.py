"""C: the paper's linear controller, a squashed affine map from [z, h] (or [z, h, c]) to an action.

car_racing has 867 parameters, take_cover 1088 (Ha & Schmidhuber 2018, tables in appendix A).
The parameters are one flat vector, the kernel [A, F] row by row and then the bias [A] where there
is one: what CMA-ES sees, and what a controller's file holds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from wm_tf.config import Squash, Task


def features(task: Task, latent: Any, h: Any, c: Any) -> tf.Tensor:
    """What C sees: [z, h], or [z, h, c] where the task says so; [..., F]."""
    return tf.concat([latent, h, c] if task.controller_reads_cell else [latent, h], -1)


def split_parameters(task: Task, parameters: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Flat parameters [..., N] to (kernel [..., A, F], bias [..., A]; zeros where C has none)."""
    actions, inputs = task.action_size, task.controller_inputs
    leading = tf.shape(parameters)[:-1]
    kernel = tf.reshape(
        parameters[..., : actions * inputs], tf.concat([leading, [actions, inputs]], 0)
    )
    if task.controller_has_bias:
        return kernel, parameters[..., actions * inputs :]
    return kernel, tf.zeros(tf.concat([leading, [actions]], 0), kernel.dtype)


def act(task: Task, parameters: Any, inputs: Any) -> tf.Tensor:
    """Actions [..., A] of controllers with flat parameters [..., N] that see inputs [..., F].

    Leading axes broadcast, so that one call serves many controllers.
    """
    kernel, bias = split_parameters(task, parameters)
    return squash(task, tf.linalg.matvec(kernel, inputs) + bias)


def squash(task: Task, value: Any) -> tf.Tensor:
    """Unbounded values [..., A] to actions in the task's ranges."""
    columns = [_SQUASH[kind](value[..., index]) for index, kind in enumerate(task.squash)]
    return tf.stack(columns, -1)


_SQUASH: dict[Squash, Any] = {
    "tanh": tf.tanh,
    "unit": lambda x: 0.5 * (tf.tanh(x) + 1.0),
    "brake": lambda x: tf.clip_by_value(tf.tanh(x), 0.0, 1.0),
}


class Controller(tf.Module):
    """One controller; `act` takes batches.

    Args:
      task: says what C reads and how its outputs are squashed.
      parameters: flat [N]; zeros if not given.

    Raises:
      ValueError: `parameters` has another shape or values that are not finite.
    """

    def __init__(self, task: Task, parameters: np.ndarray | None = None) -> None:
        super().__init__(name="controller")
        self.task = task
        self.parameters = tf.Variable(tf.zeros([task.controller_parameters]), name="parameters")
        if parameters is not None:
            self.assign(parameters)

    def assign(self, parameters: np.ndarray) -> None:
        """Sets the flat parameters [N]."""
        parameters = np.asarray(parameters, np.float32)
        expected = (self.task.controller_parameters,)
        if parameters.shape != expected:
            raise ValueError(f"parameters: expected {list(expected)}, got {list(parameters.shape)}")
        if not np.isfinite(parameters).all():
            raise ValueError("parameters: expected finite values")
        self.parameters.assign(parameters)

    def act(self, latent: Any, h: Any, c: Any) -> tf.Tensor:
        """Actions [B, A] for latent [B, Z] and M's state h, c [B, H]."""
        return act(self.task, self.parameters, features(self.task, latent, h, c))
