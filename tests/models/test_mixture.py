"""The mixture's mathematics against float64 NumPy, TensorFlow Probability and its own samples."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from wm_tf.models import mixture

SHAPES = [(4, 3), (2, 5, 32, 5), (7, 1), (6, 64, 5)]  # [..., Z, K]
DRAWS = 200_000

# Float32 against float64: a relative error of a few times 2^-24 in the standardised value doubles
# in its square, of which log densities down to -300 are made.
TOLERANCE = {"rtol": 3e-6, "atol": 3e-6}


def parameters(shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(logits, mean, log_std), float32 of a shape [..., Z, K]."""
    generator = np.random.default_rng(seed)
    logits, mean = generator.normal(0.0, 2.0, (2, *shape)).astype(np.float32)
    return logits, mean, generator.uniform(-2.0, 1.0, shape).astype(np.float32)


def numpy_log_prob(
    value: np.ndarray, logits: np.ndarray, mean: np.ndarray, log_std: np.ndarray
) -> np.ndarray:
    """The textbook's formula in float64, without any care for overflow."""
    logits, mean, log_std = (array.astype(np.float64) for array in (logits, mean, log_std))
    weight = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    std = np.exp(log_std)
    distance = value.astype(np.float64)[..., np.newaxis] - mean
    density = np.exp(-0.5 * (distance / std) ** 2) / (std * np.sqrt(2.0 * np.pi))
    return np.log((weight * density).sum(-1))


@pytest.mark.parametrize("shape", SHAPES)
def test_log_prob_is_that_of_float64_numpy(shape: tuple[int, ...]) -> None:
    logits, mean, log_std = parameters(shape)
    value = np.random.default_rng(1).normal(0.0, 2.0, shape[:-1]).astype(np.float32)
    actual = mixture.log_prob(value, logits, mean, log_std)
    assert actual.shape == shape[:-1]
    expected = numpy_log_prob(value, logits, mean, log_std)
    np.testing.assert_allclose(actual, expected, **TOLERANCE)


@pytest.mark.parametrize("shape", SHAPES)
def test_log_prob_and_moments_are_those_of_tensorflow_probability(shape: tuple[int, ...]) -> None:
    logits, mean, log_std = parameters(shape, seed=2)
    value = np.random.default_rng(3).normal(0.0, 2.0, shape[:-1]).astype(np.float32)
    reference = mixture.distribution(logits, mean, log_std)
    np.testing.assert_allclose(
        mixture.log_prob(value, logits, mean, log_std), reference.log_prob(value), **TOLERANCE
    )
    for temperature in (0.5, 1.3):
        reference = mixture.distribution(logits, mean, log_std, temperature)
        expected, variance = mixture.moments(logits, mean, log_std, temperature)
        np.testing.assert_allclose(expected, reference.mean(), **TOLERANCE)
        np.testing.assert_allclose(variance, reference.variance(), rtol=1e-5, atol=1e-5)


def test_log_prob_is_finite_far_from_every_component() -> None:
    logits, mean, log_std = (np.zeros((1, 2), np.float32) for _ in range(3))
    actual = mixture.log_prob(np.array([300.0], np.float32), logits, mean, log_std - 3.0)
    expected = -0.5 * (300.0 * np.exp(3.0)) ** 2 + 3.0 - 0.5 * np.log(2.0 * np.pi)
    np.testing.assert_allclose(actual, [expected], rtol=1e-6)


def test_one_component_is_a_gaussian() -> None:
    _, mean, log_std = parameters((5, 4, 1))
    value = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    logits = np.full((5, 4, 1), 7.0, np.float32)  # one weight is 1, whatever its logit
    std = np.exp(log_std[..., 0].astype(np.float64))
    gaussian = -0.5 * ((value - mean[..., 0]) / std) ** 2 - np.log(std) - 0.5 * np.log(2.0 * np.pi)
    np.testing.assert_allclose(
        mixture.log_prob(value, logits, mean, log_std), gaussian, **TOLERANCE
    )
    normal = np.random.default_rng(2).normal(size=(5, 4)).astype(np.float32)
    drawn = mixture.sample(logits, mean, log_std, 0.7, np.zeros((5, 4), np.float32), normal)
    np.testing.assert_allclose(
        drawn, mean[..., 0] + std * np.sqrt(0.7) * normal, rtol=1e-6, atol=1e-6
    )


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(5)), st.integers(0, 2**31))
def test_the_order_of_components_does_not_matter(order: list[int], seed: int) -> None:
    logits, mean, log_std = parameters((3, 5), seed)
    value = np.random.default_rng(seed).normal(size=3).astype(np.float32)
    permuted = [array[:, order] for array in (logits, mean, log_std)]
    np.testing.assert_allclose(
        mixture.log_prob(value, *permuted),
        mixture.log_prob(value, logits, mean, log_std),
        **TOLERANCE,
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.3])
def test_samples_follow_the_mixture_at_a_temperature(temperature: float) -> None:
    logits, mean, log_std = parameters((4, 5), seed=5)
    uniform, normal = mixture.noise([1, 2], (DRAWS, 4))
    drawn = mixture.sample(logits, mean, log_std, temperature, uniform, normal).numpy()
    drawn = drawn.astype(np.float64)

    scaled = logits.astype(np.float64) / temperature
    weight = np.exp(scaled) / np.exp(scaled).sum(-1, keepdims=True)
    variances = np.exp(2.0 * log_std.astype(np.float64)) * temperature
    expected = (weight * mean).sum(-1)
    variance = (weight * (variances + (mean - expected[:, np.newaxis]) ** 2)).sum(-1)
    error = np.sqrt(variance / DRAWS)
    assert np.all(np.abs(drawn.mean(0) - expected) < 5.0 * error)
    squares = (drawn - expected) ** 2
    assert np.all(np.abs(squares.mean(0) - variance) < 5.0 * squares.std(0) / np.sqrt(DRAWS))
    actual = mixture.moments(logits, mean, log_std, temperature)
    np.testing.assert_allclose(actual[0], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(actual[1], variance, rtol=1e-5, atol=1e-5)

    # Kolmogorov-Smirnov: 2.2 / sqrt(n) is passed by chance once in 16,000 times.
    ordered = np.sort(drawn, axis=0).astype(np.float32)
    cumulative = mixture.distribution(logits, mean, log_std, temperature).cdf(ordered).numpy()
    steps = np.arange(1, DRAWS + 1)[:, np.newaxis] / DRAWS
    assert np.abs(cumulative - steps).max() < 2.2 / np.sqrt(DRAWS)


def drawn_component(logits: list[float], uniform: float) -> int:
    """The component that `sample` chooses at a uniform number: their means are 0, 1, 2, ..."""
    mean = np.arange(len(logits), dtype=np.float32)[np.newaxis]
    drawn = mixture.sample(
        np.array([logits], np.float32), mean, np.zeros_like(mean), 1.0,
        np.array([uniform], np.float32), np.zeros(1, np.float32),
    )  # fmt: skip
    return round(drawn.numpy().item())


LARGEST = float(np.nextafter(np.float32(1.0), np.float32(0.0)))


@pytest.mark.parametrize(
    ("logits", "uniform", "component"),
    [
        ([0.0, 0.0, 0.0, 0.0], 0.0, 0),
        ([0.0, 0.0, 0.0, 0.0], 0.2499, 0),
        ([0.0, 0.0, 0.0, 0.0], 0.25, 1),
        ([0.0, 0.0, 0.0, 0.0], 0.7499, 2),
        ([0.0, 0.0, 0.0, 0.0], 0.75, 3),
        ([0.0, 0.0, 0.0, 0.0], LARGEST, 3),
        ([0.0, 0.0, 0.0, 0.0], 1.0, 3),
        # Weights that are zero in float32 are never chosen, first, last or in the middle.
        ([-500.0, 0.0, -500.0, 0.0, -500.0], 0.0, 1),
        ([-500.0, 0.0, -500.0, 0.0, -500.0], 0.5, 3),
        ([-500.0, 0.0, -500.0, 0.0, -500.0], LARGEST, 3),
        ([1000.0, 1000.0], 0.6, 1),
    ],
)
def test_components_begin_and_end_where_their_weights_do(
    logits: list[float], uniform: float, component: int
) -> None:
    assert drawn_component(logits, uniform) == component


def test_a_row_does_not_depend_on_its_batch() -> None:
    logits, mean, log_std = parameters((8, 32, 5), seed=9)
    uniform, normal = (array.numpy() for array in mixture.noise([3, 4], (8, 32)))
    together = mixture.sample(logits, mean, log_std, 1.1, uniform, normal).numpy()
    for row in range(8):
        part = slice(row, row + 1)
        alone = mixture.sample(
            logits[part], mean[part], log_std[part], 1.1, uniform[part], normal[part]
        )
        np.testing.assert_array_equal(alone, together[part])


def test_noise_is_a_function_of_its_seed() -> None:
    first = mixture.noise([7, 0], (3, 4))
    again = mixture.noise(tf.constant([7, 0]), (3, 4))
    for name, one, other in zip(("uniform", "normal"), first, again, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)
    for seed in ([7, 1], [8, 0]):
        for one, other in zip(first, mixture.noise(seed, (3, 4)), strict=True):
            assert not np.any(one.numpy() == other.numpy())


@pytest.mark.parametrize("size", [1, 3, 32])
def test_noise_of_a_row_does_not_depend_on_the_rows_that_follow(size: int) -> None:
    many = mixture.noise([11, 5], (33, size))
    for rows in (1, 2, 3, 8, 17):
        for few, all_rows in zip(mixture.noise([11, 5], (rows, size)), many, strict=True):
            np.testing.assert_array_equal(few, all_rows[:rows])


def test_noise_has_the_moments_of_its_distributions_and_is_independent() -> None:
    uniform, normal = (array.numpy().ravel() for array in mixture.noise([1, 1], (1000, 64)))
    count = len(uniform)
    assert uniform.min() >= 0.0
    assert uniform.max() < 1.0
    assert abs(uniform.mean() - 0.5) < 5.0 / np.sqrt(12.0 * count)
    assert abs(normal.mean()) < 5.0 / np.sqrt(count)
    assert abs(normal.var() - 1.0) < 5.0 * np.sqrt(2.0 / count)
    assert abs(np.corrcoef(uniform, normal)[0, 1]) < 5.0 / np.sqrt(count)
    following = mixture.noise([1, 2], (1000, 64))[1].numpy().ravel()
    assert abs(np.corrcoef(normal, following)[0, 1]) < 5.0 / np.sqrt(count)


def test_noise_is_the_same_in_a_compiled_graph() -> None:
    compiled = tf.function(lambda seed: mixture.noise(seed, (2, 32)))(tf.constant([5, 6]))
    for one, other in zip(mixture.noise([5, 6], (2, 32)), compiled, strict=True):
        np.testing.assert_array_equal(one, other)
