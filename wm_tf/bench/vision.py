"""V against the paper's layers as Keras lays them out, in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from wm_tf.bench.compare import Comparison, Goal, Side, close, compare, rate, rate_at
from wm_tf.bench.models import repeated
from wm_tf.config import VisionConfig, get_task
from wm_tf.models import Vision
from wm_tf.precision import Arithmetic, computing_in, fast_dtypes
from wm_tf.seeding import Purpose, generator
from wm_tf.serving.decoder import FoldedDecoder
from wm_tf.training.vision import make_vision

TASK = get_task("car_racing")
AGAINST = "the same layers as Keras lays them out, float32"
BATCHES = 3
DECODED = 200

TOLERANCE: dict[Arithmetic, float] = {"float32": 1e-3, "bfloat16": 2e-2}
"""Relative, of a loss."""
MOMENTS_TOLERANCE: dict[Arithmetic, float] = {"float32": 1e-4, "bfloat16": 2e-2}
"""Of V's moments."""


class PlainVision(Vision):
    """V with Keras's own layers alone."""

    def last_convolution(self, channels: int) -> keras.layers.Layer:
        return keras.layers.Conv2D(channels, 4, 2, activation="relu")

    def transposed_convolution(
        self, channels: int, size: int, activation: str
    ) -> keras.layers.Layer:
        return keras.layers.Conv2DTranspose(channels, size, 2, activation=activation)


def training() -> list[Comparison]:
    """Training steps of the same batches and loss."""
    goals = {"float32": Goal(2), "bfloat16": Goal(3)}
    return [_training(dtype, goals[dtype]) for dtype in fast_dtypes()]


def encoding() -> list[Comparison]:
    """Frames to moments, in batches as rollouts and data sets have them."""
    return [
        _encoding(dtype, batch, calls)
        for dtype in fast_dtypes()
        for batch, calls in ((16, 32), (256, 4))
    ]


def decoding() -> list[Comparison]:
    """One latent to its frame, as the player asks for it."""
    ours, plain = _pair()
    folded = FoldedDecoder(ours)
    random = generator(0, Purpose.BENCHMARK)
    latent = tf.constant(random.normal(size=(1, TASK.latent_size)), tf.float32)

    def side(name: str, decode: Callable[[Any], Any], percentile: float) -> Side:
        compiled = tf.function(decode, autograph=False)

        def call() -> np.ndarray:
            return compiled(latent).numpy()

        return Side(name, rate_at(percentile, DECODED, call), call)

    return [
        compare(
            f"V: decoding one frame, {label}",
            "frames/s",
            side("ours", folded, percentile),
            side(AGAINST, plain.decode, percentile),
            agree=close(1e-4, 1e-5),
            goal=Goal(2),
        )
        for label, percentile in (("median", 50), ("99th percentile of time", 99))
    ]


def _training(dtype: Arithmetic, goal: Goal) -> Comparison:
    config = VisionConfig(precision=dtype)
    ours, plain = make_vision(TASK, config, 1), PlainVision(TASK.latent_size, config.kl_tolerance)
    plain.compile(keras.optimizers.Adam(config.learning_rate), jit_compile=False)
    plain.set_weights(ours.get_weights())
    batches = repeated(_frames(config.batch_size), BATCHES)

    def side(name: str, model: Vision) -> Side:
        def train() -> float:
            return model.fit(batches, verbose=0, shuffle=False).history["loss"][-1]

        return Side(name, rate(BATCHES * config.batch_size, train), train)

    return compare(
        f"V: training, {dtype}",
        "frames/s",
        side("ours", ours),
        side(AGAINST, plain),
        agree=close(TOLERANCE[dtype]),
        goal=goal,
    )


def _encoding(dtype: Arithmetic, batch: int, calls: int) -> Comparison:
    ours, plain = _pair()
    tolerance = MOMENTS_TOLERANCE[dtype]
    frames = tf.constant(_frames(batch))

    def side(name: str, vision: Vision) -> Side:
        encode = tf.function(vision.encode, autograph=False)
        return Side(
            name,
            rate(batch * calls, lambda: [encode(frames) for _ in range(calls)]),
            lambda: tuple(part.numpy() for part in encode(frames)),
        )

    return compare(
        f"V: encoding, batch {batch}, {dtype}",
        "frames/s",
        side("ours", computing_in(ours, dtype)),
        side(AGAINST, plain),
        agree=close(tolerance, tolerance / 10),
        goal=Goal(2),
    )


def _pair() -> tuple[Vision, PlainVision]:
    """V and plain V with the same weights."""
    ours, plain = Vision(TASK.latent_size), PlainVision(TASK.latent_size)
    plain.set_weights(ours.get_weights())
    return ours, plain


def _frames(count: int) -> np.ndarray:
    return generator(0, Purpose.BENCHMARK).integers(0, 256, (count, 64, 64, 3), np.uint8)
