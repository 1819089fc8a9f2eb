"""C: the paper's linear controller, a squashed affine map from [z, h] (or [z, h, c]) to an action.

car_racing has 867 parameters, take_cover 1088 (Ha & Schmidhuber 2018, tables in appendix A).
The parameters are one flat vector, the kernel [A, F] row by row and then the bias [A] where there
is one: what CMA-ES sees, and what a controller's file holds.

For comparison there may be a layer of U hidden units (tanh) before it. The vector then begins with
that layer's kernel [U, F] and bias [U], and its length tells U.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from wm_tf.config import Squash, Task


def features(task: Task, latent: Any, h: Any, c: Any) -> tf.Tensor:
    """What C sees: [z, h], or [z, h, c] where the task says so; [..., F]."""
    return tf.concat([latent, h, c] if task.controller_reads_cell else [latent, h], -1)


Layers = tuple[tuple[Any, Any], ...]
"""(kernel [..., M, N], bias [..., M]) of each layer, hidden ones first."""


def split_parameters(task: Task, parameters: Any) -> Layers:
    """Flat parameters [..., N] to the layers; the last one's bias is zeros where C has none."""
    hidden = task.hidden_units(int(parameters.shape[-1]))
    layers = []
    if hidden:
        size = hidden * (task.controller_inputs + 1)
        layers.append(_layer(parameters[..., :size], hidden, has_bias=True))
        parameters = parameters[..., size:]
    layers.append(_layer(parameters, task.action_size, has_bias=task.controller_has_bias))
    return tuple(layers)


def _layer(flat: Any, outputs: int, *, has_bias: bool) -> tuple[Any, Any]:
    weights = flat.shape[-1] - outputs * has_bias
    leading = tf.shape(flat)[:-1]
    shape = tf.concat([leading, [outputs, weights // outputs]], 0)
    kernel = tf.ensure_shape(
        tf.reshape(flat[..., :weights], shape), [*flat.shape[:-1], outputs, weights // outputs]
    )
    if has_bias:
        return kernel, flat[..., weights:]
    return kernel, tf.zeros(tf.concat([leading, [outputs]], 0), kernel.dtype)


def act(task: Task, parameters: Any, inputs: Any) -> tf.Tensor:
    """Actions [..., A] of controllers with flat parameters [..., N] that see inputs [..., F].

    Leading axes broadcast, so that one call serves many controllers.
    """
    return act_by_layers(task, split_parameters(task, parameters), inputs)


def act_by_layers(task: Task, layers: Layers, inputs: Any) -> tf.Tensor:
    """As `act`, of parameters that are split already."""
    return squash(task, raw_by_layers(layers, inputs))


def raw_by_layers(layers: Layers, inputs: Any) -> tf.Tensor:
    """What is squashed to the actions of `act_by_layers`, [..., A]."""
    *hidden, (kernel, bias) = layers
    for hidden_kernel, hidden_bias in hidden:
        inputs = tf.tanh(tf.linalg.matvec(hidden_kernel, inputs) + hidden_bias)
    return tf.linalg.matvec(kernel, inputs) + bias


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
      parameters: flat [N]; zeros of the linear controller if not given.

    Raises:
      ValueError: `parameters` has another shape or values that are not finite.
    """

    def __init__(self, task: Task, parameters: np.ndarray | None = None) -> None:
        super().__init__(name="controller")
        self.task = task
        size = task.controller_parameters
        if parameters is not None and np.ndim(parameters) == 1:
            size = len(parameters)
            task.hidden_units(size)  # that there is such a controller
        self.parameters = tf.Variable(tf.zeros([size]), name="parameters")
        if parameters is not None:
            self.assign(parameters)

    def assign(self, parameters: np.ndarray) -> None:
        """Sets the flat parameters [N]."""
        parameters = np.asarray(parameters, np.float32)
        expected = self.parameters.shape.as_list()
        if list(parameters.shape) != expected:
            raise ValueError(f"parameters: expected {expected}, got {list(parameters.shape)}")
        if not np.isfinite(parameters).all():
            raise ValueError("parameters: expected finite values")
        self.parameters.assign(parameters)

    def act(self, latent: Any, h: Any, c: Any) -> tf.Tensor:
        """Actions [B, A] for latent [B, Z] and M's state h, c [B, H]."""
        return act(self.task, self.parameters, features(self.task, latent, h, c))
