"""Workers and engines that are killed or stopped, and work in any order: the same numbers."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path

import numpy as np
import pytest
from tools import Command, children, until

from wm_tf import agent
from wm_tf.collect import collect
from wm_tf.config import CollectConfig, ControllerConfig, get_task
from wm_tf.data.episodes import episode_paths
from wm_tf.evaluate import evaluate
from wm_tf.evolution.fitness import RealFitness, play_all
from wm_tf.execution import LocalExecutor
from wm_tf.seeding import Purpose
from wm_tf.serving import manifest

CAR = get_task("car_racing")
DOOM = get_task("take_cover")
CONFIG = ControllerConfig(population=8, rollouts=8, horizon=60)
CANDIDATES = np.random.default_rng(1).normal(0.0, 0.1, (8, CAR.controller_parameters))


@pytest.fixture
def models(finished: Path) -> agent.ModelsAt:
    exports = finished / "exports"
    return agent.ModelsAt(exports, manifest.checksum(exports / "car_racing"))


def fitness(executor: Executor, models: agent.ModelsAt) -> np.ndarray:
    """A generation's, in the real environment."""
    return RealFitness(executor, CAR, models, CONFIG, seed=1)(CANDIDATES, 0).returns


def workers() -> list[int]:
    """Processes that were started as workers of this one."""
    return [pid for pid, command in children(os.getpid()) if "spawn_main" in command]


def descendants(pid: int) -> list[tuple[int, str]]:
    found = children(pid)
    return found + [other for child, _ in found for other in descendants(child)]


def test_killed_workers(models: agent.ModelsAt, seen: Callable, chance: random.Random) -> None:
    """SIGKILL of a worker in the middle of a generation (car_racing, V, M and C)

    Only its chunks run again, on a new worker: the fitness vector is the undisturbed run's, bit for
    bit, and 10 s later no process is left.
    """
    with LocalExecutor(2) as executor:
        undisturbed = fitness(executor, models)
        began = time.monotonic()
        np.testing.assert_array_equal(fitness(executor, models), undisturbed)
        usual = time.monotonic() - began
        victims = []
        for _ in range(4):
            victim = chance.choice(workers())
            delay = chance.uniform(0.1, 0.9) * usual
            killer = threading.Timer(delay, os.kill, (victim, signal.SIGKILL))
            killer.start()
            np.testing.assert_array_equal(fitness(executor, models), undisturbed)
            killer.join()
            victims.append(victim)
    assert len(set(victims)) == 4
    assert until(lambda: not workers(), 10)
    seen("4 kills: the fitness vector bitwise equal each time; no process left")


def doom_rollouts(count: int) -> list[agent.Rollout]:
    return [agent.Rollout(1, (int(Purpose.EVALUATION), index)) for index in range(count)]


def play_doom(executor: Executor, count: int) -> list[agent.Outcome]:
    return play_all(executor, doom_rollouts(count), task="take_cover", max_steps=DOOM.max_steps)


def shared_memory(instances: list[str]) -> list[Path]:
    """What engines of these ids have left."""
    return [
        file for file in Path("/dev/shm").glob("ViZDoom*") if file.name.endswith(tuple(instances))
    ]


def instance_ids(processes: list[tuple[int, str]]) -> list[str]:
    return [
        command.split("+viz_instance_id ")[1].split()[0]
        for _, command in processes
        if "+viz_instance_id " in command
    ]


def running_engines() -> list[int]:
    """Those of all workers; neither their supervisors nor the shells before them."""
    found = [process for worker in workers() for process in descendants(worker)]
    return [
        pid
        for pid, command in found
        if command.partition(" ")[0].endswith("/vizdoom") and "+viz_instance_id" in command
    ]


def test_killed_workers_with_engines(seen: Callable, chance: random.Random) -> None:
    """SIGKILL of a worker with 8 engines (take_cover)

    The same outcomes; 10 s later neither an engine nor its shared memory is left.
    """
    pytest.importorskip("vizdoom")
    with LocalExecutor(2) as executor:
        undisturbed = play_doom(executor, 16)
        victim = chance.choice(workers())
        family = descendants(victim)
        engines = instance_ids(family)
        assert engines and shared_memory(engines)
        killer = threading.Timer(chance.uniform(0.0, 0.5), os.kill, (victim, signal.SIGKILL))
        killer.start()
        assert play_doom(executor, 16) == undisturbed
        killer.join()
        family += [other for worker in workers() for other in descendants(worker)]
        engines = instance_ids(family)
    began = time.monotonic()
    assert until(lambda: not any(Path(f"/proc/{pid}").exists() for pid, _ in family), 10)
    assert until(lambda: not shared_memory(engines), 10)
    seen(
        f"the same outcomes; {len(set(engines))} engines and their shared memory gone "
        f"{time.monotonic() - began:.1f} s after the end"
    )


def test_hanging_engine(seen: Callable) -> None:
    """SIGSTOP of an engine in the middle of a chunk (take_cover)

    Found by the time-out, killed, and its chunk run again: all done within the time-out, one start
    of a worker and one chunk.
    """
    pytest.importorskip("vizdoom")
    with LocalExecutor(1) as executor:
        began = time.monotonic()
        undisturbed = play_doom(executor, 4)
        start_and_chunk = time.monotonic() - began
    timeout = max(10.0, 2.0 * start_and_chunk)
    with LocalExecutor(1, timeout) as executor:
        stopped: list[int] = []

        def stop() -> None:
            assert until(lambda: len(running_engines()) == 4, 60)
            stopped.append(running_engines()[0])
            os.kill(stopped[0], signal.SIGSTOP)

        stopper = threading.Thread(target=stop)
        began = time.monotonic()
        stopper.start()
        assert play_doom(executor, 4) == undisturbed
        took = time.monotonic() - began
        stopper.join()
    allowed = timeout + 1.5 * start_and_chunk + 2.0
    assert timeout < took < allowed
    assert not Path(f"/proc/{stopped[0]}").exists()
    seen(
        f"time-out {timeout:.1f} s, worker start + chunk {start_and_chunk:.1f} s: done in "
        f"{took:.1f} s, the same outcomes"
    )


def test_a_chunk_that_fails_every_time(
    tmp_path: Path, start: Callable[..., Command], seen: Callable
) -> None:
    """A chunk that fails every time: an episode cannot be written

    After 3 tries the run stops with the chunk, its seed and the error.
    """
    run = tmp_path / "run"
    (run / "rollouts").mkdir(parents=True)
    (run / "rollouts" / "00").write_text("not a folder")
    status, errors = start(
        *("collect", "car_racing", "--episodes", "2", "--workers", "1", "--run", run)
    ).wait()
    *_, line = errors.splitlines()
    assert status == 1
    assert "Traceback" not in errors
    for part in ("chunk car_racing: seed 1, rollouts (1, 0, 0)", "failed 3 times", "cannot write"):
        assert part in line
    seen(f"exit status 1: {line.replace(str(tmp_path), '')}")


class Reversed(Executor):
    """Gives the results of another executor in the opposite order."""

    def __init__(self, executor: LocalExecutor, calls: int) -> None:
        self.workers = executor.workers
        self._executor = executor
        self._held: list[tuple[Future, Future]] = []
        self._calls = calls

    def submit(self, function: Callable, /, *args: object) -> Future:
        outer: Future = Future()
        self._held.append((outer, self._executor.submit(function, *args)))
        if len(self._held) == self._calls:
            for outer_future, inner in reversed(self._held):
                outer_future.set_result(inner.result())
            self._held.clear()
        return outer


def test_workers_and_order(
    models: agent.ModelsAt, tmp_path: Path, seen: Callable[[str], None]
) -> None:
    """1, 2 or 4 workers; any order of completion; chunks of 1 to 24 rollouts

    The same fitness, episodes and scores, bit for bit.
    """
    task = dataclasses.replace(CAR, max_steps=60)
    vectors, scores, episodes = [], [], []
    for count in (1, 2, 4):
        with LocalExecutor(count) as executor:
            vectors.append(fitness(executor, models).tolist())
            scores.append(
                evaluate(
                    executor, "car_racing", models.folder, env="real", episodes=3, seed=5,
                    frames="fast",
                )["returns"]
            )  # fmt: skip
            folder = tmp_path / str(count)
            collect(
                executor, task, folder, CollectConfig(episodes=7), seed=1, models=models,
                controllers=[CANDIDATES[0], CANDIDATES[1]],
            )  # fmt: skip
            episodes.append([path.read_bytes() for path in episode_paths(folder)])
            if count == 2:
                vectors.append(fitness(Reversed(executor, calls=2), models).tolist())
    assert all(vector == vectors[0] for vector in vectors)
    assert all(score == scores[0] for score in scores)
    assert all(held == episodes[0] for held in episodes)
    with LocalExecutor(2) as executor:
        rollouts = [
            agent.Rollout(1, (int(Purpose.FITNESS), 0, index), candidate.astype(np.float32))
            for index, candidate in enumerate(np.repeat(CANDIDATES, 3, axis=0))
        ]
        outcomes = {}
        for size in (24, 16, 5, 1):
            work = agent.chunks(rollouts, size, task="car_racing", max_steps=60, models=models)
            outcomes[size] = [
                outcome for future in [executor.submit(agent.play, chunk) for chunk in work]
                for outcome in future.result()
            ]  # fmt: skip
    assert outcomes[24] == outcomes[16] == outcomes[5] == outcomes[1]
    seen(
        "fitness (64 rollouts), evaluation scores and the bytes of recorded episodes equal with "
        "1, 2 and 4 workers, in reversed order, and in chunks of 24, 16, 5 and 1"
    )
