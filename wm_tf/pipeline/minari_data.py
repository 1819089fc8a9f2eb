"""A run's episodes as a Minari data set, and back.

A data set holds the same arrays, bit for bit: Minari would store frames as JPEG unless told not
to. What Minari has no place for, ``policy`` and ``last_frame_repeated``, is metadata of an episode.

    <data set>/data/{metadata.json,main_data.hdf5}
    <data set>/manifest.json                         ours: the task, and the checksums of both

``minari.load_dataset("car_racing-v0")`` finds a data set of that name in the folder that the
environment variable MINARI_DATASETS_PATH names.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
from minari import EpisodeData, MinariDataset
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_dataset import parse_dataset_id
from minari.dataset.minari_storage import MinariStorage

from wm_tf.agent import action_range
from wm_tf.config import FRAME_SIZE, Task
from wm_tf.data.episodes import (
    Episode,
    episode_path,
    intact_episodes,
    mark_imported,
    read_episode,
    write_episode,
)
from wm_tf.errors import DamagedFile, UserError
from wm_tf.progress import Progress
from wm_tf.serving import manifest
from wm_tf.serving.folder import replacing
from wm_tf.storage import read_json, write_json

FORMAT_VERSION = 1


def export_data(run: Path, task: Task, out: Path, skip_corrupt: bool = False) -> Path:
    """Writes all rounds' episodes of a run, in order, as a data set.

    Args:
      run: the run's folder.
      task: its task.
      out: the data set's folder, whose name is the data set's: ``NAME-vVERSION``.
      skip_corrupt: leave damaged episodes out instead of stopping at the first.

    Returns:
      `out`.

    Raises:
      UserError: no episodes, another task's, or an `out` that exists or has no such name.
    """
    rollouts = run / "rollouts"
    there = os.path.isdir(rollouts)  # where a glob may not look it raises OSError
    paths = sorted(rollouts.glob("[0-9]*/episode-*.npz")) if there else []
    if not paths:
        raise UserError(f"{run}: holds no episodes (expected rollouts/00/episode-000000.npz)")
    if os.path.exists(out):
        raise UserError(f"{out}: exists already")
    _check_name(out.name)
    paths = intact_episodes(paths, task, skip_corrupt)
    with replacing(out) as aside, Progress("export-data", len(paths), "episodes") as progress:
        storage = _new_storage(aside.absolute() / "data", out.name, task)
        for index, path in enumerate(paths):
            episode = read_episode(path, task)
            storage.update_episodes([_buffer(episode)])
            facts = {"policy": episode.policy, "last_frame_repeated": episode.last_frame_repeated}
            storage.update_episode_metadata([facts], [index])
            progress.advance(1)
        files = manifest.checksums(aside)
        content = {"format_version": FORMAT_VERSION, "task": task.name, "files": files}
        write_json(aside / manifest.FILE_NAME, content)
    return out


def import_data(data: Path, task: Task, folder: Path) -> int:
    """Writes the episodes of a data set as a run's, all or none: the inverse of `export_data`.

    Args:
      data: the data set's folder.
      task: whose frames and actions the episodes are of.
      folder: of a round's rollouts, without episodes.

    Returns:
      How many episodes were written.

    Raises:
      UserError: no data set, one of other frames or actions, or a folder that holds episodes.
      DamagedFile: one of ours that is damaged, of another task or format version.
    """
    if any(folder.glob("episode-*.npz")):
        raise UserError(f"{folder}: holds episodes already")
    _check_files(data, task)
    with _reading(data):
        dataset = MinariDataset(data / "data")
        count = len(dataset)
        metadata = list(dataset.storage.get_episode_metadata(dataset.episode_indices))
        contents = iter(dataset)
    with replacing(folder) as aside, Progress("import-data", count, "episodes") as progress:
        for index, facts in enumerate(metadata):
            with _reading(data):
                content = next(contents)
            episode = _episode(data, index, content, facts, task)
            write_episode(episode_path(aside, index), episode, task)
            progress.advance(1)
        mark_imported(aside, count)
    return count


@contextlib.contextmanager
def _reading(data: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a damaged HDF5 file can raise anything
        raise UserError(f"{data}: not a Minari data set that can be read ({error})") from None


def _new_storage(folder: Path, name: str, task: Task) -> MinariStorage:
    storage = MinariStorage.new(
        folder,
        observation_space=gymnasium.spaces.Box(0, 255, (FRAME_SIZE, FRAME_SIZE, 3), np.uint8),
        action_space=gymnasium.spaces.Box(*action_range(task)),
        env_spec=gymnasium.spec(task.environment),
        data_format="hdf5",
        jpeg_encoding=False,
    )
    storage.update_metadata(
        {
            "dataset_id": name,
            "minari_version": minari.__version__,
            "description": f"{task.name}: frames of {FRAME_SIZE}x{FRAME_SIZE}, as wm_tf sees them",
        }
    )
    return storage


def _buffer(episode: Episode) -> EpisodeBuffer:
    """Minari's episode: `terminations` and `truncations` say of each step whether it is an end."""
    last = np.arange(episode.steps) == episode.steps - 1
    ends = episode.end_probability
    return EpisodeBuffer(
        seed=episode.seed,
        observations=episode.frames,
        actions=episode.actions,
        rewards=episode.rewards,
        terminations=last & episode.terminated,
        truncations=last & episode.truncated,
        # The first is the reset's. Minari cannot show an episode that has no such dictionary.
        infos={} if ends is None else {"end_probability": np.append(0.0, ends)},
    )


def _episode(
    data: Path, index: int, content: EpisodeData, facts: Mapping[str, Any], task: Task
) -> Episode:
    frames, actions = np.asarray(content.observations), np.asarray(content.actions)
    expected = {
        "observations": (frames, "uint8", (len(content) + 1, FRAME_SIZE, FRAME_SIZE, 3)),
        "actions": (actions, "float", (len(content), task.action_size)),
    }
    ends = (content.infos or {}).get("end_probability")
    if ends is not None:  # the reset's and each step's
        ends = np.asarray(ends)
        expected["end_probability"] = (ends, "float", (len(content) + 1,))
    for name, (array, kind, shape) in expected.items():
        if array.shape != shape or not array.dtype.name.startswith(kind):
            wanted, got = f"{kind} {list(shape)}", f"{array.dtype} {list(array.shape)}"
            raise UserError(f"{data}: episode {index}: {name}: expected {wanted}, got {got}")
    if len(content) == 0:
        raise UserError(f"{data}: episode {index}: expected at least one step, got none")
    low, high = action_range(task)
    numbers = {
        "actions": (actions, low, high, f"{low.tolist()} to {high.tolist()}"),
        "rewards": (content.rewards, -np.inf, np.inf, "finite numbers"),
    }
    if ends is not None:
        numbers["end_probability"] = (ends, 0.0, 1.0, "0 to 1")
    for name, (array, least, most, wanted) in numbers.items():
        wrong = ~(np.isfinite(array) & (array >= least) & (array <= most))
        if wrong.any():
            place, got = np.argwhere(wrong)[0].tolist(), array[wrong][0]
            raise UserError(
                f"{data}: episode {index}: {name}: expected {wanted}, got {got:g} at {place}"
            )
    return Episode(
        frames=frames,
        actions=actions.astype(np.float32),
        rewards=content.rewards.astype(np.float32),
        terminated=bool(content.terminations[-1]),
        truncated=bool(content.truncations[-1]),
        last_frame_repeated=bool(facts.get("last_frame_repeated", False)),
        seed=int(facts.get("seed", -1)),
        policy=str(facts.get("policy", "imported")),
        end_probability=None if ends is None else ends[1:].astype(np.float32),
    )


def _check_files(data: Path, task: Task) -> None:
    """Raises DamagedFile; somebody else's data set has no checksums to be compared."""
    path = data / manifest.FILE_NAME
    if not os.path.exists(path):
        return
    content = read_json(path)
    for key, expected in (("format_version", FORMAT_VERSION), ("task", task.name)):
        if content.get(key) != expected:
            raise DamagedFile(f"{path}: {key}: expected {expected!r}, got {content.get(key)!r}")
    for name, checksum in content["files"].items():
        manifest.check_file(data, name, checksum)


def _check_name(name: str) -> None:
    try:
        parse_dataset_id(name)
    except (TypeError, ValueError):  # the first where there is no version
        raise UserError(f"name of a data set: expected NAME-vVERSION, got {name!r}") from None
