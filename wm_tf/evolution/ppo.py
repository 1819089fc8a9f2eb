"""Proximal policy optimization (PPO, Schulman et al. 2017) of C: what dream and reality share.

Each step of an episode tells whether its action was better or worse than expected, which a small
network (the critic) estimates. C's parameters move so that actions better than expected become more
probable, until an action's probability has changed by `CLIP`. The result is not C as the last
update left it but an average over the last ones (Polyak & Juditsky 1992).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from wm_tf.training.adam import Adam

CLIP = 0.2
"""By which the probability of an action may change in an update before its gradient stops."""
CRITIC_LEARNING_RATE = 1e-3
ROBUST = 10.0
"""Errors of the critic beyond this, in spreads of the returns, count linearly (Huber 1964): one car
that is lost is not to change what it thinks of all others."""
CRITIC_UNITS = 128


class ActorCritic:
    """C's parameters and a critic, and how both learn from a batch of B steps.

    Args:
      parameters: variable [N] of which the policy is made.
      log_density: what tells of a step, each [B, ...], to the logarithm of the probability density
        of the action that was drawn, [B]; a constant may be missing.
      critic: what it sees [B, F] to the return that it expects [B, 1].
      learning_rate: of the parameters.
      clip_norm: a larger gradient of theirs is made so large.
    """

    def __init__(
        self,
        parameters: tf.Variable,
        log_density: Callable[..., tf.Tensor],
        critic: keras.Model,
        learning_rate: float,
        clip_norm: float = 1.0,
    ) -> None:
        self._parameters, self._log_density, self._critic = parameters, log_density, critic
        self._optimizers = (Adam(learning_rate, clipnorm=clip_norm), Adam(CRITIC_LEARNING_RATE))
        self._optimizers[0].build([parameters])
        self._optimizers[1].build(critic.trainable_variables)

    def learn_at(self, learning_rate: float) -> None:
        """Another learning rate of the parameters from now on."""
        self._optimizers[0].learning_rate = learning_rate

    @property
    def variables(self) -> list[Any]:
        """Everything that learns."""
        optimized = [part for optimizer in self._optimizers for part in optimizer.variables]
        return [self._parameters, *self._critic.trainable_variables, *optimized]

    def value(self, judged: Any) -> tf.Tensor:
        """The return that the critic expects, [B], of what it sees, [B, F]."""
        return self._critic(judged)[:, 0]

    def improve(self, steps: Sequence[Any], log_density: Any, advantage: Any) -> None:
        """A step of C.

        Args:
          steps: what `log_density` takes.
          log_density: as it was when the actions were drawn, [B].
          advantage: by what the actions were better than expected, of about unit size, [B].
        """
        with tf.GradientTape() as tape:
            ratio = tf.exp(self._log_density(*steps) - log_density)
            clipped = tf.clip_by_value(ratio, 1.0 - CLIP, 1.0 + CLIP)
            loss = -tf.reduce_mean(tf.minimum(ratio * advantage, clipped * advantage))
        self._optimizers[0].apply([tape.gradient(loss, self._parameters)], [self._parameters])

    def judge(self, judged: Any, aim: Any) -> tf.Tensor:
        """A step of the critic towards what it should have said, `aim` [B], of what it saw [B, F].

        The returns of which `aim` tells have a spread of about 1.

        Returns:
          The mean square of its errors before the step, as a share of the variance of `aim`.
        """
        with tf.GradientTape() as tape:
            distance = tf.abs(self.value(judged) - aim)
            near = tf.minimum(distance, ROBUST)
            loss = tf.reduce_mean(near * (2.0 * distance - near))
        variables = self._critic.trainable_variables
        self._optimizers[1].apply(tape.gradient(loss, variables), variables)
        return tf.reduce_mean(tf.square(distance)) / (tf.math.reduce_variance(aim) + 1e-6)


def normalized(advantage: tf.Tensor) -> tf.Tensor:
    """Advantages [B] with the mean 0 and the standard deviation 1."""
    return (advantage - tf.reduce_mean(advantage)) / (tf.math.reduce_std(advantage) + 1e-6)


class Average:
    """An exponential average of vectors [N], as if all before the first was 0.

    Args:
      size: N.
      count: about so many vectors are averaged.
    """

    def __init__(self, size: int, count: float) -> None:
        self.uncorrected = np.zeros(size)
        self._kept = float(np.exp(-1.0 / count))  # by each vector that is added

    def add(self, vector: np.ndarray) -> None:
        self.uncorrected = self._kept * self.uncorrected + (1.0 - self._kept) * vector

    def mean(self, count: int) -> np.ndarray:
        """The average of all vectors [N] so far, which are `count`, at least one."""
        return self.uncorrected / (1.0 - self._kept**count)


def make_critic(mean: np.ndarray, variance: np.ndarray, layers: int, seed: int) -> keras.Model:
    """A critic that says 0 at first.

    Args:
      mean, variance: of what it sees, [F].
      layers: hidden layers.
      seed: of their weights.
    """
    initializers = [keras.initializers.GlorotUniform(seed + index) for index in range(layers)]
    return keras.Sequential(
        [
            keras.Input([len(mean)]),
            keras.layers.Normalization(mean=mean, variance=variance),
            *(
                keras.layers.Dense(CRITIC_UNITS, "tanh", kernel_initializer=one)
                for one in initializers
            ),
            keras.layers.Dense(1, kernel_initializer="zeros"),
        ]
    )
