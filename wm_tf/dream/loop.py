"""M as a compiled loop over many dreams reads it.

Its products are computed in bfloat16 where the processor gains from it (states and sums stay
float32), and its output columns come component by component, which is how samples are drawn
fastest.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from wm_tf.models import Memory, lstm, mixture


class LoopStep(NamedTuple):
    """What a step of B dreams led to."""

    latent: tf.Tensor  # sampled, [B, Z]
    h: tf.Tensor  # [B, H]
    c: tf.Tensor  # [B, H]
    reward: tf.Tensor  # expected, [B]
    done_logit: tf.Tensor  # as the end head was trained, [B]


class LoopWeights(NamedTuple):
    """M's weights, laid out for the loop."""

    kernel: tf.Tensor  # [Z + A + H, 4 H]
    bias: tf.Tensor
    output_kernel: tf.Tensor  # [H, 3 K Z + 2]
    output_bias: tf.Tensor

    @classmethod
    def of(cls, memory: Memory, dtype: str) -> LoopWeights:
        """Those of M; `dtype` is that of the products."""
        shape = (3, memory.latent_size, memory.mixtures)
        by_component = np.arange(np.prod(shape)).reshape(shape).transpose(0, 2, 1).ravel()
        columns = np.concatenate([by_component, by_component.size + np.arange(2)])
        return cls(
            tf.cast(memory.kernel, dtype),
            tf.convert_to_tensor(memory.bias),
            tf.cast(tf.gather(memory.output_kernel, columns, axis=1), dtype),
            tf.gather(memory.output_bias, columns),
        )

    def step(
        self, latent: Any, action: Any, h: Any, c: Any, mask: Any,
        temperature: Any, uniform: Any, normal: Any,
    ) -> LoopStep:  # fmt: skip
        """One step of B dreams.

        Args:
          latent, action, h, c: [B, Z], [B, A], [B, H], [B, H].
          mask: of M's outputs, [B, H]; see `Memory.heads`.
          temperature: greater than 0.
          uniform, normal: noise, [B, Z]; see `mixture.noise`.
        """
        dtype, size = self.kernel.dtype.name, latent.shape[-1]
        inputs = tf.concat([latent, action, h], -1)
        h, c = lstm.cell(lstm.product(inputs, self.kernel, dtype) + self.bias, c)
        output = lstm.product(h * mask, self.output_kernel, dtype) + self.output_bias
        mixtures = (output.shape[-1] - 2) // (3 * size)
        *parts, reward, done_logit = tf.split(output, [size] * 3 * mixtures + [1, 1], -1)
        logits, means, log_stds = (
            parts[first : first + mixtures] for first in range(0, 3 * mixtures, mixtures)
        )
        latent = mixture.sample_components(logits, means, log_stds, temperature, uniform, normal)
        return LoopStep(latent, h, c, reward[:, 0], done_logit[:, 0])
