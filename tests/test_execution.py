"""Chunks survive what happens to processes. Real processes are killed, stopped and hung here."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from wm_tf.errors import DamagedFile, RunFailed, UserError
from wm_tf.execution import (
    LocalExecutor,
    SerialExecutor,
    map_chunks,
    run_chunks,
)
from wm_tf.processes import WORKER_ENVIRONMENT

linux_only = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux /proc")
posix_only = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")

ENVIRONMENT_AT_IMPORT = dict(os.environ)


class Log:
    """A folder in which chunks note that they ran, from whatever process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def note(self, chunk: int) -> int:
        """Returns how many times the chunk has now run."""
        (self.folder / f"{chunk}-{uuid.uuid4().hex}").write_text(str(os.getpid()))
        return len(self.runs(chunk))

    def runs(self, chunk: int) -> list[Path]:
        return list(self.folder.glob(f"{chunk}-*"))

    def counts(self, chunks: int) -> list[int]:
        return [len(self.runs(chunk)) for chunk in range(chunks)]

    def wait_for(self, chunk: int) -> int:
        """Waits until the chunk runs; returns the process that it runs in."""
        while not (texts := [run.read_text() for run in self.runs(chunk)]) or not texts[0]:
            time.sleep(0.01)
        return int(texts[0])


def draw(chunk):
    """A result that depends on the chunk alone, after a time that does not."""
    seed, _ = chunk
    time.sleep(random.random() / 50)
    return np.random.default_rng(seed).normal(size=100).astype(np.float32)


def slow_square(chunk):
    log, number = chunk
    log.note(number)
    time.sleep(0.3)
    return number**2


def wait_to_be_killed(chunk):
    log, number = chunk
    if log.note(number) == 1 and number == 0:
        time.sleep(60)
    return number**2


def stop_the_first_time(chunk):
    log, number = chunk
    if log.note(number) == 1 and number == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
    return number**2


def die_while_sending_the_first_time(chunk):
    log, number = chunk
    if log.note(number) == 1 and number == 0:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return bytes(150_000_000)
    return number**2


def fail_on_three(chunk):
    log, number = chunk
    log.note(number)
    if number == 3:
        raise ArithmeticError("loss is NaN")
    return number


def refuse(chunk):
    log, number = chunk
    log.note(number)
    raise DamagedFile("rollouts/episode-000003.npz: damaged")


class Unportable(Exception):
    def __init__(self, left, right):
        super().__init__(f"{left}, {right}")


def raise_unportable(_):
    raise Unportable("one", "two")


def return_lock(_):
    return threading.Lock()


def leave(_):
    os._exit(0)


def process(_):
    time.sleep(0.05)
    return os.getpid()


def environment(_):
    return {name: ENVIRONMENT_AT_IMPORT.get(name) for name in WORKER_ENVIRONMENT}


def hold_the_interpreter(_):
    return 3 ** (10**9)  # minutes in which no other thread of the process runs, nor a handler


engines: list[subprocess.Popen[bytes]] = []


def keep_engine(folder):
    engines.append(start_engine(folder))


def wait_for_engine(folder):
    start_engine(folder).wait()


def start_engine(folder):
    """Starts a process with named shared memory, as ViZDoom does."""
    code = (
        "import mmap, os, pathlib, sys, time\n"
        "file = open(f'/dev/shm/test-engine-{os.getpid()}', 'w+b'); file.truncate(4096)\n"
        "memory = mmap.mmap(file.fileno(), 4096)\n"
        "pathlib.Path(sys.argv[1], 'engine').write_text(str(os.getpid())); time.sleep(60)"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(folder)])


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path)


def wait_until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def gone(pid):
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def engine_of(folder):
    file = folder / "engine"
    assert wait_until(lambda: file.exists() and file.read_text(), 10)
    return int(file.read_text())


def engine_gone(pid):
    return gone(pid) and not Path(f"/dev/shm/test-engine-{pid}").exists()


def test_the_same_results_with_every_executor():
    chunks = [(seed, None) for seed in range(24)]
    expected = map_chunks(SerialExecutor(), draw, chunks)
    with LocalExecutor(1) as one, LocalExecutor(2) as two, ThreadPoolExecutor(4) as threads:
        for executor in (one, two, threads):
            np.testing.assert_array_equal(map_chunks(executor, draw, chunks), expected)


@posix_only
def test_a_killed_worker_costs_its_own_chunk_only(log):
    with LocalExecutor(2) as executor:
        chunks = [(log, number) for number in range(6)]
        threading.Thread(target=lambda: os.kill(log.wait_for(0), signal.SIGKILL)).start()
        assert map_chunks(executor, wait_to_be_killed, chunks) == [0, 1, 4, 9, 16, 25]
    assert log.counts(6) == [2, 1, 1, 1, 1, 1]
    assert len({run.read_text() for run in log.runs(0)}) == 2


@posix_only
def test_a_worker_killed_while_it_sends_its_result(log):
    with LocalExecutor(2) as executor:
        chunks = [(log, number) for number in range(4)]
        assert map_chunks(executor, die_while_sending_the_first_time, chunks) == [0, 1, 4, 9]
    assert log.counts(4) == [2, 1, 1, 1]


@posix_only
def test_workers_killed_at_random_times(log):
    numbers = random.Random(1)
    victims = []

    def kill() -> None:
        while len(victims) < 2:
            time.sleep(numbers.uniform(0.1, 0.5))
            last = max(log.folder.iterdir(), key=lambda run: run.stat().st_mtime, default=None)
            if last is not None and (pid := last.read_text()) and pid not in victims:
                os.kill(int(pid), signal.SIGKILL)
                victims.append(pid)

    killer = threading.Thread(target=kill)
    with LocalExecutor(2) as executor:
        killer.start()
        chunks = [(log, number) for number in range(10)]
        results = dict(run_chunks(executor, slow_square, chunks, attempts=5))
        killer.join()
    assert results == {number: number**2 for number in range(10)}


@posix_only
def test_a_worker_that_hangs_is_replaced_in_time(log):
    with LocalExecutor(2, timeout=2) as executor:
        chunks = [(log, number) for number in range(6)]
        start = time.monotonic()
        assert map_chunks(executor, stop_the_first_time, chunks) == [0, 1, 4, 9, 16, 25]
        assert time.monotonic() - start < 2 + 4  # the time-out, a worker's start and the chunk
    assert log.counts(6) == [2, 1, 1, 1, 1, 1]
    assert wait_until(lambda: all(gone(int(run.read_text())) for run in log.runs(0)), 2)


def test_a_chunk_that_always_fails_ends_the_run(log):
    chunks = [(log, number) for number in range(5)]
    with (
        LocalExecutor(2) as executor,
        pytest.raises(RunFailed, match=r"chunk of seed 3 failed 3 times.*ArithmeticError: loss"),
    ):
        map_chunks(executor, fail_on_three, chunks, describe=lambda chunk: f"of seed {chunk[1]}")
    assert log.counts(5)[3] == 3


def test_the_cause_holds_the_traceback_of_the_worker(log):
    with LocalExecutor(1) as executor, pytest.raises(ArithmeticError) as caught:
        executor.submit(fail_on_three, (log, 3)).result()
    assert "in fail_on_three" in caught.value.__notes__[0]


@pytest.mark.parametrize("make", [lambda: LocalExecutor(1), SerialExecutor])
def test_bad_input_is_not_tried_again(log, make):
    with make() as executor, pytest.raises(UserError, match=r"episode-000003\.npz"):
        map_chunks(executor, refuse, [(log, 0)])
    assert log.counts(1) == [1]


def test_odd_ends_are_reported():
    with LocalExecutor(1) as executor:
        with pytest.raises(RunFailed, match="Unportable: one, two"):
            map_chunks(executor, raise_unportable, [0], attempts=1)
        with pytest.raises(RunFailed, match="ProcessExpired: the worker process died"):
            map_chunks(executor, leave, [0], attempts=1)
        with pytest.raises(RunFailed, match="pickle"):
            map_chunks(executor, return_lock, [0], attempts=1)
        assert executor.submit(divmod, 7, 2).result() == (3, 1)


@posix_only
def test_a_worker_killed_while_idle_is_replaced():
    with LocalExecutor(1) as executor:
        first = executor.submit(process, 0).result()
        os.kill(first, signal.SIGKILL)
        (second,) = map_chunks(executor, process, [0])
    assert second != first


@posix_only
def test_workers_have_their_environment_before_they_import_anything():
    before = dict(os.environ)
    with LocalExecutor(1) as executor:
        assert executor.submit(environment, 0).result() == WORKER_ENVIRONMENT
        os.kill(executor.submit(process, 0).result(), signal.SIGKILL)
        assert map_chunks(executor, environment, [0]) == [WORKER_ENVIRONMENT]
    assert dict(os.environ) == before


@linux_only
def test_what_a_worker_started_goes_with_it(tmp_path):
    with LocalExecutor(1, timeout=3) as executor:
        future = executor.submit(wait_for_engine, tmp_path)
        engine = engine_of(tmp_path)
        assert Path(f"/dev/shm/test-engine-{engine}").exists()
        os.kill(os.getpgid(engine), signal.SIGKILL)  # the worker leads the group
        with pytest.raises(OSError, match="SIGKILL"):
            future.result()
        assert wait_until(lambda: engine_gone(engine), 5)

        (tmp_path / "engine").unlink()
        future = executor.submit(wait_for_engine, tmp_path)
        engine = engine_of(tmp_path)
        os.kill(engine, signal.SIGSTOP)
        with pytest.raises(TimeoutError, match="no result within 3 s"):
            future.result()
        assert wait_until(lambda: engine_gone(engine), 5)


SCRIPT = """
import sys, time
import test_execution as tests
from wm_tf.execution import LocalExecutor

if __name__ == "__main__":
    with LocalExecutor(2) as executor:
        executor.submit(tests.hold_the_interpreter, 0)
        executor.submit(getattr(tests, sys.argv[2]), sys.argv[1]).result()
        time.sleep(60)
"""


@contextlib.contextmanager
def parent_process(folder, function):
    """A process with two workers; its descendants are known by a mark in their environment."""
    (folder / "script.py").write_text(SCRIPT)
    mark = f"TEST_MARK={uuid.uuid4().hex}"
    name, _, value = mark.partition("=")
    environ = {**os.environ, name: value, "PYTHONPATH": str(Path(__file__).parent)}
    arguments = [sys.executable, str(folder / "script.py"), str(folder), function.__name__]
    with subprocess.Popen(
        arguments, env=environ, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as parent:
        try:
            yield parent, lambda: marked(mark)
        finally:
            for pid in marked(mark):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def marked(mark):
    """The running processes with that mark in their environment."""
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in file.read_bytes():
                found.append(int(file.parent.name))
    return found


@linux_only
@pytest.mark.parametrize("function", [wait_for_engine, keep_engine])
def test_nothing_outlives_a_killed_parent(tmp_path, function):
    with parent_process(tmp_path, function) as (parent, family):
        engine = engine_of(tmp_path)
        time.sleep(0.3)
        assert len(family()) >= 4  # the parent, two workers, the engine
        parent.kill()
        parent.wait()
        assert wait_until(lambda: not family(), 5)
        assert engine_gone(engine)
        assert "leaked" not in parent.stderr.read()


@linux_only
def test_ctrl_c_ends_parent_and_workers(tmp_path):
    with parent_process(tmp_path, wait_for_engine) as (parent, family):
        engine = engine_of(tmp_path)
        start = time.monotonic()
        os.killpg(parent.pid, signal.SIGINT)
        _, messages = parent.communicate(timeout=10)
        assert time.monotonic() - start < 5
        assert parent.returncode in (-signal.SIGINT, 130)
        assert messages.count("KeyboardInterrupt") == 1
        assert wait_until(lambda: not family(), 5)
        assert engine_gone(engine)


def test_an_exception_kills_what_runs_and_cancels_the_rest():
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), LocalExecutor(1) as executor:
        futures = [executor.submit(time.sleep, 60) for _ in range(3)]
        assert wait_until(futures[0].running, 5)
        time.sleep(0.3)
        raise KeyboardInterrupt
    assert time.monotonic() - start < 5
    assert isinstance(futures[0].exception(), OSError)
    assert futures[1].cancelled() and futures[2].cancelled()


def test_shutdown_finishes_what_was_submitted_and_leaves_nothing():
    with LocalExecutor(2) as executor:
        futures = [executor.submit(process, 0) for _ in range(4)]
    pids = {future.result() for future in futures}
    assert all(gone(pid) for pid in pids)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("worker")]
    with pytest.raises(RuntimeError, match="shut down"):
        executor.submit(process, 0)


class Held(Executor):
    """Completes the call that was submitted last whenever it holds three of them."""

    def __init__(self):
        self.held = []
        self.most = 0

    def submit(self, function, /, *args):
        future = Future()
        self.held.append((future, function, args))
        self.most = max(self.most, len(self.held))
        if len(self.held) == 3:
            threading.Timer(0.01, self.complete).start()
        return future

    def complete(self):
        for future, function, args in reversed(self.held[:]):
            self.held.remove((future, function, args))
            future.set_result(function(*args))


def test_few_chunks_are_in_flight_and_results_come_as_they_complete():
    executor = Held()
    results = list(run_chunks(executor, abs, range(0, -9, -1), in_flight=3))
    assert executor.most == 3
    assert sorted(results) == [(number, number) for number in range(9)]
    assert [index for index, _ in results[:3]] == [2, 1, 0]


def test_a_serial_run_yields_each_result_before_it_starts_the_next(log):
    chunks = [(log, number) for number in range(3)]
    for index, _ in run_chunks(SerialExecutor(), fail_on_three, chunks):
        assert sum(log.counts(3)) == index + 1


def test_leaving_the_loop_cancels_what_waits():
    begun = []

    def work(chunk):
        begun.append(chunk)
        time.sleep(0.05)

    with ThreadPoolExecutor(1) as executor:
        for _ in run_chunks(executor, work, range(100)):
            break
    assert 1 <= len(begun) < 100


@posix_only
def test_an_executor_that_breaks_as_a_whole_ends_the_run():
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor,
        pytest.raises(RunFailed, match="the executor takes no more chunks: BrokenProcessPool"),
    ):
        map_chunks(executor, leave, [0])


class Lost(Executor):
    """An executor that raises when it is given something."""

    def __init__(self, error):
        self.error = error

    def submit(self, function, /, *args, **kwargs):
        raise self.error


class ClosedClientError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (TimeoutError("No valid workers found"), RunFailed, "chunks: TimeoutError: No valid"),
        (OSError("Timed out trying to connect"), RunFailed, "chunks: OSError: Timed out"),
        (ClosedClientError("client is closed"), RunFailed, "chunks: ClosedClientError: client is"),
        (DamagedFile("golden.npz: damaged"), DamagedFile, "^golden.npz: damaged$"),
        (RunFailed("the disk is full"), RunFailed, "^the disk is full$"),
    ],
)
def test_an_executor_that_is_lost_ends_the_run_in_a_line(error, kind, message):
    with pytest.raises(kind, match=message):
        map_chunks(Lost(error), abs, [0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LocalExecutor(0), "workers: expected at least 1, got 0"),
        (lambda: LocalExecutor(1, timeout=0), "timeout: expected a positive .* got 0"),
        (lambda: map_chunks(SerialExecutor(), abs, [1], attempts=0), "attempts: .* got 0"),
        (lambda: list(run_chunks(SerialExecutor(), abs, [1], in_flight=0)), "in_flight: .* got 0"),
    ],
)
def test_numbers_that_cannot_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_no_chunks_no_results():
    assert map_chunks(SerialExecutor(), abs, []) == []
