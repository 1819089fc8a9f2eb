"""Training batches streamed from episodes on disk: memory does not grow with the data.

Both streams read the episodes of an epoch in a shuffled order, fill a pool of bounded size, shuffle
the pool and cut it into batches. An epoch's batches depend on (seed, epoch) and the episodes alone.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from wm_tf.config import FRAME_SIZE, MemoryConfig, Task, VisionConfig
from wm_tf.data.episodes import read_episode
from wm_tf.data.latents import LatentEpisode, read_latents
from wm_tf.errors import DamagedFile
from wm_tf.seeding import Purpose, generator

FRAME_POOL = 12_000
"""Frames shuffled together (150 MB)."""
SEQUENCE_POOL = 2_000
"""Sequences shuffled together."""

Sequences = dict[str, np.ndarray]


def frame_batches(
    paths: Sequence[Path],
    task: Task,
    config: VisionConfig,
    *,
    seed: int,
    epoch: int,
) -> tf.data.Dataset:
    """One epoch of frames for V: uint8 [batch_size, 64, 64, 3]; a last part of a batch is left out.

    A damaged episode ends it with an error of TensorFlow's, see `damage_in`.
    """
    shape = tf.TensorSpec((config.batch_size, FRAME_SIZE, FRAME_SIZE, 3), tf.uint8)

    def batches() -> Iterator[np.ndarray]:
        random = generator(seed, Purpose.VISION, epoch)
        pool: list[np.ndarray] = []
        for index in random.permutation(len(paths)):
            episode = read_episode(paths[index], task)
            offset = random.integers(config.frame_stride)
            # A copy, because a view would keep the whole episode in memory.
            pool.append(episode.frames[offset :: config.frame_stride].copy())
            if sum(map(len, pool)) >= FRAME_POOL:
                pool = [(yield from _cut(_shuffled(pool, random), config.batch_size))]
        if pool:
            yield from _cut(_shuffled(pool, random), config.batch_size)

    return tf.data.Dataset.from_generator(batches, output_signature=shape).prefetch(2)


def sequence_batches(
    paths: Sequence[Path], task: Task, config: MemoryConfig, *, seed: int, epoch: int
) -> tf.data.Dataset:
    """One epoch of sequences for M: (inputs, targets) as `wm_tf.models.Memory` takes them.

    Each episode is cut at a random offset into sequences of `sequence_length` steps; what is
    missing at its ends is padded and masked. z is sampled from V's moments anew in every epoch.
    """
    batch, length = config.batch_size, config.sequence_length
    steps = tf.TensorSpec((batch, length), tf.float32)
    latents = tf.TensorSpec((batch, length, task.latent_size), tf.float32)
    actions = tf.TensorSpec((batch, length, task.action_size), tf.float32)
    signature = (
        {"latent": latents, "action": actions},
        {
            "next_latent": latents,
            **dict.fromkeys(("reward", "done", "mask", "latent_mask"), steps),
        },
    )

    def batches() -> Iterator[tuple[Sequences, Sequences]]:
        random = generator(seed, Purpose.MEMORY, epoch)
        pool: list[Sequences] = []
        for index in random.permutation(len(paths)):
            pool += cut_sequences(read_latents(paths[index], task), length, random)
            if len(pool) >= SEQUENCE_POOL:
                random.shuffle(pool)  # type: ignore[arg-type]
                while len(pool) >= batch:
                    yield _stack(pool[:batch], signature)
                    pool = pool[batch:]
        random.shuffle(pool)  # type: ignore[arg-type]
        for start in range(0, len(pool), batch):
            part = pool[start : start + batch]
            nothing = {name: np.zeros_like(array) for name, array in part[0].items()}
            yield _stack(part + [nothing] * (batch - len(part)), signature)

    return tf.data.Dataset.from_generator(batches, output_signature=signature).prefetch(2)


def cut_sequences(
    episode: LatentEpisode, length: int, random: np.random.Generator
) -> list[Sequences]:
    """An episode's steps as padded sequences of `length`, cut at a random offset."""
    normal = random.standard_normal(episode.mean.shape, np.float32)
    latent = episode.mean + np.exp(0.5 * episode.log_variance) * normal
    steps = episode.steps
    latent_mask = np.ones(steps, np.float32)
    latent_mask[-1] = not episode.last_frame_repeated
    columns = {
        "latent": latent[:-1],
        "action": episode.actions,
        "next_latent": latent[1:],
        "reward": episode.rewards,
        "done": episode.ends,
        "mask": np.ones(steps, np.float32),
        "latent_mask": latent_mask,
    }
    first = int(random.integers(1, length + 1))
    edges = [0, *range(first, steps, length), steps] if first < steps else [0, steps]
    return [
        {name: _pad(column[start:end], length) for name, column in columns.items()}
        for start, end in itertools.pairwise(edges)
    ]


def damage_in(error: tf.errors.OpError) -> DamagedFile | None:
    """The DamagedFile that ended a stream, which TensorFlow reports as an error of its own."""
    found = re.search(rf"\b{DamagedFile.__name__}: (.*)", error.message)
    return DamagedFile(found[1]) if found else None


def _pad(array: np.ndarray, length: int) -> np.ndarray:
    padded = np.zeros((length, *array.shape[1:]), np.float32)
    padded[: len(array)] = array
    return padded


def _stack(sequences: list[Sequences], signature: tuple[dict, dict]) -> tuple[Sequences, Sequences]:
    inputs, targets = (
        {name: np.stack([sequence[name] for sequence in sequences]) for name in part}
        for part in signature
    )
    return inputs, targets


def _shuffled(pool: list[np.ndarray], random: np.random.Generator) -> np.ndarray:
    frames = np.concatenate(pool)
    return frames[random.permutation(len(frames))]


def _cut(frames: np.ndarray, size: int) -> Generator[np.ndarray, None, np.ndarray]:
    """Yields whole batches; returns the frames that are left over."""
    whole = len(frames) - len(frames) % size
    for start in range(0, whole, size):
        yield frames[start : start + size]
    return frames[whole:].copy()
