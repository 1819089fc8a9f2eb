"""Encoded episodes survive the disk; damaged or foreign ones are named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from wm_tf import storage
from wm_tf.config import get_task
from wm_tf.data.episodes import Episode
from wm_tf.data.latents import from_episode, read_latents, write_latents
from wm_tf.errors import DamagedFile

TASK = get_task("take_cover")


def write(path: Path, ends: np.ndarray | None = None) -> tuple[Episode, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    episode = Episode(
        frames=np.zeros((5, 64, 64, 3), np.uint8),
        actions=generator.uniform(-1, 1, (4, 1)).astype(np.float32),
        rewards=np.ones(4, np.float32),
        terminated=True,
        truncated=False,
        last_frame_repeated=True,
        seed=1,
        policy="random",
        end_probability=ends,
    )
    mean, log_variance = generator.normal(size=(2, 5, 64)).astype(np.float32)
    write_latents(path, from_episode(episode, mean, log_variance, "weights"), TASK)
    return episode, mean, log_variance


def test_latents_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "episode-000000.npz"
    episode, mean, log_variance = write(path)
    held = read_latents(path, TASK)
    np.testing.assert_array_equal(held.mean, mean)
    np.testing.assert_array_equal(held.log_variance, log_variance)
    np.testing.assert_array_equal(held.actions, episode.actions)
    np.testing.assert_array_equal(held.rewards, episode.rewards)
    assert (held.terminated, held.last_frame_repeated, held.vision) == (True, True, "weights")
    assert held.steps == 4
    assert {field.name for field in dataclasses.fields(held)} > {"mean", "log_variance"}


def test_m_learns_how_likely_ends_were_where_that_is_known(tmp_path: Path) -> None:
    path = tmp_path / "episode-000000.npz"
    write(path)
    np.testing.assert_array_equal(read_latents(path, TASK).ends, [0.0, 0.0, 0.0, 1.0])
    known = np.array([0.0, 0.5, 0.0, 0.75], np.float32)
    write(path, known)
    np.testing.assert_array_equal(read_latents(path, TASK).ends, known)


@pytest.mark.parametrize(
    ("key", "value"), [("task", "car_racing"), ("format_version", 99), ("kind", "episode")]
)
def test_foreign_latents_are_named(tmp_path: Path, key: str, value: object) -> None:
    path = tmp_path / "episode-000007.npz"
    write(path)
    arrays, metadata = storage.read_npz(path)
    storage.write_npz(path, arrays, {**metadata, key: value})
    with pytest.raises(DamagedFile, match=f"episode-000007.npz: {key}: expected"):
        read_latents(path, TASK)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedFile, match=r"episode-000007.npz: damaged"):
        read_latents(path, TASK)
