"""The player's step, decoding and drawing: the player itself, without a display, measures them.

It runs as a process of its own, because this library never imports it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from wm_tf.bench.compare import Comparison, Goal, against_limit
from wm_tf.bench.models import export_untrained
from wm_tf.config import TASKS, Task
from wm_tf.errors import RunFailed

STEPS = 400
ROUNDS = 3
FRAME_MILLISECONDS = 20.0


def players() -> list[Comparison]:
    """Both tasks: the median and the 99th percentile."""
    with tempfile.TemporaryDirectory() as folder:
        return [line for task in TASKS.values() for line in _player(Path(folder), task)]


def _player(folder: Path, task: Task) -> list[Comparison]:
    export_untrained(folder, task)
    drives = [_drive(folder, task) for _ in range(ROUNDS)]
    return [
        against_limit(
            f"player, {task.name}: step, decode and draw at 960x720, {name}",
            "ms",
            [drive[name] for drive in drives],
            FRAME_MILLISECONDS,
            "time of a frame",
            Goal(0.5, most=True),
        )
        for name in ("p50", "p99")
    ]


def _drive(models: Path, task: Task) -> dict[str, float]:
    """Milliseconds per step of a drive, {"p50", "p99"}."""
    report = models / "report.json"
    command = [
        *(sys.executable, "-m", "player", task.name, "--headless", "--steps", str(STEPS)),
        *("--models", str(models), "--json", str(report)),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RunFailed(f"{' '.join(command)}: {done.stderr.strip()}")
    return json.loads(report.read_text())["step_ms"]
