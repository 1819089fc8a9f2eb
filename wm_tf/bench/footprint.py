"""How much memory processes take (Linux)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from wm_tf.bench.compare import Comparison, Goal, against_limit
from wm_tf.config import FRAME_SIZE, TASKS, Task
from wm_tf.data.episodes import Episode, episode_path, write_episode
from wm_tf.errors import RunFailed, UserError
from wm_tf.seeding import Purpose, generator

STEPS = 1000
"""Of an episode."""
AMOUNTS = (100_000, 1_000_000)
TRAINED_FRAMES = 25_000
"""Of all amounts: one frame in so many is trained on, while all of them are read."""
DISTINCT = 10
"""Episodes that differ; the others are links to them."""
GIGABYTE = 1e9
LIMIT = 3.0
_POLL_SECONDS = 0.1


def training() -> list[Comparison]:
    """Peak memory of both trainings over two amounts of frames; takes half an hour."""
    task = TASKS["car_racing"]
    lines = []
    for frames in AMOUNTS:
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder)
            write_episodes(run / "rollouts" / "00", task, frames // STEPS)
            stride = str(max(1, frames // TRAINED_FRAMES))
            for command in (("train-vision", "--frame-stride", stride), ("train-memory",)):
                peak = peak_memory(command[0], task.name, "--run", folder, *_EPOCH, *command[1:])
                lines.append(
                    against_limit(
                        f"peak memory of {command[0]} over {frames:,} frames",
                        "GB",
                        [peak / GIGABYTE],
                        LIMIT,
                        "limit",
                        Goal(1.0, most=True),
                    )
                )
    return lines


_EPOCH = ("--epochs", "1")


def write_episodes(folder: Path, task: Task, count: int, distinct: int = DISTINCT) -> list[Path]:
    """Writes made-up episodes of `STEPS` steps, whose frames compress about as real ones do."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [episode_path(folder, index) for index in range(count)]
    for index, path in enumerate(paths):
        if index < distinct:
            write_episode(path, _episode(task, index), task)
        else:
            os.link(paths[index % distinct], path)
    return paths


def peak_memory(*arguments: str) -> int:
    """Runs a command of this package; the most memory it had, in bytes.

    Raises:
      RunFailed: the command failed.
      UserError: this system does not tell.
    """
    _peak("self")  # before minutes of work, if this system does not tell
    peak = 0
    command = [sys.executable, "-m", "wm_tf", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            # The kernel keeps the highest value, which an end between two looks hides at worst.
            # (What `wait4` tells would count this process's own memory, from before `exec`.)
            with contextlib.suppress(UserError):
                peak = max(peak, _peak(process.pid))
            time.sleep(_POLL_SECONDS)
    if process.returncode:
        raise RunFailed(f"{' '.join(command)} ended with exit status {process.returncode}")
    return peak


def _peak(process: int | str) -> int:
    """The most memory that a process has had, in bytes; raises UserError where unknown."""
    return 1024 * _kilobytes(f"/proc/{process}/status", "VmHWM")


def private_memory() -> int:
    """Memory that this process shares with no other, in bytes; raises UserError where unknown."""
    place = "/proc/self/smaps_rollup"
    return 1024 * sum(_kilobytes(place, name) for name in ("Private_Clean", "Private_Dirty"))


def _kilobytes(path: str, name: str) -> int:
    try:
        for line in Path(path).read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    except OSError:
        pass
    raise UserError(f"{path}: this system does not tell {name}")


def _episode(task: Task, seed: int) -> Episode:
    """Stripes of one colour on another, that move: random pixels would not compress."""
    random = generator(seed, Purpose.BENCHMARK)
    shift = np.arange(STEPS + 1)[:, None, None]
    rows, columns = np.mgrid[:FRAME_SIZE, :FRAME_SIZE]
    stripes = (rows + 2 * columns + shift + 7 * seed) // 9 % 4 == 0
    frames = np.where(stripes[..., None], [102, 102, 102], [102, 204, 102]).astype(np.uint8)
    frames += random.integers(0, 3, (STEPS + 1, FRAME_SIZE, 1, 1), np.uint8)
    return Episode(
        frames=frames,
        actions=random.uniform(-1, 1, (STEPS, task.action_size)).astype(np.float32),
        rewards=random.normal(size=STEPS).astype(np.float32),
        terminated=False,
        truncated=True,
        last_frame_repeated=False,
        seed=seed,
        policy="random",
    )
