"""The decoder whose weights are rearranged ahead."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from wm_tf.serving.contract import SIGNATURES


@pytest.mark.parametrize(("size", "side"), [(5, 5), (6, 13), (6, 30)])
def test_phases_are_the_transposed_convolution(size: int, side: int) -> None:
    import tensorflow as tf

    from wm_tf.models.vision import convolve_phases, phase_kernel

    generator = np.random.default_rng(1)
    pixels = generator.normal(size=(2, side, side, 7)).astype(np.float32)
    kernel = generator.normal(size=(size, size, 4, 7)).astype(np.float32)
    full = 2 * (side - 1) + size
    expected = tf.nn.conv2d_transpose(pixels, kernel, [2, full, full, 4], 2, "VALID")
    actual = convolve_phases(tf.constant(pixels), phase_kernel(kernel), size)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-4)  # sums of 63 products


def test_it_adds_no_variable_that_training_on_would_need(keras_models: dict[str, Any]) -> None:
    from wm_tf.serving.decoder import FoldedDecoder

    vision = keras_models["vision"]
    folded = FoldedDecoder(vision)
    own = {id(weight.value) for weight in vision.weights}
    assert not own & {id(variable) for variable in folded.derived}
    latent = np.random.default_rng(1).normal(size=(2, 32)).astype(np.float32)
    before = folded(latent)
    assert before.shape == (2, *SIGNATURES["vision"]["decode"].outputs["frame"].shape[1:])
    np.testing.assert_allclose(before, vision.decode(latent), rtol=1e-5, atol=1e-5)
