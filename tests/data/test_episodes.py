"""Episodes survive the disk; what is not one is named, or left out when asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wm_tf import storage
from wm_tf.config import TASKS, get_task
from wm_tf.data.episodes import (
    FORMAT_VERSION,
    Episode,
    episode_path,
    episode_paths,
    intact_episodes,
    read_episode,
    write_episode,
)
from wm_tf.errors import DamagedFile, UserError

CAR, DOOM = get_task("car_racing"), get_task("take_cover")


def make_episode(steps: int = 3, seed: int = 0, actions: int = 3, **facts: bool) -> Episode:
    """An episode of noise."""
    generator = np.random.default_rng(seed)
    flags = {"terminated": True, "truncated": False, "last_frame_repeated": False, **facts}
    return Episode(
        frames=generator.integers(0, 256, (steps + 1, 64, 64, 3), np.uint8),
        actions=generator.uniform(-1, 1, (steps, actions)).astype(np.float32),
        rewards=generator.normal(size=steps).astype(np.float32),
        seed=seed,
        policy="random",
        **flags,
    )


def assert_equal(one: Episode, other: Episode) -> None:
    for field in dataclasses.fields(Episode):
        first, second = getattr(one, field.name), getattr(other, field.name)
        np.testing.assert_array_equal(first, second, err_msg=field.name)
        assert type(first) is type(second), field.name
        assert getattr(first, "dtype", None) == getattr(second, "dtype", None), field.name


@settings(max_examples=20, deadline=None)
@given(
    task=st.sampled_from(list(TASKS.values())),
    steps=st.integers(1, 6),
    seed=st.integers(0, 2**31 - 1),
    terminated=st.booleans(),
    truncated=st.booleans(),
    repeated=st.booleans(),
    known=st.booleans(),
)
def test_episodes_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    task: str,
    steps: int,
    seed: int,
    terminated: bool,
    truncated: bool,
    repeated: bool,
    known: bool,
) -> None:
    path = tmp_path_factory.mktemp("episodes") / "episode-000000.npz"
    episode = make_episode(
        steps, seed, task.action_size,
        terminated=terminated, truncated=truncated, last_frame_repeated=repeated,
    )  # fmt: skip
    if known:
        ends = np.linspace(0.0, 1.0, steps, dtype=np.float32)
        episode = dataclasses.replace(episode, end_probability=ends)
    write_episode(path, episode, task)
    assert_equal(read_episode(path, task), episode)
    assert episode.steps == steps


def test_a_file_is_the_same_whenever_it_is_written(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        write_episode(tmp_path / name, make_episode(), CAR)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def altered(**changes: object) -> Callable[[Path], None]:
    """Writes other metadata, with a right checksum."""

    def alter(path: Path) -> None:
        arrays, metadata = storage.read_npz(path)
        storage.write_npz(path, arrays, {**metadata, **changes})

    return alter


def of_too_many_ends(path: Path) -> None:
    arrays, metadata = storage.read_npz(path)
    storage.write_npz(path, {**arrays, "end_probability": np.zeros(4, np.float32)}, metadata)


def short_of_a_frame(path: Path) -> None:
    arrays, metadata = storage.read_npz(path)
    storage.write_npz(path, {**arrays, "frames": arrays["frames"][:-1]}, metadata)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncated, "damaged"),
        (flipped, "damaged"),
        (empty, "damaged"),
        (Path.unlink, "no such file"),
        (altered(task="take_cover"), "task: expected 'car_racing', got 'take_cover'"),
        (altered(format_version=FORMAT_VERSION + 1), "format_version: expected 1, got 2"),
        (altered(kind="latents"), "kind: expected 'episode', got 'latents'"),
        (of_too_many_ends, r"end_probability: expected \(3,\), got \(4,\)"),
        (short_of_a_frame, r"frames: expected \(4, 64, 64, 3\), got \(3, 64, 64, 3\)"),
    ],
)
def test_what_is_not_an_episode_is_named(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    paths = [episode_path(tmp_path, index) for index in range(3)]
    for index, path in enumerate(paths):
        write_episode(path, make_episode(seed=index), CAR)
    damage(paths[1])
    with pytest.raises(DamagedFile, match=f"episode-000001.npz: {message}"):
        read_episode(paths[1], CAR)


@pytest.mark.parametrize("damage", [truncated, flipped, empty])
def test_damaged_episodes_are_named_or_counted_and_left_out(
    tmp_path: Path, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [episode_path(tmp_path, index) for index in range(4)]
    for index, path in enumerate(paths):
        write_episode(path, make_episode(seed=index), CAR)
    assert intact_episodes(paths, CAR) == intact_episodes(paths, CAR, skip_corrupt=True) == paths
    assert capsys.readouterr().err == ""
    for path in paths[1:3]:
        damage(path)
    with pytest.raises(DamagedFile, match=r"episode-000001.npz: damaged"):
        intact_episodes(paths, CAR)
    assert intact_episodes(paths, CAR, skip_corrupt=True) == [paths[0], paths[3]]
    message = capsys.readouterr().err
    assert "skipped 2 damaged episodes" in message
    assert "episode-000001.npz" in message


def test_paths_are_in_order_and_nothing_else(tmp_path: Path) -> None:
    for index in (10, 2, 0):
        episode_path(tmp_path, index).touch()
    (tmp_path / ".episode-000003.npz.1234.tmp").touch()
    (tmp_path / "notes.txt").touch()
    names = [path.name for path in episode_paths(tmp_path)]
    assert names == ["episode-000000.npz", "episode-000002.npz", "episode-000010.npz"]


def test_a_folder_without_episodes_is_bad_input(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match=f"{folder}: holds no episodes"):
            episode_paths(folder)
