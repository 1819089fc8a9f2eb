"""Episodes as V sees them: each frame's latent distribution, beside the actions and rewards.

The moments are kept rather than a sample, so that training draws z anew for every batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wm_tf import storage
from wm_tf.config import Task
from wm_tf.data.episodes import Episode, check_metadata, end_arrays

FORMAT_VERSION = 1


@dataclass(frozen=True)
class LatentEpisode:
    """An episode of T actions in latent space."""

    mean: np.ndarray  # float32 [T + 1, Z]
    log_variance: np.ndarray  # float32 [T + 1, Z]
    actions: np.ndarray  # float32 [T, A]
    rewards: np.ndarray  # float32 [T]
    terminated: bool
    last_frame_repeated: bool
    vision: str  # checksum of the weights of V that encoded it
    source: str = ""  # checksum of the episode's file; the first ones did not say
    end_probability: np.ndarray | None = None  # as of an `Episode`

    @property
    def steps(self) -> int:
        return len(self.actions)

    @property
    def ends(self) -> np.ndarray:
        """What M's end head learns of each action, float32 [T]."""
        if self.end_probability is not None:
            return self.end_probability
        ends = np.zeros(self.steps, np.float32)
        ends[-1] = self.terminated
        return ends


def from_episode(
    episode: Episode, mean: np.ndarray, log_variance: np.ndarray, vision: str, source: str = ""
) -> LatentEpisode:
    """Puts the moments of an episode's frames in their place."""
    return LatentEpisode(
        mean, log_variance, episode.actions, episode.rewards, episode.terminated,
        episode.last_frame_repeated, vision, source, episode.end_probability,
    )  # fmt: skip


def write_latents(path: Path, episode: LatentEpisode, task: Task) -> None:
    """Writes an encoded episode, whole or not at all."""
    metadata = {
        "kind": "latents",
        "format_version": FORMAT_VERSION,
        "task": task.name,
        "terminated": episode.terminated,
        "last_frame_repeated": episode.last_frame_repeated,
        "vision": episode.vision,
        "source": episode.source,
    }
    arrays = {
        name: getattr(episode, name) for name in ("mean", "log_variance", "actions", "rewards")
    } | end_arrays(episode.end_probability)
    storage.write_npz(path, arrays, metadata, compress=False)


def read_latents(path: Path, task: Task) -> LatentEpisode:
    """Reads what `write_latents` wrote; raises DamagedFile like `read_episode`."""
    arrays, metadata = storage.read_npz(path)
    check_metadata(path, metadata, "latents", FORMAT_VERSION, task)
    content: dict[str, Any] = {
        **arrays,
        **{name: metadata[name] for name in ("terminated", "last_frame_repeated", "vision")},
        "source": metadata.get("source", ""),
    }
    return LatentEpisode(**content)
