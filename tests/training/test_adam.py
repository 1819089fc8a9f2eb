"""Adam makes the steps of Keras's Adam."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from wm_tf.training.adam import Adam

SHAPES = [(7, 5), (5,)]


def steps(optimizer: keras.optimizers.Optimizer, count: int = 30) -> list[np.ndarray]:
    """Weights after so many steps of gradients that are large, small and none at all."""
    random = np.random.default_rng(3)
    weights = [keras.Variable(random.normal(size=shape).astype(np.float32)) for shape in SHAPES]
    apply = tf.function(lambda gradients: optimizer.apply(gradients, weights))
    optimizer.build(weights)
    for step in range(count):
        optimizer.learning_rate = 0.01 if step < count // 2 else 0.002
        scale = 10.0 ** random.integers(-4, 3) * (step % 5 > 0)
        apply([tf.constant(scale * random.normal(size=shape), tf.float32) for shape in SHAPES])
    return [weight.numpy() for weight in weights]


def test_the_steps_are_those_of_kerass_adam() -> None:
    for options in ({}, {"global_clipnorm": 1.0}):
        ours = steps(Adam(0.01, **options))
        for one, other in zip(ours, steps(keras.optimizers.Adam(0.01, **options)), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
        start = steps(Adam(0.01, **options), count=0)
        assert max(np.abs(one - other).max() for one, other in zip(ours, start, strict=True)) > 0.05
