"""V against Keras's own layers and NumPy; it learns, and it can be saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from wm_tf.config import VisionConfig, get_task
from wm_tf.models import Vision
from wm_tf.models import vision as module
from wm_tf.models.vision import PatchConv2D, SubpixelConv2DTranspose, kl_divergence
from wm_tf.training.vision import make_vision

# Input height and width, channels, filters, kernel size and activation of the decoder's layers.
DECODER = [
    (1, 1024, 128, 5, "relu"),
    (5, 128, 64, 5, "relu"),
    (13, 64, 32, 6, "relu"),
    (30, 32, 3, 6, "linear"),
]
PHASES, DIRECT = 1, 1000
"""Values of the threshold that force the one computation or the other."""


def frames(count: int) -> np.ndarray:
    """Pictures of two colours that differ from each other, uint8 [count, 64, 64, 3]."""
    generator = np.random.default_rng(1)
    pictures = np.empty((count, 64, 64, 3), np.uint8)
    for index, picture in enumerate(pictures):
        picture[:], picture[16 * (index % 4) :][:16] = generator.integers(0, 256, (2, 3))
    return pictures


@pytest.fixture(scope="module")
def vision() -> Vision:
    keras.utils.set_random_seed(1)
    return Vision()


def test_it_has_the_papers_parameters(vision: Vision) -> None:
    assert vision.count_params() == 4_348_547
    assert sum(int(np.prod(weight.shape)) for weight in vision.weights) == 4_348_547
    assert len(vision.trainable_weights) == len(vision.weights)


@pytest.mark.parametrize("computation", [PHASES, DIRECT])
@pytest.mark.parametrize(("size", "channels", "filters", "kernel", "activation"), DECODER)
def test_the_decoders_layers_are_transposed_convolutions(
    size: int,
    channels: int,
    filters: int,
    kernel: int,
    activation: str,
    computation: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_SMALLEST_FOR_PHASES", computation)
    generator = np.random.default_rng(2)
    weights = [
        generator.normal(0.0, 0.1, (kernel, kernel, filters, channels)).astype(np.float32),
        generator.normal(0.0, 0.1, filters).astype(np.float32),
    ]
    inputs = generator.normal(size=(2, size, size, channels)).astype(np.float32)
    layers = (
        SubpixelConv2DTranspose(filters, kernel, activation),
        keras.layers.Conv2DTranspose(filters, kernel, 2, activation=activation),
    )
    check_same(*layers, inputs, weights)


@pytest.mark.parametrize("size", [6, 7])
def test_a_product_of_patches_is_a_convolution(size: int) -> None:
    generator = np.random.default_rng(5)
    weights = [
        generator.normal(0.0, 0.1, (4, 4, 128, 256)).astype(np.float32),
        generator.normal(0.0, 0.1, 256).astype(np.float32),
    ]
    inputs = generator.normal(size=(2, size, size, 128)).astype(np.float32)
    ours, keras_own = (
        layer(256, 4, 2, activation="relu") for layer in (PatchConv2D, keras.layers.Conv2D)
    )
    check_same(ours, keras_own, inputs, weights)


def check_same(
    ours: keras.layers.Layer,
    keras_own: keras.layers.Layer,
    inputs: np.ndarray,
    weights: list[np.ndarray],
) -> None:
    """Fails if two layers with the same weights differ in outputs or gradients."""
    x = tf.constant(inputs)
    outputs, gradients = [], []
    for layer in (ours, keras_own):
        layer.build(inputs.shape)
        assert [tuple(weight.shape) for weight in layer.weights] == [w.shape for w in weights]
        layer.set_weights(weights)
        with tf.GradientTape() as tape:
            tape.watch(x)
            output = layer(x)
            cotangent = np.random.default_rng(6).normal(size=output.shape).astype(np.float32)
            value = tf.reduce_sum(output * cotangent)
        outputs.append(output.numpy())
        variables = [x, *(weight.value for weight in layer.trainable_weights)]
        gradients.append([gradient.numpy() for gradient in tape.gradient(value, variables)])
    # Sums in another order: a few float32 roundings (6e-8) of sums of up to 9,216 products.
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-5, atol=1e-5)
    for name, one, other in zip(("inputs", "kernel", "bias"), *gradients, strict=True):
        scale = np.abs(other).max()
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-6 * scale, err_msg=name)


def test_shapes_and_ranges(vision: Vision) -> None:
    out = vision(frames(3))
    assert out["mean"].shape == out["log_variance"].shape == out["latent"].shape == (3, 32)
    assert out["frame"].shape == (3, 64, 64, 3)
    assert out["frame"].dtype == tf.float32
    assert 0.0 <= out["frame"].numpy().min() <= out["frame"].numpy().max() <= 1.0
    np.testing.assert_array_equal(out["latent"], out["mean"])  # sampled in training alone


def test_latents_are_sampled_from_their_distribution_in_training(vision: Vision) -> None:
    picture = np.repeat(frames(1), 200, axis=0)
    out = vision(picture, training=True)
    std = np.exp(0.5 * out["log_variance"].numpy())
    normal = (out["latent"].numpy() - out["mean"].numpy()) / std
    assert abs(normal.mean()) < 5.0 / np.sqrt(normal.size)
    assert abs(normal.var() - 1.0) < 5.0 * np.sqrt(2.0 / normal.size)


def test_kl_divergence_is_that_of_float64_numpy() -> None:
    mean, log_variance = np.random.default_rng(3).normal(size=(2, 7, 32)).astype(np.float32)
    m, v = mean.astype(np.float64), np.exp(log_variance.astype(np.float64))
    expected = 0.5 * (m**2 + v - np.log(v) - 1.0).sum(-1)
    np.testing.assert_allclose(kl_divergence(mean, log_variance), expected, rtol=1e-5)
    np.testing.assert_array_equal(kl_divergence(np.zeros((1, 32)), np.zeros((1, 32))), [0.0])


@pytest.mark.parametrize("kl_tolerance", [0.0, 0.5])
def test_loss_is_squared_error_plus_kl_above_its_tolerance(kl_tolerance: float) -> None:
    model = Vision(kl_tolerance=kl_tolerance)
    x = frames(4)
    generator = np.random.default_rng(4)
    spread = np.array([0.01, 0.1, 1.0, 2.0])[:, np.newaxis]  # KL below and above 16 nats
    prediction = {
        "frame": generator.uniform(size=(4, 64, 64, 3)).astype(np.float32),
        "mean": (spread * generator.normal(size=(4, 32))).astype(np.float32),
        "log_variance": (spread * generator.normal(size=(4, 32))).astype(np.float32),
    }
    error = ((x / 255.0 - prediction["frame"]) ** 2).sum((1, 2, 3))
    variance = np.exp(prediction["log_variance"].astype(np.float64))
    kl = 0.5 * (prediction["mean"] ** 2 + variance - np.log(variance) - 1.0).sum(-1)
    floor = 32 * kl_tolerance
    assert (kl < 16.0).any()
    assert (kl > 16.0).any()
    expected = (error + np.maximum(kl, floor)).mean()
    actual = model.compute_loss(x=x, y_pred=prediction)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    np.testing.assert_allclose(model.reconstruction_metric.result(), error.mean(), rtol=1e-5)
    np.testing.assert_allclose(model.kl_metric.result(), kl.mean(), rtol=1e-4)


def test_emphasis_adds_the_error_of_what_stands_out() -> None:
    x = np.full((4, 64, 64, 3), 100, np.uint8)
    x[1, 10:12, 20:22] = 250  # a fireball, in one of four frames
    prediction = {
        "frame": np.full(x.shape, 0.4, np.float32),
        "mean": np.zeros((4, 32), np.float32),
        "log_variance": np.zeros((4, 32), np.float32),
    }

    def loss(emphasis: float) -> float:
        return float(Vision(emphasis=emphasis).compute_loss(x=x, y_pred=prediction))

    mean = (250 + 3 * 100) / 4 / 255
    ball = (250 / 255 - mean) ** 2 * (250 / 255 - 0.4) ** 2
    gap = 3 * (100 / 255 - mean) ** 2 * (100 / 255 - 0.4) ** 2  # in the other three frames
    made = make_vision(get_task("car_racing"), VisionConfig(emphasis=40.0), seed=3)
    assert (made.emphasis, made.seed) == (40.0, 3)
    np.testing.assert_allclose(loss(40.0) - loss(0.0), 40.0 * 12 * (ball + gap) / 4, rtol=1e-4)


def squared_error(model: Vision, batch: np.ndarray) -> float:
    return float(((model(batch)["frame"].numpy() - batch / 255.0) ** 2).sum((1, 2, 3)).mean())


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_it_overfits_a_batch(policy: str) -> None:
    keras.utils.set_random_seed(1)
    model = Vision(dtype=policy)
    model.compile(keras.optimizers.Adam(1e-3), jit_compile=False)
    batch = frames(4)
    untrained = squared_error(model, batch)
    data = tf.data.Dataset.from_tensors(batch).repeat(45)
    model.fit(data, epochs=1, verbose=0, shuffle=False)
    # What is left when the batch's mean is drawn for every frame: it tells them apart.
    spread = ((batch / 255.0 - (batch / 255.0).mean(0)) ** 2).sum((1, 2, 3)).mean()
    assert squared_error(model, batch) < 0.6 * spread < untrained
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert model(batch)["mean"].dtype == model(batch)["frame"].dtype == tf.float32


def test_it_is_saved_and_loaded_as_keras_does(vision: Vision, tmp_path: Path) -> None:
    path = tmp_path / "vision.keras"
    vision.save(path)
    loaded: Any = keras.models.load_model(path, safe_mode=True)
    assert isinstance(loaded, Vision)
    assert loaded.get_config() == vision.get_config()
    batch = frames(2)
    for name, expected in vision(batch).items():
        np.testing.assert_array_equal(loaded(batch)[name], expected, err_msg=name)


def test_a_bfloat16_model_computes_what_a_float32_one_does(vision: Vision) -> None:
    model = Vision(dtype="mixed_bfloat16")
    model.set_weights(vision.get_weights())
    batch = frames(4)
    for name in ("mean", "frame"):
        expected = vision(batch)[name].numpy()
        # bfloat16 keeps 8 bits of a number: 2^-9 for each of some layers.
        np.testing.assert_allclose(model(batch)[name], expected, atol=0.02 * np.ptp(expected))
