"""ViZDoom's engine: whatever ends it or its process, none stays behind."""

import mmap
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from wm_tf.envs.doom_engine import DoomEngine
from wm_tf.envs.take_cover import TakeCoverEnv
from wm_tf.errors import RunFailed
from wm_tf.execution import LocalExecutor, map_chunks

pytest.importorskip("vizdoom")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="engines are supervised on POSIX alone")

STAY = np.zeros(1, np.float32)


@pytest.fixture(scope="module")
def env() -> Iterator[TakeCoverEnv]:
    """One for all tests: a reset begins anew, also after a close."""
    made = TakeCoverEnv()
    yield made
    made.close()


def engine_of(env: TakeCoverEnv) -> DoomEngine:
    assert env._engine is not None
    return env._engine


def play(env: TakeCoverEnv, seed: int) -> list[bytes]:
    """The first frames of an episode."""
    env.reset(seed=seed)
    return [env.step(STAY)[0].tobytes() for _ in range(60)]


def processes(words: str) -> list[int]:
    """Ids of the living processes that have these words in their command line."""
    listing = subprocess.run(
        ["ps", "-axww", "-o", "pid=,args="], capture_output=True, text=True, check=True
    )
    return [int(line.split()[0]) for line in listing.stdout.splitlines() if words in line]


def leftovers(instance: str, *folders: Path) -> list[object]:
    """What is there of the engine with that instance id, and in the folders."""
    shared = Path("/dev/shm").glob(f"*{instance}") if sys.platform == "linux" else ()
    files = (path for folder in folders for path in folder.iterdir())
    return [*processes(instance), *shared, *files]


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def stop_engine(instance: str) -> None:
    """SIGSTOP to the engine itself, as if it hung."""
    for process in processes(instance):
        arguments = subprocess.run(
            ["ps", "-ww", "-o", "args=", "-p", str(process)], capture_output=True, text=True
        ).stdout
        if "doom_supervisor" not in arguments:
            os.kill(process, signal.SIGSTOP)
            return
    raise AssertionError("no engine")


def test_close_leaves_nothing(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path_factory.mktemp("with a space")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    env = TakeCoverEnv()
    env.reset(seed=1)
    instance = engine_of(env).game.get_instance_id()
    assert len(processes(instance)) == 2
    assert any(scratch.iterdir())
    env.step(STAY)
    env.close()
    assert leftovers(instance, tmp_path, scratch) == []
    env.close()


def test_close_of_a_hung_engine_does_not_hang(env: TakeCoverEnv) -> None:
    env.reset(seed=1)
    instance = engine_of(env).game.get_instance_id()
    stop_engine(instance)
    start = time.monotonic()
    env.close()
    assert time.monotonic() - start < 2
    assert leftovers(instance) == []


def test_a_killed_engine_is_an_error_and_the_next_reset_starts_another(env: TakeCoverEnv) -> None:
    expected = play(env, 5)
    env.reset(seed=1)
    instance = engine_of(env).game.get_instance_id()
    for process in processes(instance):
        os.kill(process, signal.SIGKILL)
    with pytest.raises(RunFailed, match="the ViZDoom engine ended"):
        env.step(STAY)
    assert play(env, 5) == expected
    assert leftovers(instance) == []


def test_an_engine_that_does_not_start_is_an_error_and_leaves_nothing(
    env: TakeCoverEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env.close()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "no python"))
    with pytest.raises(RunFailed, match="no python may not be run"):
        env.reset(seed=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="shared memory is seen on Linux alone")
def test_the_next_engine_removes_what_dead_processes_left(
    env: TakeCoverEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env.close()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead = subprocess.Popen(["true"])
    dead.wait()
    names = (f"{dead.pid}_old", f"{os.getpid()}_old", f"{dead.pid}_new")
    folders = [tmp_path / f"wm_tf_doom_{name}" for name in names]
    unused = [Path(f"/dev/shm/ViZDoomMQCtr{dead.pid}{age}") for age in ("old", "new")]
    mapped = Path(f"/dev/shm/ViZDoomSM{dead.pid}old")
    for folder in folders:
        folder.mkdir()
    for file in (*unused, mapped):
        file.write_bytes(b"0")
    with mapped.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), 1)
    try:
        for path in (*folders[:2], unused[0], mapped):
            os.utime(path, (time.time() - 120,) * 2)
        env.reset(seed=1)
        exist = [path.exists() for path in (*folders, *unused, mapped)]
        assert exist == [False, True, True, False, True, True]
    finally:
        env.close()
        memory.close()
        for path in (*unused, mapped):
            path.unlink(missing_ok=True)


def play_for_ever(sender: Connection) -> None:
    """Work of a process that is going to be killed: sends its engine's id, then plays."""
    env = TakeCoverEnv()
    env.reset(seed=1)
    sender.send(engine_of(env).game.get_instance_id())
    while True:
        if any(env.step(STAY)[2:4]):
            env.reset()
        sender.send("alive")


def test_killing_the_process_ends_its_hung_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    worker = context.Process(target=play_for_ever, args=(sender,))
    worker.start()
    try:
        sender.close()
        assert receiver.poll(60)
        instance = receiver.recv()
        assert len(processes(instance)) == 2
        stop_engine(instance)
        while receiver.poll(1):  # what was sent before
            receiver.recv()
        assert worker.is_alive(), "the engine's stop should have made it wait"
    finally:
        worker.kill()
        worker.join()
    assert wait_until(lambda: not leftovers(instance, tmp_path)), leftovers(instance, tmp_path)


def play_and_hang_once(chunk: tuple[int, str]) -> list[bytes]:
    """Work of an executor's process: an episode, whose engine hangs the first time."""
    seed, marker = chunk
    env = TakeCoverEnv()
    env.reset(seed=1)
    try:
        with open(marker, "x") as file:
            instance = engine_of(env).game.get_instance_id()
            file.write(instance)
    except FileExistsError:
        pass
    else:
        stop_engine(instance)
    result = play(env, seed)
    env.close()
    return result


def test_the_executor_notices_a_hung_engine_and_plays_its_episode_again(
    env: TakeCoverEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    marker = tmp_path / "instance"
    expected = play(env, 5)
    monkeypatch.setenv("TMPDIR", str(scratch))
    with LocalExecutor(workers=1, timeout=6) as executor:
        results = map_chunks(executor, play_and_hang_once, [(5, str(marker))])
    assert results == [expected]
    instance = marker.read_text()
    assert wait_until(lambda: not leftovers(instance, scratch)), leftovers(instance, scratch)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_leave_nothing(tmp_path: Path, number: signal.Signals) -> None:
    script = (
        "from wm_tf.envs.take_cover import make; env = make(); env.reset(seed=1);"
        "print(env._engine.game.get_instance_id(), flush=True)\n"
        "while True:\n"
        "    if any(env.step([0.0])[2:4]): env.reset()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        instance = process.stdout.readline().strip()
        assert len(processes(instance)) == 2
        os.killpg(process.pid, number)  # what a terminal does for Ctrl-C
        _, errors = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -number
    assert "Exception ignored" not in errors
    assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)
    assert wait_until(lambda: not leftovers(instance, tmp_path)), leftovers(instance, tmp_path)
