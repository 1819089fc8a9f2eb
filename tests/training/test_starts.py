"""Dreams start at real moments, with the state of M that led to them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from wm_tf.config import Task, get_task
from wm_tf.data.episodes import episode_path
from wm_tf.data.latents import LatentEpisode, read_latents, write_latents
from wm_tf.models import Memory
from wm_tf.training.starts import REWARDED_WITHIN, _moment, choose_starts

CAR = dataclasses.replace(get_task("car_racing"), latent_size=2, hidden_size=4)
STEPS = 300


@pytest.fixture
def latents(tmp_path: Path) -> list[Path]:
    """Driven well until step 200; z says where a moment is from: (t, episode)."""
    paths = []
    for index in range(4):
        t = np.arange(STEPS + 1, dtype=np.float32)
        mean = np.stack([t, np.full_like(t, index)], -1)
        rewards = np.where((t[:-1] % 10 == 0) & (t[:-1] < 200), 3.0, -0.1)
        episode = LatentEpisode(
            mean, mean - 5.0,
            np.random.default_rng(index).standard_normal((STEPS, 3), np.float32),
            rewards.astype(np.float32), False, False, "",
        )  # fmt: skip
        paths.append(episode_path(tmp_path, index))
        write_latents(paths[-1], episode, CAR)
    return paths


def choose(  # type: ignore[no-untyped-def]
    latents: list[Path], task: Task, count: int = 40, seed: int = 1
):
    memory, random = Memory(2, 3, 4), np.random.default_rng(seed)
    starts = choose_starts(memory, latents, task, count=count, random=random)
    starts.check(task)
    return memory, starts


def test_first_frames_have_the_zero_state_and_later_ones_their_own(latents: list[Path]) -> None:
    memory, starts = choose(latents, CAR)
    first = starts.mean[:, 0] == 0.0
    assert sorted(starts.mean[first, 1]) == 5 * [0.0] + 5 * [1.0] + 5 * [2.0] + 5 * [3.0]
    assert not starts.h[first].any()
    assert not starts.c[first].any()
    assert (~first).sum() == 20
    np.testing.assert_array_equal(starts.log_variance, starts.mean - 5.0)
    for mean, h, c in zip(starts.mean[~first], starts.h[~first], starts.c[~first], strict=True):
        t, index = int(mean[0]), int(mean[1])
        assert REWARDED_WITHIN <= t <= 190  # rewarded shortly before, and shortly after
        episode = read_latents(latents[index], CAR)
        states = memory.unroll(episode.mean[np.newaxis, :t], episode.actions[np.newaxis, :t])
        np.testing.assert_allclose(h, states.h[0, -1], atol=1e-5)
        np.testing.assert_allclose(c, states.c[0, -1], atol=1e-5)


def test_a_moment_keeps_no_episode_in_memory(latents: list[Path]) -> None:
    h, c = np.ones((2, STEPS, 4), np.float32)
    moment = _moment(read_latents(latents[1], CAR), 50, h[49], c[49])
    assert all(part.base is None for part in moment)
    assert moment[0].tolist() == [50.0, 1.0]


def test_episodes_too_short_for_later_moments_give_first_frames(tmp_path: Path) -> None:
    steps = REWARDED_WITHIN
    mean = np.ones((steps + 1, 2), np.float32)
    actions, rewards = np.zeros((steps, 3), np.float32), np.ones(steps, np.float32)
    path = episode_path(tmp_path, 0)
    write_latents(path, LatentEpisode(mean, mean, actions, rewards, True, False, ""), CAR)
    _, starts = choose([path], CAR)
    assert starts.h is None
    assert starts.c is None
    assert len(starts) == 1


def test_a_long_survival_gives_more_moments_and_dreams_that_are_played_none(
    tmp_path: Path,
) -> None:
    task = dataclasses.replace(CAR, mortal=True)
    paths = []
    for index, steps in enumerate((50, 1000)):
        mean = np.full((steps + 1, 2), index + 1, np.float32)
        actions, rewards = np.zeros((steps, 3), np.float32), np.ones(steps, np.float32)
        paths.append(episode_path(tmp_path, index))
        write_latents(paths[-1], LatentEpisode(mean, mean, actions, rewards, True, False, ""), task)
    _, starts = choose(paths, task)
    later = starts.later
    assert starts.mean[later, 0].tolist().count(1.0) == 1
    assert starts.mean[later, 0].tolist().count(2.0) == 11
    played = starts.beginnings(task)
    assert played.h is None and len(played) == (~later).sum() == 12
    assert starts.beginnings(CAR) is starts


def test_the_choice_depends_on_the_generator_alone(latents: list[Path]) -> None:
    chosen = [choose(latents, CAR, seed=seed)[1].mean for seed in (1, 1, 2)]
    np.testing.assert_array_equal(chosen[0], chosen[1])
    assert not np.array_equal(chosen[0], chosen[2])
