"""Chooses the real moments at which dreams start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

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

EPISODES_TOGETHER = 32
"""Episodes that M reads side by side."""

T = TypeVar("T")
Moment = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # mean, log_variance, h, c


def choose_starts(
    memory: Memory,
    latents: Sequence[Path],
    task: Task,
    *,
    count: int,
    random: np.random.Generator,
) -> InitialLatents:
    """Start moments of dreams from encoded episodes.

    At least half of them are first frames, with M's zero state, repeated where there are too few
    episodes. The others are later moments, with the state of M that the episode up to there led to;
    where no episode has any, all are first frames.

    Args:
      memory: M.
      latents: encoded episodes.
      task: their task.
      count: how many starts at most.
      random: chooses.
    """
    order = [latents[index] for index in random.permutation(len(latents))[:count]]
    first: list[Moment] = []
    later: list[tuple[int, int]] = []  # (episode, step)
    zero = np.zeros(task.hidden_size, np.float32)
    for index, path in enumerate(order):
        episode = read_latents(path, task)
        first.append(_moment(episode, 0, zero, zero))
        wanted = 1 + (episode.steps // STEPS_FOR_A_MOMENT if task.mortal else count // len(order))
        later += [(index, int(t)) for t in _later_moments(episode, random, wanted)]
    if not later:
        columns = zip(*_draw(first, count, random), strict=True)
        mean, log_variance, _, _ = (np.stack(column) for column in columns)
        return InitialLatents(mean, log_variance)
    half = count // 2
    rows = _draw(first, half, random)
    drawn = _draw(later, half, random)
    rows += [rows[index % len(rows)] for index in range(len(drawn) - len(rows))]
    rows += _on_the_way(memory, order, task, drawn)
    return InitialLatents(*(np.stack(column) for column in zip(*rows, strict=True)))


def _on_the_way(
    memory: Memory, paths: Sequence[Path], task: Task, moments: Sequence[tuple[int, int]]
) -> list[Moment]:
    """Later moments, (episode, step), with the states of M that their episodes led to."""

    @tf.function(autograph=False)
    def unroll(latent: Any, action: Any) -> Any:
        states = memory.unroll(latent, action)
        return states.h, states.c  # what the heads say is not computed

    sizes = (task.latent_size, task.action_size)
    traced = unroll.get_concrete_function(*(tf.TensorSpec([None, None, size]) for size in sizes))
    steps: dict[int, list[int]] = {}
    for index, t in moments:
        steps.setdefault(index, []).append(t)
    found: list[Moment] = []
    order = sorted(steps, key=lambda index: max(steps[index]))  # little is padded
    for start in range(0, len(order), EPISODES_TOGETHER):
        chosen = order[start : start + EPISODES_TOGETHER]
        episodes = [read_latents(paths[index], task) for index in chosen]
        longest = max(max(steps[index]) for index in chosen)
        latent = np.zeros((len(chosen), longest, task.latent_size), np.float32)
        action = np.zeros((len(chosen), longest, task.action_size), np.float32)
        for row, episode in enumerate(episodes):
            length = min(longest, episode.steps)
            latent[row, :length] = episode.mean[:length]
            action[row, :length] = episode.actions[:length]
        h, c = (states.numpy() for states in traced(tf.constant(latent), tf.constant(action)))
        found += [
            _moment(episode, t, h[row, t - 1], c[row, t - 1])
            for row, (index, episode) in enumerate(zip(chosen, episodes, strict=True))
            for t in steps[index]
        ]
    return found


def _moment(episode: LatentEpisode, t: int, h: np.ndarray, c: np.ndarray) -> Moment:
    """Copies: a row that is a view keeps the array of all steps of all episodes in memory."""
    return episode.mean[t].copy(), episode.log_variance[t].copy(), h.copy(), c.copy()


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


def _draw(moments: list[T], count: int, random: np.random.Generator) -> list[T]:
    return [moments[index] for index in random.permutation(len(moments))[:count]]
