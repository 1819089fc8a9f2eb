"""Latents on disk are those of the present V, and of episodes that can be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wm_tf.config import get_task
from wm_tf.data.episodes import Episode, episode_path, write_episode
from wm_tf.data.latents import read_latents
from wm_tf.errors import DamagedFile
from wm_tf.models import Vision
from wm_tf.training import encode as module
from wm_tf.training.encode import encode_episodes, encode_frames

TASK = get_task("car_racing")


@pytest.fixture
def vision(keras_models: dict[str, Any]) -> Vision:
    return keras_models["vision"]


def frames(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 64, 64, 3), np.uint8)


@pytest.fixture
def episodes(tmp_path: Path) -> list[Path]:
    paths = []
    for index in range(3):
        episode = Episode(
            frames(4 + index), np.full((3 + index, 3), 0.5, np.float32),
            np.arange(3 + index, dtype=np.float32), True, False, True, index, "random",
        )  # fmt: skip
        paths.append(episode_path(tmp_path / "rollouts", index))
        write_episode(paths[-1], episode, TASK)
    return paths


def test_frames_are_encoded_whatever_their_number(vision: Vision) -> None:
    pictures = frames(253)
    mean, log_variance = encode_frames(vision, pictures)
    assert mean.shape == log_variance.shape == (253, 32)
    for part in (slice(0, 2), slice(249, 253)):
        expected = vision.encode(pictures[part])
        np.testing.assert_allclose(mean[part], expected[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(log_variance[part], expected[1], rtol=1e-4, atol=1e-5)


def test_another_episode_in_the_same_place_is_encoded(
    vision: Vision, episodes: list[Path], tmp_path: Path
) -> None:
    encoded = [tmp_path / "latents" / "episode-000000.npz"]
    for path in episodes[1:]:
        path.rename(episodes[0])
        encode_episodes(vision, episodes[:1], encoded, TASK)
    assert read_latents(encoded[0], TASK).steps == 5


def test_episodes_are_encoded_once_for_each_v(
    vision: Vision, episodes: list[Path], tmp_path: Path
) -> None:
    encoded = [tmp_path / "latents" / path.name for path in episodes]
    encode_episodes(vision, episodes, encoded, TASK)
    held = read_latents(encoded[2], TASK)
    np.testing.assert_allclose(held.mean, vision.encode(frames(6))[0], atol=0.002)  # of bfloat16
    np.testing.assert_array_equal(held.rewards, np.arange(5))
    assert (held.terminated, held.last_frame_repeated) == (True, True)

    written = [path.stat().st_mtime_ns for path in encoded]
    encoded[1].unlink()
    encode_episodes(vision, episodes, encoded, TASK)
    assert read_latents(encoded[1], TASK).steps == 4
    again = [path.stat().st_mtime_ns for path in encoded]
    assert [one == other for one, other in zip(written, again, strict=True)] == [True, False, True]

    bias = vision.mean_head.bias.numpy()
    vision.mean_head.bias.assign(bias + 1.0)
    try:
        encode_episodes(vision, episodes, encoded, TASK)
    finally:
        vision.mean_head.bias.assign(bias)
    np.testing.assert_allclose(read_latents(encoded[2], TASK).mean, held.mean + 1.0, atol=1e-5)


def test_they_are_encoded_in_the_arithmetic_that_is_fast(
    vision: Vision, episodes: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    means = {}
    for dtype in ("float32", "bfloat16"):
        monkeypatch.setattr(module, "compute_dtype", {"auto": dtype}.__getitem__)
        encoded = [tmp_path / dtype / episodes[0].name]
        encode_episodes(vision, episodes[:1], encoded, TASK)
        means[dtype] = read_latents(encoded[0], TASK).mean
    expected = vision.encode(frames(4))[0]
    np.testing.assert_allclose(means["float32"], expected, rtol=1e-4, atol=1e-5)
    assert 0 < np.abs(means["bfloat16"] - means["float32"]).max() < 0.01


def test_damaged_files_stop_it(vision: Vision, episodes: list[Path], tmp_path: Path) -> None:
    encoded = [tmp_path / "latents" / path.name for path in episodes]
    episodes[1].write_bytes(b"damaged")
    with pytest.raises(DamagedFile, match=r"rollouts/episode-000001.npz: damaged"):
        encode_episodes(vision, episodes, encoded, TASK)
    assert encoded[0].exists()
    encoded[0].write_bytes(b"damaged")
    with pytest.raises(DamagedFile, match=r"latents/episode-000000.npz: damaged"):
        encode_episodes(vision, episodes, encoded, TASK)
