"""Whole generations in the dream: many controllers times many dreams in one compiled loop.

Every candidate is put into the same dreams: rollout r has the same start, the same noise and the
same dropout mask for all of them, so that candidates differ by what they do and not by their luck.
The noise of step t is that of the SavedModel's ``dream`` signature called with seed [seed, t] on R
rows; it is drawn once for the R rollouts and not for each of the P candidates.

A dream's end is drawn or, for the fitness of candidates, reckoned with: what comes after a step
counts by the probability that the dream goes on. That is the mean over all draws, which says more
about a candidate than one draw does.

A dream may also be given up, like a real rollout, when M has expected no reward for a while. A car
that has left the road comes back in the dream more often than it does in reality. And it may end at
a goal, a return, as a real lap does. Without one twice the speed is twice the return, whatever the
risk; a lap holds 1,000 points at any speed.

The loop is run in segments, and between them the dreams that have ended are left out: where most
controllers die early, most of the work is theirs who do not.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from wm_tf.config import Task
from wm_tf.dream.loop import LoopWeights
from wm_tf.dream.world import has_ended, without_weight
from wm_tf.models import Memory, controller, mixture
from wm_tf.precision import Precision, compute_dtype
from wm_tf.serving.manifest import EndRule

SEGMENT = 100
"""Steps after which the dreams that have ended are left out."""
ENDED = 0.02
"""A dream that goes on with a smaller probability counts as ended: what it would still add is a
fiftieth of a life, and to wait for it takes almost as long as the life before."""


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
    lengths: np.ndarray  # float32 [P, R], steps until the dream ended, or their expectation


class _Rows(NamedTuple):
    """Dreams that go on together, B of them, each with the controller that drives in it."""

    layers: controller.Layers  # of the controllers, each (kernel [B, M, N], bias [B, M])
    mask: tf.Tensor  # of M's outputs, [B, H]
    rollout: tf.Tensor  # which of the R dreams a row is, int32 [B]
    latent: tf.Tensor  # [B, Z]
    h: tf.Tensor  # [B, H]
    c: tf.Tensor  # [B, H]
    alive: tf.Tensor  # probability that the dream goes on, [B]; 0 or 1 where ends are drawn
    total: tf.Tensor  # return so far, [B]
    length: tf.Tensor  # steps so far, [B]
    unrewarded: tf.Tensor  # steps since one of which a reward above 0 was expected, int32 [B]


class PopulationRollout:
    """Dreams of a task's M, compiled once.

        rollout = PopulationRollout(task, memory, EndRule("never"))
        result = rollout(parameters, starts, seed=1, horizon=1000, temperature=1.0)

    Args:
      task: whose model it is.
      memory: M.
      end: how a dream ends.
      precision: of the matrix products.
      expected: ends are not drawn: returns and lengths are their expectations over all draws, given
        the latents' noise.
      hidden: hidden units of the candidates; 0: they are linear.
    """

    def __init__(
        self,
        task: Task,
        memory: Memory,
        end: EndRule,
        precision: Precision = "float32",
        expected: bool = False,
        hidden: int = 0,
    ) -> None:
        self._task = task
        self._memory = memory
        self._dtype = compute_dtype(precision)
        self._end = end
        self._expected = expected
        self._hidden = hidden
        self._run = tf.function(self._segment, input_signature=self._signature(), autograph=False)

    def __call__(
        self,
        parameters: np.ndarray,
        starts: Starts,
        *,
        seed: int,
        horizon: int,
        temperature: float = 1.0,
        dropout: float = 0.0,
        patience: int = 0,
        goal: float = 0.0,
    ) -> DreamReturns:
        """Rolls out all candidates.

        Args:
          parameters: the candidates, float [P, N].
          starts: of the R dreams.
          seed: of their noise, in [0, 2^31).
          horizon: steps at most; the loop stops earlier if all dreams have ended.
          temperature: greater than 0.
          dropout: share of M's outputs hidden from its heads, one mask per dream.
          patience: a dream ends after so many steps without an expected reward above 0 (0: never).
          goal: a dream ends at such a return (0: never).
        """
        population, rollouts = len(parameters), len(starts.latent)
        returns = np.zeros(population * rollouts, np.float32)
        lengths = np.zeros(population * rollouts, np.float32)
        rows = self._all_rows(parameters, starts, self._dropout_mask(rollouts, seed, dropout))
        places = np.arange(population * rollouts)  # of the rows in the results
        for first in range(0, horizon, SEGMENT):
            rows = rows._replace(
                **self._run(
                    rows._asdict(),
                    seed,
                    first,
                    min(first + SEGMENT, horizon),
                    temperature,
                    rollouts,
                    patience,
                    goal,
                )
            )
            returns[places], lengths[places] = rows.total.numpy(), rows.length.numpy()
            alive = np.flatnonzero(rows.alive.numpy())
            if len(alive) == 0:
                break
            if len(alive) < len(places):
                rows = tf.nest.map_structure(lambda part: tf.gather(part, alive), rows)  # noqa: B023
                places = places[alive]
        shape = (population, rollouts)
        return DreamReturns(returns.reshape(shape), lengths.reshape(shape))

    def _all_rows(self, parameters: np.ndarray, starts: Starts, mask: tf.Tensor) -> _Rows:
        population, rollouts = len(parameters), len(starts.latent)
        layers = controller.split_parameters(self._task, tf.constant(parameters, tf.float32))
        count = population * rollouts

        def spread(rows: Any) -> tf.Tensor:
            """[R, ...] to [P * R, ...]."""
            return tf.tile(rows, [population, *[1] * (len(rows.shape) - 1)])

        return _Rows(
            layers=tf.nest.map_structure(lambda part: tf.repeat(part, rollouts, axis=0), layers),
            mask=spread(mask),
            rollout=spread(tf.range(rollouts)),
            latent=spread(starts.latent),
            h=spread(starts.h),
            c=spread(starts.c),
            alive=tf.ones([count]),
            total=tf.zeros([count]),
            length=tf.zeros([count]),
            unrewarded=tf.zeros([count], tf.int32),
        )

    def _dropout_mask(self, rollouts: int, seed: int, dropout: float) -> tf.Tensor:
        shape = [rollouts, self._task.hidden_size]
        uniform = tf.random.stateless_uniform(shape, [seed, -1], alg="philox")
        return tf.cast(uniform >= dropout, tf.float32) / (1.0 - dropout)

    def _signature(self) -> list[Any]:
        task = self._task
        sizes = [
            task.controller_inputs,
            *([self._hidden] if self._hidden else []),
            task.action_size,
        ]
        layers = tuple(
            (tf.TensorSpec([None, outputs, inputs]), tf.TensorSpec([None, outputs]))
            for inputs, outputs in itertools.pairwise(sizes)
        )
        columns: dict[str, tuple[list[int], Any]] = {
            "mask": ([task.hidden_size], tf.float32),
            "rollout": ([], tf.int32),
            "latent": ([task.latent_size], tf.float32),
            "h": ([task.hidden_size], tf.float32),
            "c": ([task.hidden_size], tf.float32),
            "alive": ([], tf.float32),
            "total": ([], tf.float32),
            "length": ([], tf.float32),
            "unrewarded": ([], tf.int32),
        }
        rows: dict[str, Any] = {
            name: tf.TensorSpec([None, *shape], kind) for name, (shape, kind) in columns.items()
        }
        rows["layers"] = layers
        integer = tf.TensorSpec([], tf.int32)
        number = tf.TensorSpec([], tf.float32)
        return [rows, integer, integer, integer, number, integer, integer, number]

    def _segment(
        self,
        rows: dict[str, Any],
        seed: Any,
        first: Any,
        last: Any,
        temperature: Any,
        rollouts: Any,
        patience: Any,
        goal: Any,
    ) -> dict[str, Any]:
        """Steps `first` to `last` of the rows: what changes of them."""
        layers, mask, rollout = (rows[name] for name in ("layers", "mask", "rollout"))
        weights = LoopWeights.of(self._memory, self._dtype)
        size = self._task.latent_size

        def step(t: Any, *before: Any) -> Any:
            latent, h, c, alive, total, length, unrewarded = before
            inputs = controller.features(self._task, latent, h, c)
            action = controller.act_by_layers(self._task, layers, inputs)
            uniform, normal = mixture.noise(tf.stack([seed, t]), [rollouts, size])
            latent, h, c, reward, done_logit = weights.step(
                latent, action, h, c, mask,
                temperature, tf.gather(uniform, rollout), tf.gather(normal, rollout),
            )  # fmt: skip
            total += tf.math.multiply_no_nan(reward, alive)
            length += alive
            done_probability = tf.sigmoid(done_logit)
            if self._expected and self._end.rule == "sampled":
                alive *= 1.0 - without_weight(done_probability, self._end.odds_correction)
                alive = tf.where(alive < ENDED, 0.0, alive)
            else:
                # Beside the noise of the latents, whose second seeds are 0 and above.
                draw = tf.stack([seed, -2 - t])
                uniform = tf.random.stateless_uniform([rollouts], draw, alg="philox")
                ended = has_ended(self._end, done_probability, tf.gather(uniform, rollout))
                alive *= 1.0 - tf.cast(ended, tf.float32)
            unrewarded = tf.where(reward > 0.0, 0, unrewarded + 1)
            alive = tf.where((patience > 0) & (unrewarded >= patience), 0.0, alive)
            alive = tf.where((goal > 0.0) & (total >= goal), 0.0, alive)
            return t + 1, latent, h, c, alive, total, length, unrewarded

        names = ("latent", "h", "c", "alive", "total", "length", "unrewarded")
        _, *following = tf.while_loop(
            lambda t, latent, h, c, alive, *_: (t < last) & (tf.reduce_max(alive) > 0.0),
            step,
            (first, *(rows[name] for name in names)),
        )
        return dict(zip(names, following, strict=True))
