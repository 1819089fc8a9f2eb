"""The unrolled LSTM and its gradient against TensorFlow's own of a plain loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from wm_tf.models import lstm

T, B, N, H = 6, 3, 2, 4


def plain(inputs: Any, kernel: Any, bias: Any, h: Any, c: Any) -> tuple[Any, Any]:
    """Step by step."""
    hs, cs = [], []
    for x in tf.unstack(inputs):
        h, c = lstm.cell(tf.concat([x, h], -1) @ kernel + bias, c)
        hs.append(h)
        cs.append(c)
    return tf.stack(hs), tf.stack(cs)


def arguments(kind: str) -> list[tf.Tensor]:
    random = np.random.default_rng(1)
    shapes = ((T, B, N), (N + H, 4 * H), (4 * H,), (B, H), (B, H))
    return [tf.constant(random.normal(0.0, 0.7, shape), kind) for shape in shapes]


def values_and_gradients(unroll: Any, given: list[tf.Tensor]) -> list[tf.Tensor]:
    weight = tf.constant(np.random.default_rng(2).normal(size=(2, T, B, H)), given[0].dtype)
    with tf.GradientTape() as tape:
        tape.watch(given)
        hs, cs = unroll(*given)
        # A loss to which every h and every c matters, each in its own way.
        loss = tf.reduce_sum(weight * tf.square(tf.stack([hs, cs])))
    return [hs, cs, *tape.gradient(loss, given)]


@pytest.mark.parametrize(
    ("compiled", "xla"), [(False, False), (True, False), (False, True), (True, True)]
)
def test_values_and_gradients_are_those_of_a_plain_loop(compiled: bool, xla: bool) -> None:
    given = arguments("float64")

    def unroll(*arrays: Any) -> Any:
        return lstm.unroll(*arrays, "float64", xla)

    run = tf.function(values_and_gradients) if compiled else values_and_gradients
    for actual, expected in zip(
        run(unroll, given), values_and_gradients(plain, given), strict=True
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("xla", [False, True])
def test_bfloat16_is_of_the_products_alone(xla: bool) -> None:
    given = arguments("float32")
    exact = values_and_gradients(lambda *arrays: lstm.unroll(*arrays, "float32"), given)
    rough = values_and_gradients(lambda *arrays: lstm.unroll(*arrays, "bfloat16", xla), given)
    for actual, expected in zip(rough, exact, strict=True):
        assert actual.dtype == tf.float32
        # 8 bits of each factor, over six steps.
        np.testing.assert_allclose(actual, expected, atol=0.03 * np.abs(expected).max())
        assert np.any(actual != expected)
