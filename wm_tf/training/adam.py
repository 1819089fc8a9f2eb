"""Keras's Adam (Kingma & Ba 2015), faster and for several devices."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from wm_tf.models import devices


class Adam(keras.optimizers.Adam):
    """Adam in one pass over a weight, where Keras makes one for every operation of the formula.

    On several devices it clips the gradient of the whole batch, where Keras clips each device's
    part.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        if devices.count() > 1 or self.amsgrad:
            super().update_step(gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=_handle(variable),
            m=_handle(self._momentums[index]),
            v=_handle(self._velocities[index]),
            beta1_power=tf.pow(tf.constant(self.beta_1, variable.dtype), step),
            beta2_power=tf.pow(tf.constant(self.beta_2, variable.dtype), step),
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, variable.dtype),
        )

    def _clip_gradients(self, grads: list[Any]) -> list[Any]:
        count = devices.count()
        if count == 1:
            return super()._clip_gradients(grads)
        context = tf.distribute.get_replica_context()
        whole = context.all_reduce(tf.distribute.ReduceOp.SUM, grads)
        # Keras adds the devices' gradients up afterwards, which are all the same now.
        return [gradient / count for gradient in super()._clip_gradients(whole)]


def _handle(variable: Any) -> Any:
    """Of a variable of Keras's or of TensorFlow's."""
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle
