"""Encodes episodes: V's moments of every frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from wm_tf import storage
from wm_tf.config import Task
from wm_tf.data.episodes import read_episode
from wm_tf.data.latents import from_episode, read_latents, write_latents
from wm_tf.models import Vision
from wm_tf.precision import compute_dtype, computing_in
from wm_tf.progress import Progress
from wm_tf.training import checkpoint

BATCH = 250


def encode_frames(vision: Vision, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames, uint8 [N, 64, 64, 3], to (mean, log_variance), each float32 [N, Z]."""
    encode = _compiled(vision)
    padded = np.pad(frames, [(0, -len(frames) % BATCH), (0, 0), (0, 0), (0, 0)])
    moments = [encode(padded[start : start + BATCH]) for start in range(0, len(padded), BATCH)]
    mean, log_variance = (np.concatenate(part) for part in zip(*moments, strict=True))
    return mean[: len(frames)], log_variance[: len(frames)]


def encode_episodes(
    vision: Vision, episodes: Sequence[Path], encoded: Sequence[Path], task: Task
) -> None:
    """Writes the latents of the episodes that these weights of V have not encoded yet.

    Convolutions are computed in bfloat16 where the processor gains from it: that changes a mean by
    a two-hundredth of the noise which latents are sampled with.

    Args:
      vision: V.
      episodes: what to encode.
      encoded: where to, one file for each episode.
      task: of the episodes.

    Raises:
      DamagedFile: an episode or what is encoded of it is damaged or of another task.
    """
    name = checkpoint.digest(vision)
    pairs = zip(episodes, encoded, strict=True)
    missing = [pair for pair in pairs if not _is_encoded(*pair, task, name)]
    encoder = computing_in(vision, compute_dtype("auto")) if missing else vision
    with Progress("encode", len(episodes), "episodes", done=len(episodes) - len(missing)) as bar:
        for source, target in missing:
            episode = read_episode(source, task)
            mean, log_variance = encode_frames(encoder, episode.frames)
            latents = from_episode(episode, mean, log_variance, name, storage.stamp(source))
            write_latents(target, latents, task)
            bar.advance()


def _is_encoded(episode: Path, encoded: Path, task: Task, vision: str) -> bool:
    if not encoded.exists():
        return False
    latents = read_latents(encoded, task)
    return (latents.vision, latents.source) == (vision, storage.stamp(episode))


_COMPILED: dict[int, tf.types.experimental.PolymorphicFunction] = {}


def _compiled(vision: Vision) -> tf.types.experimental.PolymorphicFunction:
    if id(vision) not in _COMPILED:
        _COMPILED.clear()
        _COMPILED[id(vision)] = tf.function(vision.encode, autograph=False)
    return _COMPILED[id(vision)]
