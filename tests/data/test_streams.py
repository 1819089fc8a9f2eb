"""Training batches: complete, deterministic, shuffled, masked, in bounded memory."""

from __future__ import annotations

import dataclasses
import weakref
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from wm_tf.config import MemoryConfig, Task, VisionConfig, get_task
from wm_tf.data import streams
from wm_tf.data.episodes import Episode, episode_path, read_episode, write_episode
from wm_tf.data.latents import LatentEpisode, read_latents, write_latents
from wm_tf.data.streams import cut_sequences, damage_in, frame_batches, sequence_batches
from wm_tf.errors import DamagedFile

TASK = dataclasses.replace(get_task("car_racing"), latent_size=2)
DAMAGED = "damaged (its checksum does not match its content)"
FRAMES = (7, 12, 5, 9)
"""Of each episode."""


@pytest.fixture
def episodes(tmp_path: Path) -> list[Path]:
    """Episodes of which every frame has another colour: (episode, frame, 0)."""
    paths = []
    for index, count in enumerate(FRAMES):
        frames = np.zeros((count, 64, 64, 3), np.uint8)
        frames[..., 0] = index
        frames[..., 1] = np.arange(count)[:, np.newaxis, np.newaxis]
        episode = Episode(
            frames, np.zeros((count - 1, 3), np.float32), np.zeros(count - 1, np.float32),
            True, False, False, index, "random",
        )  # fmt: skip
        paths.append(episode_path(tmp_path, index))
        write_episode(paths[-1], episode, TASK)
    return paths


def colours(paths: list[Path], epoch: int = 0, seed: int = 1, **options: int) -> list[np.ndarray]:
    """(episode, frame) of each row of each batch, [batch, 2]."""
    config = VisionConfig(**{"batch_size": 1, **options})
    batches = frame_batches(paths, TASK, config, seed=seed, epoch=epoch)
    return [batch[:, 0, 0, :2] for batch in batches.as_numpy_iterator()]


ALL = {(episode, frame) for episode, count in enumerate(FRAMES) for frame in range(count)}


@pytest.mark.parametrize("pool", [3, 10, 1000])
def test_every_frame_comes_once_per_epoch(
    episodes: list[Path], pool: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "FRAME_POOL", pool)
    seen = [tuple(row) for row in np.concatenate(colours(episodes)).tolist()]
    assert len(seen) == len(set(seen)) == 33
    assert set(seen) == ALL
    in_batches = colours(episodes, batch_size=5)
    assert [len(batch) for batch in in_batches] == [5] * 6  # 33 frames: three are left out
    assert len({tuple(row) for row in np.concatenate(in_batches).tolist()}) == 30


def test_frames_left_out_by_the_stride_are_not_kept(
    episodes: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def reading(path: Path, task: Task) -> Episode:
        kept = [frames for frames in read if frames() is not None]
        assert len(kept) <= 1, "earlier episodes are still in memory"  # the last may be in use
        episode = read_episode(path, task)
        memory = episode.frames if episode.frames.base is None else episode.frames.base
        read.append(weakref.ref(memory))
        return episode

    monkeypatch.setattr(streams, "read_episode", reading)
    assert len(colours(episodes, frame_stride=3)) == sum(FRAMES) // 3
    assert len(read) == len(FRAMES)


def test_batches_are_frames_as_they_are(episodes: list[Path]) -> None:
    config = VisionConfig(batch_size=4)
    batch = next(frame_batches(episodes, TASK, config, seed=1, epoch=0).as_numpy_iterator())
    assert batch.shape == (4, 64, 64, 3)
    assert batch.dtype == np.uint8
    assert (batch == batch[:, :1, :1]).all()


def test_batches_mix_episodes_and_depend_on_seed_and_epoch_alone(episodes: list[Path]) -> None:
    def order(**key: int) -> list[tuple[int, ...]]:
        return [tuple(row) for batch in colours(episodes, **key) for row in batch.tolist()]

    first = order(epoch=0)
    assert first == order(epoch=0)
    assert len({episode for episode, _ in first[:10]}) > 1
    assert first != sorted(first)
    for other in (order(epoch=1), order(epoch=0, seed=2)):
        assert other != first
        assert sorted(other) == sorted(first)


def test_a_stride_takes_every_nth_frame_from_changing_offsets(episodes: list[Path]) -> None:
    offsets = set()
    for epoch in range(6):
        rows = np.concatenate(colours(episodes, epoch=epoch, frame_stride=3))
        for index, count in enumerate(FRAMES):
            taken = np.sort(rows[rows[:, 0] == index, 1])
            np.testing.assert_array_equal(taken, np.arange(taken[0], count, 3))
            offsets.add(int(taken[0]))
    assert offsets == {0, 1, 2}


def test_a_damaged_episode_ends_the_stream(episodes: list[Path]) -> None:
    episodes[1].write_bytes(b"damaged")
    config = VisionConfig(batch_size=1)
    with pytest.raises(tf.errors.OpError) as error:
        list(frame_batches(episodes, TASK, config, seed=1, epoch=0))
    assert str(damage_in(error.value)).endswith("episode-000001.npz: " + DAMAGED)


def test_the_pool_of_frames_is_bounded(
    episodes: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "FRAME_POOL", 10)
    largest = 0
    shuffled = streams._shuffled

    def watched(pool: list[np.ndarray], random: np.random.Generator) -> np.ndarray:
        nonlocal largest
        largest = max(largest, sum(map(len, pool)))
        return shuffled(pool, random)

    monkeypatch.setattr(streams, "_shuffled", watched)
    colours(episodes * 10)
    assert 10 <= largest < 10 + max(FRAMES)


def make_latents(
    steps: int, *, terminated: bool = True, repeated: bool = False, index: int = 0
) -> LatentEpisode:
    """Latents without variance, which say where they are from: z_t = (t, index)."""
    time = np.arange(steps + 1, dtype=np.float32)
    return LatentEpisode(
        mean=np.stack([time, np.full_like(time, index)], -1),
        log_variance=np.full((steps + 1, 2), -np.inf, np.float32),
        actions=np.repeat(time[:-1, np.newaxis] + 0.25, 3, axis=1),
        rewards=time[:-1] + 0.5,
        terminated=terminated,
        last_frame_repeated=repeated,
        vision="",
    )


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("steps", [1, 9, 10, 11, 35])
def test_sequences_cover_an_episode_once(steps: int, seed: int) -> None:
    parts = cut_sequences(make_latents(steps), 10, np.random.default_rng(seed))
    times: list[float] = []
    for part in parts:
        there = part["mask"] > 0
        assert there[0]
        assert not (np.diff(there.astype(int)) > 0).any()  # padding is at the end
        t = part["latent"][there, 0]
        np.testing.assert_allclose(part["next_latent"][there, 0], t + 1.0)
        np.testing.assert_array_equal(part["action"][there], np.stack([t + 0.25] * 3, -1))
        np.testing.assert_array_equal(part["reward"][there], t + 0.5)
        np.testing.assert_array_equal(part["done"], (part["latent"][:, 0] == steps - 1) & there)
        np.testing.assert_array_equal(part["latent_mask"], part["mask"])
        for name, column in part.items():
            assert column.shape[0] == 10, name
            assert column.dtype == np.float32, name
            assert not column[~there].any(), name
        times += t.tolist()
    assert times == list(range(steps))
    assert len(parts) <= steps // 10 + 2


def test_cuts_are_at_random_places() -> None:
    lengths = {
        int(cut_sequences(make_latents(35), 10, np.random.default_rng(seed))[0]["mask"].sum())
        for seed in range(200)
    }
    assert lengths == set(range(1, 11))


def test_an_end_is_a_termination_and_a_repeated_frame_is_masked() -> None:
    random = np.random.default_rng(0)
    cut = cut_sequences(make_latents(10, terminated=False), 10, random)
    assert not any(part["done"].any() for part in cut)
    repeated = cut_sequences(make_latents(10, repeated=True), 10, random)
    known = np.concatenate([part["latent_mask"][part["mask"] > 0] for part in repeated])
    np.testing.assert_array_equal(known, [1.0] * 9 + [0.0])
    assert sum(part["done"].sum() for part in repeated) == 1.0


def test_latents_are_sampled_from_their_moments_anew() -> None:
    steps = 4000
    moments = dataclasses.replace(
        make_latents(steps),
        mean=np.full((steps + 1, 2), 3.0, np.float32),
        log_variance=np.full((steps + 1, 2), np.log(0.25), np.float32),
    )
    random = np.random.default_rng(1)

    def sampled(name: str, parts: list[dict[str, np.ndarray]]) -> np.ndarray:
        return np.concatenate([part[name][part["mask"] > 0] for part in parts])

    first, second = (cut_sequences(moments, 100, random) for _ in range(2))
    values = sampled("latent", first)
    assert abs(values.mean() - 3.0) < 5.0 * 0.5 / np.sqrt(2 * steps)
    assert abs(values.std() - 0.5) < 5.0 * 0.5 / np.sqrt(4 * steps)
    np.testing.assert_array_equal(sampled("next_latent", first)[:-1], values[1:])
    assert np.mean(sampled("latent", second) == values) < 0.01


@pytest.fixture
def latents(tmp_path: Path) -> list[Path]:
    paths = []
    for index, steps in enumerate((25, 7, 31, 12)):
        paths.append(episode_path(tmp_path, index))
        write_latents(paths[-1], make_latents(steps, index=index), TASK)
    return paths


CONFIG = MemoryConfig(sequence_length=10, batch_size=4)


@pytest.mark.parametrize("pool", [1, 6, 2000])
def test_an_epoch_of_sequences_holds_every_step_once(
    latents: list[Path], pool: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "SEQUENCE_POOL", pool)
    seen: list[tuple[float, ...]] = []
    for x, y in sequence_batches(latents, TASK, CONFIG, seed=1, epoch=0).as_numpy_iterator():
        assert x["latent"].shape == y["next_latent"].shape == (4, 10, 2)
        assert x["action"].shape == (4, 10, 3)
        assert all(y[name].shape == (4, 10) for name in ("reward", "done", "mask", "latent_mask"))
        seen += [tuple(row) for row in np.rint(x["latent"][y["mask"] > 0]).tolist()]
    expected = {
        (float(t), float(index))
        for index, path in enumerate(latents)
        for t in range(read_latents(path, TASK).steps)
    }
    assert len(seen) == len(expected) == 75
    assert set(seen) == expected


def test_sequences_depend_on_seed_and_epoch_alone(latents: list[Path]) -> None:
    def first(seed: int, epoch: int) -> np.ndarray:
        stream = sequence_batches(latents, TASK, CONFIG, seed=seed, epoch=epoch)
        return next(stream.as_numpy_iterator())[0]["latent"]

    np.testing.assert_array_equal(first(1, 0), first(1, 0))
    assert (first(1, 0) != first(1, 1)).any()
    assert (first(1, 0) != first(2, 0)).any()


def test_damaged_latents_end_the_stream(latents: list[Path]) -> None:
    latents[2].write_bytes(b"damaged")
    with pytest.raises(tf.errors.OpError) as error:
        list(sequence_batches(latents, TASK, CONFIG, seed=1, epoch=0))
    damage = damage_in(error.value)
    assert isinstance(damage, DamagedFile)
    assert str(damage) == f"{latents[2]}: {DAMAGED}"


def test_other_errors_of_tensorflow_are_no_damage() -> None:
    assert damage_in(tf.errors.InvalidArgumentError(None, None, "Incompatible shapes")) is None
