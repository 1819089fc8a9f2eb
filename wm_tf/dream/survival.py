"""How long dreams last under the random policy."""

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
    steps: int | None = None,
) -> RandomDreams:
    """Dreams under the random policy.

    Args:
      task: whose dreams they are.
      memory: M.
      starts: where they begin.
      episodes: N.
      streams: of the random numbers, one for each call of `RANDOM_DREAMS_PER_CALL`.
      temperature: greater than 0.
      steps: T; None: the time limit of the real task.
    """

    @tf.function(autograph=False)
    def dream(latent, h, c, seed, actions):  # type: ignore[no-untyped-def]
        start = DreamState(latent, h, c, seed, 0)
        dreamt = rollout(memory, start, actions, temperature=temperature)
        return dreamt.reward, dreamt.done_probability

    policy = task_module(task.name).random_policy
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
