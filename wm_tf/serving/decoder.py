"""V's decoder with everything computed ahead that depends on its weights alone.

For one frame at a time, which is what a person playing asks for, the decoder's arithmetic is small
and the time goes into its weights: the sub-pixel layers rearrange their kernels in every call, and
the first transposed convolution reads 3.3 million weights. Both are constant in an export:

* Dense and the first transposed convolution (of a single pixel, with no activation between them)
  are one affine map, latent [B, Z] -> [B, 5 * 5 * 128].
* The other kernels are kept as the ordinary convolutions that give the four phases.

Decoding one frame then takes a fifth of the time. The result is the Keras decoder's up to rounding.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from wm_tf.models.vision import (
    SubpixelConv2DTranspose,
    Vision,
    convolve_phases,
    phase_kernel,
)


class FoldedDecoder(tf.Module):
    """Decodes latents [B, Z] to frames, float32 [B, 64, 64, 3] in [0, 1]."""

    def __init__(self, vision: Vision) -> None:
        super().__init__(name="folded_decoder")
        layers = vision.decoder.layers
        dense = next(layer for layer in layers if isinstance(layer, keras.layers.Dense))
        first, *others = (layer for layer in layers if isinstance(layer, SubpixelConv2DTranspose))
        kernel, bias = _fold_first(dense, first)
        self._first_shape = [-1, first.kernel_size, first.kernel_size, first.filters]
        self._activations = [layer.activation for layer in (first, *others)]
        self._sizes = [layer.kernel_size for layer in others]
        self.first = (tf.Variable(kernel), tf.Variable(bias))
        self.kernels = [tf.Variable(phase_kernel(layer.kernel)) for layer in others]
        self.biases = [layer.bias.value for layer in others]

    @property
    def derived(self) -> list[tf.Variable]:
        """The variables that the Keras decoder does not have."""
        return [*self.first, *self.kernels]

    def __call__(self, latent: Any) -> tf.Tensor:
        kernel, bias = self.first
        pixels = tf.reshape(tf.matmul(latent, kernel) + bias, self._first_shape)
        pixels = self._activations[0](pixels)
        parts = zip(self._sizes, self.kernels, self.biases, self._activations[1:], strict=True)
        for size, kernel, phase_bias, activation in parts:
            pixels = activation(convolve_phases(pixels, kernel, size) + phase_bias)
        return tf.sigmoid(pixels)


def _fold_first(
    dense: keras.layers.Dense, first: SubpixelConv2DTranspose
) -> tuple[np.ndarray, np.ndarray]:
    """(kernel [Z, k k F], bias [k k F]) of both layers together, summed in float64."""
    transposed = first.kernel.numpy().astype(np.float64)  # [k, k, F, C]
    flat = transposed.reshape(-1, transposed.shape[-1])
    kernel = dense.kernel.numpy() @ flat.T
    bias = dense.bias.numpy() @ flat.T + np.tile(first.bias.numpy(), first.kernel_size**2)
    return kernel.astype(np.float32), bias.astype(np.float32)
