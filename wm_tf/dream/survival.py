"""How long dreams last under a random policy: by this the rule of their end is chosen.

The end head gives a probability at every step, with which a dream ends. M's dreams are a little
kinder or crueller than the task: the odds are set so that the policy that collects survives as
long in both.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from wm_tf import seeding
from wm_tf.config import Task
from wm_tf.dream.differentiable import rollout
from wm_tf.dream.world import DreamState, has_ended
from wm_tf.envs import task_module
from wm_tf.models import Memory
from wm_tf.serving.initial import InitialLatents
from wm_tf.serving.manifest import EndRule

RANDOM_DREAMS_PER_CALL = 32
LARGEST_FACTOR = 4.0
"""By which the odds of an end may be set right."""


class RandomDreams(NamedTuple):
    """N dreams of T steps under the random policy, as if none of them ended."""

    reward: np.ndarray  # [N, T]
    done_probability: np.ndarray  # as the end head was trained, [N, T]
    uniform: np.ndarray  # random numbers for the rule ``sampled``, [N, T]

    def lengths(self, end: EndRule) -> np.ndarray:
        """Steps until each dream ends by a rule, T for one that does not; int [N]."""
        ended = has_ended(end, self.done_probability, self.uniform)
        ended[:, -1] = True
        return ended.argmax(axis=1) + 1


def random_dreams(
    task: Task,
    memory: Memory,
    starts: InitialLatents,
    *,
    episodes: int,
    streams: Sequence[np.random.SeedSequence],
    temperature: float,
    explores: bool = True,
    steps: int | None = None,
) -> RandomDreams:
    """Dreams under a random policy.

    Args:
      task: whose dreams they are.
      memory: M.
      starts: where they begin.
      episodes: N.
      streams: of the random numbers, one for each call of `RANDOM_DREAMS_PER_CALL`.
      temperature: greater than 0.
      explores: the policy that collects plays; else the task's plain random policy.
      steps: T; None: the time limit of the real task.
    """

    @tf.function
    def dream(latent, h, c, seed, actions):  # type: ignore[no-untyped-def]
        start = DreamState(latent, h, c, seed, 0)
        dreamt = rollout(memory, start, actions, temperature=temperature)
        return dreamt.reward, dreamt.done_probability

    module = task_module(task.name)
    policy = module.exploring_policy if explores else module.random_policy
    parts = []
    for stream in streams:
        random = np.random.default_rng(stream)
        state = starts.sample(random, RANDOM_DREAMS_PER_CALL, task.hidden_size)
        policies = [policy(random) for _ in range(RANDOM_DREAMS_PER_CALL)]
        actions = np.stack(
            [list(itertools.islice(policy, steps or task.max_steps)) for policy in policies]
        )
        seed = tf.constant(seeding.environment_seed(stream), tf.int32)
        reward, probability = dream(*map(tf.constant, state), seed, tf.constant(actions))
        parts.append((reward.numpy(), probability.numpy(), random.random(reward.shape)))
    return RandomDreams(*(np.concatenate(column)[:episodes] for column in zip(*parts, strict=True)))


def choose_end_rule(
    dreams: Sequence[RandomDreams], real_mean: float, odds_correction: float
) -> EndRule:
    """The rule by which dreams last as long as real episodes.

    Ends are drawn with the end head's probability, its odds divided by the number that brings the
    survival closest. (Without a draw, by a threshold, a controller learns to stay just below: in
    take_cover such controllers survived 1,000 tics of their dreams and 165 of the real task.)

    Args:
      dreams: at several temperatures, which count alike.
      real_mean: of that policy's survival in the real task, in steps.
      odds_correction: by how much the end head's loss weights the steps that end an episode; what
        is chosen is at most `LARGEST_FACTOR` times higher or lower.
    """

    def miss(rule: EndRule) -> float:
        lengths = np.array([dreamt.lengths(rule).mean() for dreamt in dreams])
        return float(np.square(np.log(lengths / real_mean)).mean())

    factors = np.geomspace(1.0 / LARGEST_FACTOR, LARGEST_FACTOR, 49)
    corrections = np.round(odds_correction * factors, 3).tolist()
    return min((EndRule("sampled", None, value) for value in corrections), key=miss)
