"""Episodes on disk: one compressed, self-checking file each.

An episode of T actions holds T + 1 frames: frame t is what was seen before action t. `terminated`
and `truncated` are kept apart: only the first is an end that M learns; where the environment
knows how likely each action was to end the episode, M learns that.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wm_tf import storage
from wm_tf.config import FRAME_SIZE, Task
from wm_tf.errors import DamagedFile, UserError

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Episode:
    """What happened in one episode of a real environment."""

    frames: np.ndarray  # uint8 [T + 1, 64, 64, 3], RGB
    actions: np.ndarray  # float32 [T, A]
    rewards: np.ndarray  # float32 [T]; rewards[t] follows actions[t]
    terminated: bool
    truncated: bool
    last_frame_repeated: bool  # the environment gave no frame after the last action
    seed: int
    policy: str
    end_probability: np.ndarray | None = None
    """Float32 [T], of each action, as the environment knows it; None: it does not."""

    @property
    def steps(self) -> int:
        return len(self.actions)


FIRST_DRIVEN = 900_000
"""Index of the first episode that a person drove; collected ones count from 0."""
_IMPORTED = "imported.json"


def episode_path(folder: Path, index: int) -> Path:
    """Where episode `index` of a folder is."""
    return folder / f"episode-{index:06d}.npz"


def episode_paths(folder: Path) -> list[Path]:
    """The episodes of a folder, in order.

    Raises:
      UserError: there are none.
    """
    paths = sorted(folder.glob("episode-*.npz"))
    if not paths:
        raise UserError(f"{folder}: holds no episodes (expected episode-000000.npz and so on)")
    return paths


def write_episode(path: Path, episode: Episode, task: Task) -> None:
    """Writes an episode, whole or not at all."""
    metadata = {
        "kind": "episode",
        "format_version": FORMAT_VERSION,
        "task": task.name,
        "terminated": episode.terminated,
        "truncated": episode.truncated,
        "last_frame_repeated": episode.last_frame_repeated,
        "seed": episode.seed,
        "policy": episode.policy,
    }
    arrays = {
        "frames": episode.frames,
        "actions": episode.actions.astype(np.float32),
        "rewards": episode.rewards.astype(np.float32),
        **end_arrays(episode.end_probability),
    }
    storage.write_npz(path, arrays, metadata)


def read_episode(path: Path, task: Task) -> Episode:
    """Reads what `write_episode` wrote.

    Raises:
      DamagedFile: the file is missing, damaged, of another task or of another format version.
    """
    arrays, metadata = storage.read_npz(path)
    check_metadata(path, metadata, "episode", FORMAT_VERSION, task)
    names = ("terminated", "truncated", "last_frame_repeated", "seed", "policy")
    facts: dict[str, Any] = {name: metadata[name] for name in names}
    facts["end_probability"] = arrays.get("end_probability")
    episode = Episode(arrays["frames"], arrays["actions"], arrays["rewards"], **facts)
    steps = len(episode.rewards)
    expected = {
        "frames": (steps + 1, FRAME_SIZE, FRAME_SIZE, 3),
        "actions": (steps, task.action_size),
        "end_probability": (steps,),
    }
    for name, shape in expected.items():
        if name in arrays and arrays[name].shape != shape:
            raise DamagedFile(f"{path}: {name}: expected {shape}, got {arrays[name].shape}")
    return episode


def known(end_probability: Sequence[float | None]) -> np.ndarray | None:
    """What the environment said of each action, float32 [T]; None if it did not of every one."""
    if None in end_probability:
        return None
    return np.array(end_probability, np.float32)


def end_arrays(end_probability: np.ndarray | None) -> dict[str, np.ndarray]:
    """What a file holds of it."""
    if end_probability is None:
        return {}
    return {"end_probability": end_probability.astype(np.float32)}


def read_rewards(path: Path) -> np.ndarray:
    """An episode's rewards alone, float32 [T]; see `storage.read_array`."""
    return storage.read_array(path, "rewards")


def mark_imported(folder: Path, count: int) -> None:
    """Notes that a round's first `count` episodes are no collection's."""
    storage.write_json(folder / _IMPORTED, {"episodes": count})


def collected(paths: Iterable[Path], folder: Path) -> list[Path]:
    """Those of a round's episodes, or of their latents, that were neither imported nor driven by a
    person.

    Args:
      paths: of episodes.
      folder: of the round's episodes.
    """
    mark = folder / _IMPORTED
    imported = int(storage.read_json(mark)["episodes"]) if mark.exists() else 0
    first, end = (episode_path(folder, index).name for index in (imported, FIRST_DRIVEN))
    return [path for path in paths if first <= path.name < end]


def intact_episodes(paths: Iterable[Path], task: Task, skip_corrupt: bool = False) -> list[Path]:
    """The paths, after comparing every file with its checksum.

    Args:
      paths: episodes.
      task: that they are of.
      skip_corrupt: leave damaged files out, and say on stderr how many, instead of raising.

    Raises:
      DamagedFile: the first file that is damaged or of another task or format version, unless
        `skip_corrupt`.
      UserError: all of them are.
    """
    good, bad = [], []
    for path in paths:
        try:
            check_metadata(path, storage.read_metadata(path), "episode", FORMAT_VERSION, task)
            good.append(path)
        except DamagedFile as error:
            if not skip_corrupt:
                raise
            bad.append(error)
    if bad:
        print(f"skipped {len(bad)} damaged episodes, the first: {bad[0]}", file=sys.stderr)
        if not good:
            raise UserError("no episode is left; all of them are damaged")
    return good


def check_metadata(path: Path, metadata: dict, kind: str, version: int, task: Task) -> None:
    """Raises DamagedFile if a file is not of this kind, format version and task."""
    for key, expected in (("kind", kind), ("format_version", version), ("task", task.name)):
        if metadata.get(key) != expected:
            raise DamagedFile(f"{path}: {key}: expected {expected!r}, got {metadata.get(key)!r}")
