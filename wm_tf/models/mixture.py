"""Mixtures of K Gaussians per latent dimension: pure functions of (logits, mean, log_std).

The mixture density network of Ha & Schmidhuber (2018), appendix A.2, after Bishop (1994): every
latent dimension has its own one-dimensional mixture,

    p(x) = sum_k softmax(logits)_k N(x; mean_k, exp(log_std_k)^2)

Parameters have shape [..., Z, K], values [..., Z]. A temperature tau > 0 divides the logits and
multiplies the standard deviations by sqrt(tau), as in the paper.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

if TYPE_CHECKING:
    import tensorflow_probability as tfp

_LOG_SQRT_TWO_PI = 0.5 * math.log(2.0 * math.pi)


def log_prob(value: Any, logits: Any, mean: Any, log_std: Any) -> tf.Tensor:
    """The log density of each latent dimension.

    Args:
      value: [..., Z].
      logits: unnormalised log weights of the components, [..., Z, K].
      mean: [..., Z, K].
      log_std: logarithms of the standard deviations, [..., Z, K].

    Returns:
      [..., Z], natural logarithm.
    """
    standardised = (value[..., tf.newaxis] - mean) * tf.exp(-log_std)
    component = -0.5 * tf.square(standardised) - log_std - _LOG_SQRT_TWO_PI
    return tf.reduce_logsumexp(logits + component, -1) - tf.reduce_logsumexp(logits, -1)


def noise(seed: Any, shape: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """The random numbers that one call of `sample` uses: (uniform in [0, 1), standard normal).

    Args:
      seed: int32 [2]. The same seed gives the same numbers in every process, and a row's numbers
        do not depend on how many rows follow it. (XLA would give others.)
      shape: of each of the two results, [..., Z].
    """
    seed = tf.convert_to_tensor(seed, tf.int32)
    component_seed = seed + tf.constant([0, 0x3C6EF372], tf.int32)
    uniform = tf.random.stateless_uniform(shape, component_seed, alg="philox")
    normal = tf.random.stateless_normal(shape, seed, alg="philox")
    return uniform, normal


def sample(
    logits: Any, mean: Any, log_std: Any, temperature: Any, uniform: Any, normal: Any
) -> tf.Tensor:
    """Draws from the mixture with the given noise (see `noise`), exactly.

    The component is found by inverting the cumulative weights at `uniform`: one random number for
    each dimension, where Gumbel noise takes K and two logarithms for each.

    Args:
      logits, mean, log_std: [..., Z, K].
      temperature: tau > 0, a scalar.
      uniform, normal: [..., Z], broadcast against the parameters.

    Returns:
      [..., Z].
    """
    logits, mean, log_std = (tf.unstack(array, axis=-1) for array in (logits, mean, log_std))
    return sample_components(logits, mean, log_std, temperature, uniform, normal)


def sample_components(
    logits: Sequence[Any],
    mean: Sequence[Any],
    log_std: Sequence[Any],
    temperature: Any,
    uniform: Any,
    normal: Any,
) -> tf.Tensor:
    """`sample` from parameters that come as K arrays [..., Z], which is faster."""
    largest = functools.reduce(tf.maximum, logits)
    weights = (tf.exp((logit - largest) / temperature) for logit in logits)
    cumulative = list(itertools.accumulate(weights))
    level = uniform * cumulative[-1]
    chosen_mean, chosen_log_std = mean[0], log_std[0]
    # The last component cannot be passed, rounding included: its own weight is not looked at.
    for passed, next_mean, next_log_std in zip(cumulative, mean[1:], log_std[1:], strict=False):
        chosen_mean = tf.where(passed <= level, next_mean, chosen_mean)
        chosen_log_std = tf.where(passed <= level, next_log_std, chosen_log_std)
    return chosen_mean + tf.exp(chosen_log_std) * tf.sqrt(temperature) * normal


def moments(
    logits: Any, mean: Any, log_std: Any, temperature: Any = 1.0
) -> tuple[tf.Tensor, tf.Tensor]:
    """The analytic mean and variance of the mixture at a temperature, each [..., Z]."""
    weight = tf.nn.softmax(logits / temperature)
    expected = tf.reduce_sum(weight * mean, -1)
    variance = tf.exp(2.0 * log_std) * temperature
    second_moment = variance + tf.square(mean - expected[..., tf.newaxis])
    return expected, tf.reduce_sum(weight * second_moment, -1)


def distribution(
    logits: Any, mean: Any, log_std: Any, temperature: float = 1.0
) -> tfp.distributions.MixtureSameFamily:
    """The same mixture as a TensorFlow Probability distribution over [..., Z]."""
    import tensorflow_probability as tfp  # imported here: it takes seconds

    return tfp.distributions.MixtureSameFamily(
        tfp.distributions.Categorical(logits=logits / temperature),
        tfp.distributions.Normal(mean, tf.exp(log_std) * math.sqrt(temperature)),
    )
