"""One worker process: how it starts, how long it may take, and how it leaves nothing behind.

A worker is a Pebble pool of a single process. It lives in a process group of its own, together
with what it starts (ViZDoom runs its engine as a process, which would outlive its master and keep
its shared memory), and the group goes as a whole:

* when a call takes too long or the worker dies, the parent kills the group;
* when the parent dies, a thread in the worker notices and kills the group from inside; should
  native code keep that thread from running, the kernel ends the worker a second later (Linux).
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import multiprocessing.util
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessPool

WORKER_ENVIRONMENT: Mapping[str, str] = {
    # A sum depends on how many threads share it, and the threads of several workers only get in
    # each other's way: one thread each.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TF_ENABLE_ONEDNN_OPTS": "1",  # as `wm_tf.runtime` has it: the same numbers everywhere
    "CUDA_VISIBLE_DEVICES": "",
    "SDL_VIDEODRIVER": "dummy",
    # A worker of an MPI process inherits the way into its world, and would end both by joining.
    "MPI4PY_RC_INITIALIZE": "0",
}
"""What a worker finds in its environment before it imports anything."""

_START_SECONDS = 60.0  # a worker that has not taken its call by then has hung while starting
_WATCH_SECONDS = 0.2  # how often a worker looks whether its parent is still there
_JOIN_SECONDS = 5.0

_environment_lock = threading.Lock()


class Worker:
    """A process that makes one call at a time, and is replaced when it dies or hangs.

    Args:
      timeout: seconds for one call, the imports of a process's first call included; None: no
        limit.
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._lock = threading.Lock()
        self._ended = False
        self._reply: Future[bytes] | None = None
        self._new_pool()

    def call(self, function_and_arguments: bytes) -> Any:
        """Calls a pickled (function, args, kwargs) in the process.

        Raises:
          TimeoutError: it took too long; the process was killed.
          ProcessExpired: the process died.
          Exception: whatever the function raised, with the worker's traceback as a note.
        """
        patience = None if self._timeout is None else self._timeout + _START_SECONDS
        try:
            reply = self._schedule(function_and_arguments).result(patience)
        except TimeoutError:
            self._replace()
            raise TimeoutError(
                f"no result within {self._timeout:g} s (--timeout allows more)"
            ) from None
        except Exception as failure:  # of the process: those of the function are in the reply
            self._replace()
            raise _expired(failure) from None
        value, error = pickle.loads(reply)
        if error is not None:
            raise error
        return value

    def end(self) -> None:
        """Kills the process, at once, whatever it is doing. It is not replaced."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            self._discard().join(_JOIN_SECONDS)
            if self._reply is not None:
                self._reply.cancel()  # a stopped pool leaves it open

    def _schedule(self, function_and_arguments: bytes) -> Future[bytes]:
        with self._lock:
            if self._ended:
                raise OSError("stopped")
            if not self._pool.active:  # its process died while it had nothing to do
                self._discard()
                self._new_pool()
            # Pickled by ourselves: Pebble would import what unpickling needs while it holds its
            # pipe, and would stop for good at an exception that cannot be unpickled.
            arguments = (function_and_arguments,)
            self._reply = self._pool.schedule(_answer, args=arguments, timeout=self._timeout)
            return self._reply

    def _replace(self) -> None:
        with self._lock:
            if not self._ended:
                self._discard()
                self._new_pool()

    def _new_pool(self) -> None:
        self._context = _Context()
        self._pool = ProcessPool(max_workers=1, max_tasks=0, context=self._context)

    def _discard(self) -> threading.Thread:
        self._pool.stop()
        self._context.kill()
        # In a thread, because a process that is killed while it sends its result leaves Pebble
        # waiting for the rest of it.
        joining = threading.Thread(target=self._pool.join, name="worker end", daemon=True)
        joining.start()
        return joining


class _NoLock:
    """For the pipe of a pool with one process: a lock would only outlive the one who held it."""

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        return True

    def release(self) -> None:
        pass


class _Process(SpawnProcess):
    """A spawned process in a group of its own, with the environment of a worker."""

    _context: _Context

    def start(self) -> None:
        with self._context.starting(self), _worker_environment(), _interrupt_blocked():
            super().start()

    def run(self) -> None:
        parent = multiprocessing.parent_process()
        if parent is not None and hasattr(os, "setpgid"):
            # Out of the terminal's foreground group: Ctrl-C is the parent's to handle.
            os.setpgid(0, 0)
            watch = threading.Thread(
                target=_leave_with, args=(parent.pid,), name="parent watch", daemon=True
            )
            watch.start()
            # A worker may find its pipe closed, and end, before the watch looks again.
            multiprocessing.util.Finalize(None, _kill_group, args=(os.getpid(),), exitpriority=0)
            if sys.platform == "linux":
                _end_after_parent()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        super().run()

    def terminate(self) -> None:
        """Kills the group: a handler of SIGTERM would wait for the native code that hangs."""
        if self.pid is not None and hasattr(os, "killpg"):
            _kill_group(self.pid)
        self.kill()

    @property
    def exitcode(self) -> int | None:
        # A worker never ends by itself, and Pebble would take 0 for an end that it asked for.
        code = super().exitcode
        return 1 if code == 0 else code

    def __reduce__(self) -> Any:
        state = {key: value for key, value in self.__dict__.items() if key != "_context"}
        return _rebuild_process, (state,)


def _rebuild_process(state: dict[str, Any]) -> _Process:
    process = _Process.__new__(_Process)
    process.__dict__.update(state)
    return process


class _Context(SpawnContext):
    """What Pebble starts processes and makes locks with; knows the processes it started."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._killed = False
        self._processes: list[_Process] = []

    def RLock(self) -> Any:
        return _NoLock()

    def Process(self, *args: Any, **kwargs: Any) -> _Process:  # type: ignore[override]
        process = _Process(*args, **kwargs)
        process._context = self
        return process

    @contextlib.contextmanager
    def starting(self, process: _Process) -> Iterator[None]:
        with self._lock:
            if self._killed:
                raise OSError("the worker was stopped")
            yield
            self._processes.append(process)

    def kill(self) -> None:
        """Kills every process of this context and what it started; no other will start."""
        with self._lock:
            self._killed = True
            for process in self._processes:
                process.terminate()
                process.join(_JOIN_SECONDS)


def _answer(function_and_arguments: bytes) -> bytes:
    """In the worker: makes the call; a pickled (value, None) or (None, exception)."""
    try:
        function, args, kwargs = pickle.loads(function_and_arguments)
        return pickle.dumps((function(*args, **kwargs), None))
    except BaseException as error:
        error.add_note(f"In the worker: {traceback.format_exc()}")
        return pickle.dumps((None, _portable(error)))


def _portable(error: BaseException) -> Exception:
    """The exception itself if it survives pickling, else one that says the same."""
    with contextlib.suppress(Exception):
        again = pickle.loads(pickle.dumps(error))
        if isinstance(again, Exception) and type(again) is type(error):
            return again
    plain = RuntimeError(f"{type(error).__name__}: {error}")
    plain.__notes__ = error.__notes__
    return plain


def _expired(error: Exception) -> ProcessExpired:
    code = getattr(error, "exitcode", 0)
    reason = signal.Signals(-code).name if code < 0 else f"exit status {code}" if code else error
    return ProcessExpired(f"the worker process died ({reason})", code, getattr(error, "pid", None))


@contextlib.contextmanager
def _worker_environment() -> Iterator[None]:
    """The environment of a process that is started inside; this one's is as before after it."""
    with _environment_lock:
        before = {name: os.environ.get(name) for name in WORKER_ENVIRONMENT}
        os.environ.update(WORKER_ENVIRONMENT)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


@contextlib.contextmanager
def _interrupt_blocked() -> Iterator[None]:
    """A process that is started inside is deaf to Ctrl-C from its first instruction."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # else it is started with the process, and unblocks
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_with(parent: int | None) -> None:
    """In the worker: waits for the end of the parent, then ends the group."""
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    _kill_group(os.getpgrp())
    os.kill(os.getpid(), signal.SIGKILL)


def _end_after_parent() -> None:
    """In the worker: has the kernel end it one second after its parent, whatever it is doing.

    Not at once, which would leave alone what the worker started. The signal of the parent's death
    is number 1, SIGHUP, and its handler is the C function alarm(seconds), called with the number;
    a handler in Python would wait for native code to return.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = ctypes.c_int, ctypes.c_void_p
    libc.signal.restype = ctypes.c_void_p
    libc.signal(signal.SIGHUP, ctypes.cast(libc.alarm, ctypes.c_void_p))
    set_parent_death_signal = 1
    libc.prctl(set_parent_death_signal, signal.SIGHUP)


def _kill_group(group: int) -> None:
    """Kills a process group but for this process, and removes the shared memory it leaves."""
    others = [pid for pid in _members(group) if pid != os.getpid()]
    memory = {file for pid in others if pid != group for file in _shared_memory(pid)}
    # First the names, because this process may end as soon as it misses the others; those who
    # have the memory mapped keep it while they live.
    for file in memory:
        file.unlink(missing_ok=True)
    if os.getpgrp() != group:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    for pid in others:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _members(group: int) -> list[int]:
    """The processes of a group, where the system tells (Linux)."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # pid (name) state parent group ...; the name may hold anything
            if int(stat.read_text(errors="replace").rpartition(")")[2].split()[2]) == group:
                members.append(int(stat.parent.name))
    return members


def _shared_memory(pid: int) -> set[Path]:
    """The named shared-memory objects that a process has mapped (Linux)."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
    except OSError:
        return set()
    files = (line[line.find("/") :] for line in lines)
    return {Path(file) for file in files if file.startswith("/dev/shm/")}
