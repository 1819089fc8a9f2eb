"""Chooses the real moments at which dreams start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from wm_tf.config import Task
from wm_tf.data.latents import LatentEpisode, read_latents
from wm_tf.models import Memory
from wm_tf.serving.initial import InitialLatents

STEPS_FOR_A_MOMENT = 100
"""Of an episode that may end early there is one later moment for so many steps: a long one shows
what a player meets who survives."""
REWARDED_WITHIN = 25
"""A later moment must be this close, in steps, to a positive reward on both sides."""

Moment = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # mean, log_variance, h, c


def choose_starts(
    memory: Memory,
    latents: Sequence[Path],
    task: Task,
    *,
    count: int,
    random: np.random.Generator,
    later: bool = True,
) -> InitialLatents:
    """Start moments of dreams from encoded episodes.

    Half of them are first frames, with M's zero state. The other half are later moments, with the
    state of M that the episode up to there led to; where no episode has any, all are first frames.

    Args:
      memory: M.
      latents: encoded episodes.
      task: their task.
      count: how many starts at most.
      random: chooses.
      later: whether there are later moments; else all are first frames.
    """
    order = [latents[index] for index in random.permutation(len(latents))[:count]]
    first: list[Moment] = []
    on_the_way: list[Moment] = []
    unroll = tf.function(memory.unroll, reduce_retracing=True)
    zero = np.zeros(task.hidden_size, np.float32)
    for path in order:
        episode = read_latents(path, task)
        first.append((episode.mean[0], episode.log_variance[0], zero, zero))
        wanted = 1 + (episode.steps // STEPS_FOR_A_MOMENT if task.mortal else count // len(order))
        moments = _later_moments(episode, random, wanted)
        if later and len(moments):
            states = unroll(episode.mean[np.newaxis, :-1], episode.actions[np.newaxis])
            h, c = states.h[0].numpy(), states.c[0].numpy()
            on_the_way += [
                (episode.mean[t], episode.log_variance[t], h[t - 1], c[t - 1]) for t in moments
            ]
    if on_the_way:
        half = count // 2
        rows = _draw(first, half, random) + _draw(on_the_way, half, random)
        return InitialLatents(*(np.stack(column) for column in zip(*rows, strict=True)))
    columns = zip(*_draw(first, count, random), strict=True)
    mean, log_variance, _, _ = (np.stack(column) for column in columns)
    return InitialLatents(mean, log_variance)


def _later_moments(episode: LatentEpisode, random: np.random.Generator, count: int) -> np.ndarray:
    """Steps t > 0 shortly after and shortly before a positive reward."""
    rewarded = np.flatnonzero(episode.rewards > 0)
    steps = np.arange(REWARDED_WITHIN, episode.steps)
    place = np.searchsorted(rewarded, steps)
    inside = (place > 0) & (place < len(rewarded))
    steps, place = steps[inside], place[inside]
    near = (steps - rewarded[place - 1] <= REWARDED_WITHIN) & (
        rewarded[place] - steps <= REWARDED_WITHIN
    )
    return random.permutation(steps[near])[:count]


def _draw(moments: list[Moment], count: int, random: np.random.Generator) -> list[Moment]:
    return [moments[index] for index in random.permutation(len(moments))[:count]]
