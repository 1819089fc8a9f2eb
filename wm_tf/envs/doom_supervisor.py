"""Parent of one ViZDoom engine: ends it, stopped or hung, as soon as its user is gone.

ViZDoom starts its engine as a child of the Python process and talks to it through shared memory.
When that process is killed, nobody tells the engine, which then waits for ever, and nobody removes
its shared memory. So this program stands between the two. It starts the engine in a folder of its
own (the engine writes ``_vizdoom/`` into its working directory) and in a session of its own (so
that Ctrl-C in a terminal reaches neither), looks a few times a second whether its parent still
lives, and otherwise kills the engine. SIGTERM ends the engine at once. Whatever ends it, its files
and its shared memory are removed.

It runs as a script on nothing but the standard library, which keeps its start short:
``doom_supervisor.py PARENT_PID FOLDER ENGINE [engine's arguments]``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from types import FrameType
from typing import NoReturn

PID_FILE = "supervisor.pid"
"""File in the folder with this process's id, written once SIGTERM is obeyed."""

_SHARED_OBJECTS = ("ViZDoomMQCtr", "ViZDoomMQDoom", "ViZDoomSM")  # an instance id follows
_INTERVAL = 0.2  # seconds between two looks at the parent
_PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def main(parent: int, folder: str, command: list[str]) -> None:
    """Runs the engine until it ends, until SIGTERM, or until `parent` is no longer the parent."""
    with contextlib.suppress(OSError):  # it already leads a group
        os.setsid()
    engine = _start(folder, command)

    def stop(signal_number: int, frame: FrameType | None) -> NoReturn:
        _end(engine)
        _remove(folder, command)
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    with open(os.path.join(folder, PID_FILE), "w") as file:
        file.write(str(os.getpid()))
    while not os.waitpid(engine, os.WNOHANG)[0]:
        if os.getppid() != parent:
            _end(engine)
            break
        time.sleep(_INTERVAL)
    _remove(folder, command)


def _start(folder: str, command: list[str]) -> int:
    """Starts the engine in `folder`; returns its process id."""
    library = ctypes.CDLL(None)
    supervisor = os.getpid()
    engine = os.fork()
    if engine:
        return engine
    try:
        if sys.platform == "linux":  # should this process be killed: the kernel's own safeguard
            library.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        os.chdir(folder)
        if os.getppid() == supervisor:
            os.execv(command[0], command)
    finally:
        os._exit(127)


def _end(engine: int) -> None:
    """Kills the engine, which a stopped process cannot refuse, and waits for its end."""
    with contextlib.suppress(OSError):  # it has just ended by itself
        os.kill(engine, signal.SIGKILL)
        os.waitpid(engine, 0)


def _remove(folder: str, command: list[str]) -> None:
    """Removes the engine's files and shared memory, which its user may no longer be able to."""
    import shutil  # here alone, for a quick start

    shutil.rmtree(folder, ignore_errors=True)
    try:
        unlink = ctypes.CDLL(None).shm_unlink
    except AttributeError:  # before glibc 2.34
        unlink = ctypes.CDLL("librt.so.1").shm_unlink
    instance = command[command.index("+viz_instance_id") + 1]
    for name in _SHARED_OBJECTS:
        unlink(f"/{name}{instance}".encode())


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
