"""Held-out figures of V and M against what they ought to be in cases that are known."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wm_tf import storage
from wm_tf.config import get_task
from wm_tf.data.episodes import Episode, episode_path, write_episode
from wm_tf.data.latents import LatentEpisode, write_latents
from wm_tf.models import Memory
from wm_tf.training.measure import (
    END_THRESHOLD,
    END_TOLERANCE,
    _found_ends,
    measure_memory,
    measure_vision,
)

TASK = dataclasses.replace(get_task("car_racing"), latent_size=2, hidden_size=4)


def latents(
    folder: Path, rewards: np.ndarray, index: int = 0, repeated: bool = False, **facts: bool
) -> Path:
    """z = N(0, 1) at every step, so that its change is N(0, 2)."""
    steps = len(rewards)
    zero = np.zeros((steps + 1, 2), np.float32)
    if repeated:
        zero[-1] = 1e3  # what is not known must not count
    episode = LatentEpisode(
        zero, np.zeros_like(zero), np.zeros((steps, 3), np.float32),
        rewards.astype(np.float32), facts.get("terminated", False), repeated, "",
    )  # fmt: skip
    path = episode_path(folder, index)
    write_latents(path, episode, TASK)
    return path


def constant_memory(reward: float = 0.0, done_logit: float = -9.0) -> Memory:
    """Predicts N(0, 1), a reward and an end whatever it sees."""
    memory = Memory(2, 3, 4, 5)
    memory.output_kernel.assign(np.zeros(memory.output_kernel.shape))
    bias = np.zeros(memory.output_bias.shape)
    bias[-2:] = reward, done_logit
    memory.output_bias.assign(bias)
    return memory


def test_figures_of_a_memory_that_knows_the_distribution(tmp_path: Path) -> None:
    rewards = np.random.default_rng(1).normal(2.0, 1.0, 5000)
    path = latents(tmp_path, rewards, repeated=True)
    result = measure_memory(constant_memory(reward=2.0), [path], TASK, 10.0)
    # Entropies of N(0, 1) and N(0, 2) in nats; the standard error over 10,000 values is 0.007.
    assert result["nll"] == pytest.approx(0.5 * np.log(2 * np.pi * np.e), abs=0.04)
    assert result["nll_unchanged"] == pytest.approx(0.5 * np.log(2 * np.pi * np.e * 2), abs=0.04)
    assert result["reward_explained_variance"] == pytest.approx(0.0, abs=0.01)
    assert result["reward_explained_variance_25"] == pytest.approx(0.0, abs=0.05)
    assert result["steps"] == 5000
    worse = measure_memory(constant_memory(reward=4.0), [path], TASK, 10.0)
    assert worse["reward_explained_variance"] == pytest.approx(-4.0, abs=0.2)


def test_figures_that_do_not_exist_are_left_out(tmp_path: Path) -> None:
    """take_cover's reward is always 1: its variance has no explained share."""
    path = latents(tmp_path, np.ones(60))
    result = measure_memory(constant_memory(reward=1.0), [path], TASK, 10.0)
    assert not result.keys() & {
        "reward_explained_variance", "reward_explained_variance_25", "end_recall", "end_precision",
    }  # fmt: skip
    assert np.isfinite(list(result.values())).all()
    storage.write_json(tmp_path / "record.json", result)  # which refuses NaN
    short = latents(tmp_path, np.arange(10), index=1)
    result = measure_memory(constant_memory(), [short], TASK, 10.0)
    assert "reward_explained_variance" in result
    assert "reward_explained_variance_25" not in result


@pytest.mark.parametrize(("above", "recall"), [(0.1, 1.0), (-0.1, 0.0)])
@pytest.mark.parametrize("correction", [1.0, 10.0])
def test_ends_are_claimed_where_they_are_likelier_than_not_within_the_tolerance(
    tmp_path: Path, correction: float, above: float, recall: float
) -> None:
    within = 1.0 - (1.0 - END_THRESHOLD) ** (END_TOLERANCE + 1)
    assert within == pytest.approx(0.5)
    logit = np.log(correction * END_THRESHOLD / (1.0 - END_THRESHOLD)) + above
    paths = [
        latents(tmp_path, np.arange(30), index=index, terminated=index == 0) for index in range(2)
    ]
    result = measure_memory(constant_memory(done_logit=logit), paths, TASK, correction)
    assert result["ends"] == 1.0
    assert result["end_recall"] == recall


@pytest.mark.parametrize(
    ("claimed", "terminated", "expected"),
    [
        ([], True, (0, 1, 0, 0)),
        ([29], True, (1, 1, 1, 1)),
        ([29 - END_TOLERANCE], True, (1, 1, 1, 1)),
        ([28 - END_TOLERANCE], True, (0, 1, 0, 1)),
        ([3, 4, 5, 28, 29], True, (1, 1, 1, 2)),
        ([28, 29], False, (0, 0, 0, 1)),
    ],
)
def test_ends_are_found_within_a_tolerance(
    claimed: list[int], terminated: bool, expected: tuple[int, int, int, int]
) -> None:
    claims = np.zeros(30, bool)
    claims[claimed] = True
    zero = np.zeros((31, 2), np.float32)
    episode = LatentEpisode(
        zero, zero, np.zeros((30, 3), np.float32), np.zeros(30, np.float32), terminated, False, ""
    )
    assert _found_ends(claims, episode) == expected


def test_what_might_have_ended_an_episode_is_an_end_to_be_found() -> None:
    claims = np.zeros(30, bool)
    claims[[9, 10, 20]] = True
    zero, ends = np.zeros((31, 2), np.float32), np.zeros(30, np.float32)
    ends[[10, 16, 29]] = 0.5, 0.75, 1.0
    episode = LatentEpisode(
        zero, zero, np.zeros((30, 3), np.float32), np.zeros(30, np.float32), False, False, "",
        end_probability=ends,
    )  # fmt: skip
    assert _found_ends(claims, episode) == (1, 3, 1, 2)


def test_figures_of_vision(keras_models: dict[str, Any], tmp_path: Path) -> None:
    task, vision = get_task("car_racing"), keras_models["vision"]
    pictures = np.zeros((9, 64, 64, 3), np.uint8)
    pictures[:, 20:40, 20:40] = 200
    episode = Episode(
        pictures, np.zeros((8, 3), np.float32), np.zeros(8, np.float32), True, False, False, 1, ""
    )
    path = episode_path(tmp_path, 0)
    write_episode(path, episode, task)
    result = measure_vision(vision, [path], task)
    frame = vision(pictures[:1])["frame"].numpy()[0]
    difference = frame - pictures[0] / 255.0
    assert result["frames"] == 3.0  # every fourth
    assert result["squared_error"] == pytest.approx((difference**2).sum(), rel=1e-4)
    assert result["grey_levels"] == pytest.approx(255.0 * np.abs(difference).mean(), rel=1e-4)
    # The edge is where half of the pixels are black and half are light.
    assert result["edge_grey_levels"] == pytest.approx(
        255.0 * np.abs(difference[18:42, 18:42]).mean(), rel=0.3
    )
    assert result["kl"] > 0.0

    grey = dataclasses.replace(episode, frames=np.full_like(pictures, 128))
    write_episode(episode_path(tmp_path, 1), grey, task)
    paths = [episode_path(tmp_path, index) for index in (0, 1)]
    assert measure_vision(vision, paths, task)["edge_grey_levels"] == result["edge_grey_levels"]
    assert "edge_grey_levels" not in measure_vision(vision, paths[1:], task)
