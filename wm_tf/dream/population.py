"""Whole generations in the dream: many controllers times many dreams in one compiled loop.

Every candidate is put into the same dreams: rollout r has the same start, the same noise and the
same dropout mask for all of them, so that candidates differ by what they do and not by their luck.
The noise of step t is that of the SavedModel's ``dream`` signature called with seed [seed, t] on R
rows; it is drawn once for the R rollouts and not for each of the P candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from wm_tf.config import Task
from wm_tf.dream.world import without_weight
from wm_tf.models import Memory, controller, mixture
from wm_tf.serving.manifest import EndRule


@dataclass(frozen=True)
class Starts:
    """Where the R dreams begin."""

    latent: np.ndarray  # float32 [R, Z]
    h: np.ndarray  # float32 [R, H]
    c: np.ndarray  # float32 [R, H]


@dataclass(frozen=True)
class DreamReturns:
    """What P candidates reached in R dreams."""

    returns: np.ndarray  # float32 [P, R]
    lengths: np.ndarray  # int32 [P, R], steps until the dream ended


class PopulationRollout:
    """Dreams of a task's M, compiled once for each population size.

        rollout = PopulationRollout(task, memory, EndRule("never"))
        result = rollout(parameters, starts, seed=1, horizon=1000, temperature=1.0)

    Args:
      task: whose model it is.
      memory: M.
      end: how a dream ends.
    """

    def __init__(self, task: Task, memory: Memory, end: EndRule) -> None:
        self._task = task
        self._memory = memory
        self._end = end
        self._run = tf.function(self._loop, jit_compile=False, reduce_retracing=False)

    def __call__(
        self,
        parameters: np.ndarray,
        starts: Starts,
        *,
        seed: int,
        horizon: int,
        temperature: float = 1.0,
        dropout: float = 0.0,
    ) -> DreamReturns:
        """Rolls out all candidates.

        Args:
          parameters: the candidates, float [P, N].
          starts: of the R dreams.
          seed: of their noise, in [0, 2^31).
          horizon: steps at most; the loop stops earlier if all dreams have ended.
          temperature: greater than 0.
          dropout: share of M's outputs hidden from its heads, one mask per dream.
        """
        rollouts = len(starts.latent)
        returns, lengths = self._run(
            tf.constant(parameters, tf.float32),
            tf.constant(starts.latent),
            tf.constant(starts.h),
            tf.constant(starts.c),
            tf.constant(seed, tf.int32),
            tf.constant(horizon, tf.int32),
            tf.constant(temperature, tf.float32),
            self._dropout_mask(rollouts, seed, dropout),
        )
        return DreamReturns(returns.numpy(), lengths.numpy())

    def _dropout_mask(self, rollouts: int, seed: int, dropout: float) -> tf.Tensor:
        shape = [rollouts, self._task.hidden_size]
        uniform = tf.random.stateless_uniform(shape, [seed, -1], alg="philox")
        return tf.cast(uniform >= dropout, tf.float32) / (1.0 - dropout)

    def _loop(
        self,
        parameters: Any,
        latent: Any,
        h: Any,
        c: Any,
        seed: Any,
        horizon: Any,
        temperature: Any,
        mask: Any,
    ) -> tuple[Any, Any]:
        population, rollouts = parameters.shape[0], latent.shape[0]
        kernel, bias = controller.split_parameters(self._task, parameters)

        def spread(rows: Any) -> Any:
            """[R, ...] to [P * R, ...]."""
            return tf.tile(rows, [population, *[1] * (len(rows.shape) - 1)])

        masks = spread(mask)

        def act(latent: Any, h: Any, c: Any) -> Any:
            inputs = controller.features(self._task, latent, h, c)
            inputs = tf.reshape(inputs, [population, rollouts, inputs.shape[-1]])
            values = tf.matmul(inputs, kernel, transpose_b=True) + bias[:, tf.newaxis]
            values = tf.reshape(values, [population * rollouts, self._task.action_size])
            return controller.squash(self._task, values)

        def step(t: Any, latent: Any, h: Any, c: Any, alive: Any, total: Any, length: Any) -> Any:
            result = self._memory.step(latent, act(latent, h, c), h, c, masks)
            uniform, normal = mixture.noise(tf.stack([seed, t]), [rollouts, self._task.latent_size])
            latent = mixture.sample(
                result.logits, result.mean, result.log_std, temperature,
                spread(uniform), spread(normal),
            )  # fmt: skip
            total += tf.where(alive, result.reward, 0.0)
            length += tf.cast(alive, tf.int32)
            alive &= ~self._ended(result.done_logit, seed, t, population, rollouts)
            return t + 1, latent, result.h, result.c, alive, total, length

        rows = population * rollouts
        state = (
            tf.constant(0), spread(latent), spread(h), spread(c),
            tf.fill([rows], True), tf.zeros([rows]), tf.zeros([rows], tf.int32),
        )  # fmt: skip
        *_, total, length = tf.while_loop(
            lambda t, latent, h, c, alive, *_: (t < horizon) & tf.reduce_any(alive), step, state
        )
        shape = [population, rollouts]
        return tf.reshape(total, shape), tf.reshape(length, shape)

    def _ended(self, done_logit: Any, seed: Any, t: Any, population: int, rollouts: int) -> Any:
        if self._end.rule == "never":
            return tf.zeros_like(done_logit, tf.bool)
        probability = without_weight(tf.sigmoid(done_logit), self._end.odds_correction)
        if self._end.rule == "threshold":
            return probability > self._end.value
        uniform = tf.random.stateless_uniform([rollouts], tf.stack([seed, -2 - t]), alg="philox")
        return tf.tile(uniform, [population]) < probability
