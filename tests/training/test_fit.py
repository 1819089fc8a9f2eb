"""Training M and V: resumable, stopped by NaN, quick to say what data it cannot use."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wm_tf.config import MemoryConfig, VisionConfig, get_task
from wm_tf.data.episodes import Episode, episode_path, write_episode
from wm_tf.data.latents import LatentEpisode, write_latents
from wm_tf.data.streams import sequence_batches
from wm_tf.errors import DamagedFile, RunFailed, UserError
from wm_tf.models import Memory
from wm_tf.training import checkpoint
from wm_tf.training.fit import Log, Places
from wm_tf.training.memory import make_memory, train_memory
from wm_tf.training.vision import make_vision, train_vision

TASK = dataclasses.replace(get_task("car_racing"), latent_size=2, hidden_size=8)
CONFIG = MemoryConfig(sequence_length=10, batch_size=4, dropout=0.2)


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Episodes of a world that can be learned: the action moves z and is the reward."""
    folder = tmp_path_factory.mktemp("latents")
    generator = np.random.default_rng(1)
    paths = []
    for index, steps in enumerate((40, 25, 33, 12)):
        actions = generator.uniform(-1.0, 1.0, (steps, 3)).astype(np.float32)
        mean = np.zeros((steps + 1, 2), np.float32)
        mean[1:] = actions[:, :2]
        variance = np.full_like(mean, -6.0)
        paths.append(episode_path(folder, index))
        episode = LatentEpisode(mean, variance, actions, actions[:, 2], True, False, "")
        write_latents(paths[-1], episode, TASK)
    return paths


def places(folder: Path, start: Path | None = None) -> Places:
    return Places(folder / "memory.npz", folder / "logs", start)


def train(
    folder: Path,
    latents: list[Path],
    epochs: int,
    start: Path | None = None,
    config: MemoryConfig = CONFIG,
) -> Memory:
    memory = make_memory(TASK, config, seed=3)
    train_memory(memory, latents, TASK, config, places(folder, start), seed=3, epochs=epochs)
    return memory


def metrics(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "logs" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_memory_learns_and_writes_what_it_did(latents: list[Path], tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, dropout=0.0, learning_rate=0.02)
    memory = train(tmp_path, latents, 8, config=config)
    lines = metrics(tmp_path)
    assert [line["step"] for line in lines] == list(range(8))
    assert {"loss", "nll", "reward_error", "done_loss", "seconds"} <= lines[0].keys()
    assert lines[-1]["nll"] < lines[0]["nll"] - 0.5
    assert lines[-1]["reward_error"] < 0.5 * lines[0]["reward_error"]
    assert list((tmp_path / "logs").glob("events.out.tfevents.*"))
    held = checkpoint.facts(tmp_path / "memory.npz")
    assert held["task"] == "car_racing"
    assert (held["epochs"], held["seed"]) == (8, 3)
    assert held["config"] == dataclasses.asdict(config)
    restored = Memory(2, 3, 8)
    checkpoint.restore(tmp_path / "memory.npz", restored, weights_only=True)
    assert checkpoint.digest(restored) == checkpoint.digest(memory)


@pytest.fixture(scope="module")
def first(latents: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training of one epoch. Not to be altered."""
    folder = tmp_path_factory.mktemp("first")
    train(folder, latents, 1)
    return folder


def test_a_resumed_training_is_the_uninterrupted_one(
    latents: list[Path], first: Path, tmp_path: Path
) -> None:
    whole = train(tmp_path / "whole", latents, 2)
    shutil.copytree(first, tmp_path / "parts")
    parts = train(tmp_path / "parts", latents, 2)
    for one, other in zip(whole.get_weights(), parts.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    for name in ("whole", "parts"):
        assert [line["step"] for line in metrics(tmp_path / name)] == [0, 1]
    assert metrics(tmp_path / "whole")[1]["loss"] == metrics(tmp_path / "parts")[1]["loss"]
    # As the next round does it: from a checkpoint of another name.
    second = train(tmp_path / "second", latents, 2, start=first / "memory.npz")
    assert checkpoint.digest(second) == checkpoint.digest(whole)


def test_every_epoch_draws_its_share_of_the_random_episodes(
    latents: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[list[Path]] = []

    def spy(paths: list[Path], *arguments: Any, **named: Any) -> Any:
        used.append(paths)
        return sequence_batches(paths, *arguments, **named)

    monkeypatch.setattr("wm_tf.training.memory.sequence_batches", spy)
    random, later = latents[:3], latents[3:]
    config = dataclasses.replace(CONFIG, random_share=1 / 3)
    memory = make_memory(TASK, config, seed=3)
    train_memory(
        memory, later, TASK, config, places(tmp_path), seed=3, epochs=6, random=random
    )  # fmt: skip
    assert all(len(paths) == 2 and paths[1:] == later for paths in used)
    assert len({paths[0] for paths in used}) > 1  # not always the same one


def test_the_learning_rate_falls_over_the_epochs_of_a_training(
    latents: list[Path], first: Path, tmp_path: Path
) -> None:
    """Also where the training goes on after an interruption."""
    config = dataclasses.replace(CONFIG, learning_rate=0.1, decay=0.01)
    start = first / "memory.npz"  # after one epoch
    train(tmp_path, latents, 4, start, config)
    rates = [line["learning_rate"] for line in metrics(tmp_path)]
    np.testing.assert_allclose(rates, [0.1, 0.01, 0.001], rtol=1e-6)
    parts = tmp_path / "parts"
    shutil.copytree(tmp_path, parts, ignore=lambda *_: ["parts"])
    train(parts, latents, 7, start, config)
    rates = [line["learning_rate"] for line in metrics(parts)][3:]
    np.testing.assert_allclose(rates, 0.1 * 0.01 ** (np.array([3, 4, 5]) / 5), rtol=1e-6)


def test_what_is_trained_enough_is_left_alone(latents: list[Path], first: Path) -> None:
    written = (first / "memory.npz").read_bytes()
    memory = train(first, latents, 1)
    assert (first / "memory.npz").read_bytes() == written
    assert int(memory.optimizer.iterations) == 4


def test_a_later_round_has_its_own_learning_rate(
    latents: list[Path], first: Path, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, learning_rate=1e-5)
    start = first / "memory.npz"
    later = train(tmp_path / "later", latents, 2, start=start, config=config)
    assert float(later.optimizer.learning_rate) == pytest.approx(1e-5)
    before = Memory(2, 3, 8)
    checkpoint.restore(start, before, weights_only=True)
    changes = [
        np.abs(one - other).max()
        for one, other in zip(before.get_weights(), later.get_weights(), strict=True)
    ]
    assert 0.0 < max(changes) < 1e-3


def test_nan_stops_and_keeps_the_last_good_weights(
    latents: list[Path], first: Path, tmp_path: Path
) -> None:
    shutil.copytree(first, tmp_path, dirs_exist_ok=True)
    good = (tmp_path / "memory.npz").read_bytes()
    bad = tmp_path / "episode-000009.npz"
    nan = np.full(5, np.nan, np.float32)
    moments = np.zeros((6, 2), np.float32)
    episode = LatentEpisode(moments, moments, np.zeros((5, 3), np.float32), nan, True, False, "")
    write_latents(bad, episode, TASK)
    with pytest.raises(RunFailed, match=r"at step .* of epoch 1; the checkpoint holds"):
        train(tmp_path, [*latents, bad], 3)
    assert (tmp_path / "memory.npz").read_bytes() == good
    with pytest.raises(RunFailed, match=r"became nan at step \d+ of epoch 0$"):  # nothing is kept
        train(tmp_path / "anew", [bad] * 4, 3)


def test_weights_that_the_last_step_ruins_are_not_kept(
    latents: list[Path], first: Path, tmp_path: Path
) -> None:
    """The loss of an epoch's only step is that of the weights before it, and finite."""
    config = dataclasses.replace(CONFIG, batch_size=64)
    object.__setattr__(config, "learning_rate", 1e39)  # which nobody may ask for
    with pytest.raises(RunFailed, match=r"became NaN or infinite at the last step of epoch 1$"):
        train(tmp_path, latents, 2, start=first / "memory.npz", config=config)
    assert not (tmp_path / "memory.npz").exists()


def test_damaged_data_are_named(latents: list[Path], tmp_path: Path) -> None:
    bad = tmp_path / "episode-000004.npz"
    bad.write_bytes(b"damaged")
    with pytest.raises(DamagedFile, match=r"episode-000004.npz: damaged"):
        train(tmp_path, [*latents, bad], 1)
    assert not (tmp_path / "memory.npz").exists()


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The limit on file sizes stands for the full disk; the one of these finds room to begin."""
    resource = pytest.importorskip("resource", reason="needs POSIX limits")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for most in (10, 100):
        with pytest.raises(RunFailed, match=f"^cannot write {tmp_path}: File too large$"):
            try:
                resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
                with Log(tmp_path) as log:
                    log.write(0, loss=1.0)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_no_data_are_no_training(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train-memory: there is less data"):
        train(tmp_path, [], 1)
    assert not (tmp_path / "memory.npz").exists()


def test_vision_is_trained_on_episodes(tmp_path: Path) -> None:
    """A little of the real V: one step of one batch, from disk to checkpoint."""
    task = get_task("car_racing")
    generator = np.random.default_rng(1)
    episode = Episode(
        generator.integers(0, 256, (5, 64, 64, 3), np.uint8), np.zeros((4, 3), np.float32),
        np.zeros(4, np.float32), True, False, False, 1, "random",
    )  # fmt: skip
    path = episode_path(tmp_path, 0)
    write_episode(path, episode, task)
    config = VisionConfig(batch_size=4, precision="float32")
    vision = make_vision(task, config, seed=1)
    untrained = checkpoint.digest(vision)
    assert checkpoint.digest(make_vision(task, config, seed=1)) == untrained
    assert checkpoint.digest(make_vision(task, config, seed=2)) != untrained
    where = Places(tmp_path / "vision.npz", tmp_path / "logs")
    train_vision(vision, [path], task, config, where, seed=1, epochs=1)
    assert checkpoint.digest(vision) != untrained
    (line,) = metrics(tmp_path)
    assert {"loss", "reconstruction", "kl"} <= line.keys()
    again = make_vision(task, config, seed=1)
    held = checkpoint.restore(where.checkpoint, again)
    assert held["epochs"] == 1
    assert checkpoint.digest(again) == checkpoint.digest(vision)
    assert int(again.optimizer.iterations) == 1  # and not the call that met the end of the data
