"""Real commands that are killed, and what is looked at afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from wm_tf import agent, storage

SMOKE = ("--preset", "smoke")
SLEEP = 0.2
"""Seconds."""


class Command:
    """A running command in a session of its own, whose family is known by a mark."""

    def __init__(self, *arguments: str | Path, module: str = "wm_tf", **options: object) -> None:
        self._mark = f"FAULTS_MARK={uuid.uuid4().hex}"
        name, value = self._mark.split("=")
        environment = {**os.environ, **options.pop("env", {}), name: value}  # type: ignore[dict-item]
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            env={key: text for key, text in environment.items() if text is not None},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **options,  # type: ignore[call-overload]
        )

    def family(self) -> list[int]:
        """The processes that it started and that live, itself included."""
        found = []
        for file in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if self._mark.encode() in file.read_bytes():
                    found.append(int(file.parent.name))
        return found

    def wait(self, seconds: float = 900) -> tuple[int, str]:
        """(exit status, what it said on stderr)."""
        _, errors = self.process.communicate(timeout=seconds)
        return self.process.returncode, errors

    def kill(self) -> None:
        """SIGKILL to the command alone; then nothing of it may live on for 10 s."""
        self.process.kill()
        self.process.communicate()
        assert until(lambda: not self.family(), 10), "a process was left behind"

    def end(self) -> None:
        for pid in self.family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate()


def until(condition: Callable[[], bool], seconds: float = 300) -> bool:
    """Waits until it is so; whether it is."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def children(parent: int) -> list[tuple[int, str]]:
    """The processes that a process has started: (id, command line)."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # pid (name) state parent group ...; the name may hold anything
            if int((place / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                command = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found.append((int(place.name), command))
    return found


def unsound(folder: Path) -> list[str]:
    """What of a run's files cannot be read as whole; a killed writer's own files do not count."""
    found = []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or "exports" in path.parts:
            continue
        try:
            if path.suffix == ".npz":
                storage.read_metadata(path)
            elif path.suffix == ".json":
                storage.read_json(path)
        except storage.DamagedFile as error:
            found.append(str(error))
    return found


def arrays(path: Path) -> dict[str, bytes]:
    """A file's arrays, to compare; not where the random numbers are, which every epoch sets."""
    held = storage.read_npz(path)[0]
    return {name: held[name].tobytes() for name in held if not name.startswith("random")}


def timed(chunk: agent.Chunk) -> tuple[float, list[agent.Outcome]]:
    """Plays a chunk; seconds of computing, which those of another process do not lengthen."""
    began = time.process_time()
    outcomes = agent.play(chunk)
    return time.process_time() - began, outcomes


def sleep(chunk: agent.Chunk) -> list[agent.Outcome]:
    """A chunk that only sleeps, with the arguments and the result of a real one."""
    time.sleep(SLEEP)
    return [agent.Outcome(0.0, 1000, False, True) for _ in chunk.rollouts]
