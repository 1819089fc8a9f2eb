"""Encodes episodes: V's moments of every frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from wm_tf.config import Task
from wm_tf.data.episodes import read_all
from wm_tf.data.latents import from_episode, read_latents, write_latents
from wm_tf.errors import DamagedFile
from wm_tf.models import Vision
from wm_tf.progress import Progress
from wm_tf.training import checkpoint

BATCH = 250


def encode_frames(vision: Vision, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames, uint8 [N, 64, 64, 3], to (mean, log_variance), each float32 [N, Z]."""
    encode = _compiled(vision)
    padded = np.pad(frames, [(0, -len(frames) % BATCH), (0, 0), (0, 0), (0, 0)])
    moments = [encode(padded[start : start + BATCH]) for start in range(0, len(padded), BATCH)]
    mean, log_variance = (np.concatenate(part)[: len(frames)] for part in zip(*moments, strict=True))
    return mean, log_variance


def encode_episodes(
    vision: Vision,
    episodes: Sequence[Path],
    folder: Path,
    task: Task,
    skip_corrupt: bool = False,
) -> list[Path]:
    """Writes the latents of the episodes that are not yet encoded by these weights of V.

    Returns:
      The encoded episodes' files, of the same names in `folder`.
    """
    name = checkpoint.digest(vision)
    missing = [path for path in episodes if not _is_encoded(folder / path.name, task, name)]
    with Progress("encode", len(episodes), "episodes", done=len(episodes) - len(missing)) as bar:
        for path, episode in read_all(missing, task, skip_corrupt):
            mean, log_variance = encode_frames(vision, episode.frames)
            latents = from_episode(episode, mean, log_variance, name)
            write_latents(folder / path.name, latents, task)
            bar.advance()
    return [folder / path.name for path in episodes if (folder / path.name).exists()]


def _is_encoded(path: Path, task: Task, vision: str) -> bool:
    try:
        return path.exists() and read_latents(path, task).vision == vision
    except DamagedFile:
        return False


_COMPILED: dict[int, tf.types.experimental.PolymorphicFunction] = {}


def _compiled(vision: Vision) -> tf.types.experimental.PolymorphicFunction:
    if id(vision) not in _COMPILED:
        _COMPILED.clear()
        _COMPILED[id(vision)] = tf.function(vision.encode)
    return _COMPILED[id(vision)]
