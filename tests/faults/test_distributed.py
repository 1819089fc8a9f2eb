"""Other executors give the numbers of this machine: Dask, with a worker killed, and MPI."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tools import Command, children, until

from wm_tf import agent, storage
from wm_tf.cluster import dask
from wm_tf.config import ControllerConfig, get_task
from wm_tf.evaluate import evaluate
from wm_tf.evolution.fitness import RealFitness
from wm_tf.execution import LocalExecutor
from wm_tf.serving import manifest

CAR = get_task("car_racing")
CONFIG = ControllerConfig(population=16, rollouts=8, horizon=60)
CANDIDATES = np.random.default_rng(1).normal(0.0, 0.1, (16, CAR.controller_parameters))


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture
def cluster(elsewhere: Path) -> Iterator:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster


def test_killed_dask_worker(
    finished: Path,
    tmp_path: Path,
    elsewhere: Path,
    cluster: object,
    seen: Callable[[str], None],
    chance: random.Random,
) -> None:
    """SIGKILL of one of two Dask workers in the middle of a generation

    The fitness of local processes, bit for bit; the models come once.
    """
    exports = finished / "exports"
    models = agent.ModelsAt(exports, manifest.checksum(exports / "car_racing"))

    def fitness(executor: object) -> np.ndarray:
        return RealFitness(executor, CAR, models, CONFIG, seed=1)(CANDIDATES, 0).returns

    with LocalExecutor(2) as local:
        undisturbed = fitness(local)
    with dask(cluster.scheduler_address, timeout=300) as executor:
        np.testing.assert_array_equal(fitness(executor), undisturbed)
        began = time.monotonic()
        np.testing.assert_array_equal(fitness(executor), undisturbed)
        usual = time.monotonic() - began
        victim = chance.choice([worker.pid for worker in cluster.workers.values()])
        family = [pid for pid, _ in children(victim)]
        killer = threading.Timer(
            chance.uniform(0.2, 0.7) * usual, os.kill, (victim, signal.SIGKILL)
        )
        killer.start()
        np.testing.assert_array_equal(fitness(executor), undisturbed)
        killer.join()
    assert family and until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family), 10)
    (store,) = elsewhere.glob("wm_tf_models_*")
    assert len(list(store.iterdir())) == 1
    seen(
        "fitness of 128 rollouts bitwise that of local processes, undisturbed and with the kill; "
        "the killed worker's own process gone; the models came once"
    )


def test_killed_scheduler(
    finished: Path, tmp_path: Path, start: Callable[..., Command], seen: Callable[[str], None]
) -> None:
    """SIGKILL of the Dask scheduler with chunks under way

    The command ends with one line that says so.
    """
    distributed = pytest.importorskip("distributed")
    file = tmp_path / "scheduler.json"
    scheduler = start(
        "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", file,
        module="distributed.cli.dask_scheduler",
    )  # fmt: skip
    assert until(file.exists, 60)
    address = json.loads(file.read_text())["address"]
    start(address, "--nthreads", "1", "--no-dashboard", "--local-directory", tmp_path,
          module="distributed.cli.dask_worker")  # fmt: skip
    command = start(
        "evaluate", "car_racing", "--episodes", "64", "--frames", "fast",
        "--models", finished / "exports", "--executor", "dask", "--scheduler", address,
    )  # fmt: skip
    with distributed.Client(address) as client:
        assert until(lambda: any(client.processing().values()), 120)
    scheduler.process.kill()
    began = time.monotonic()
    status, errors = command.wait(120)
    assert status == 1
    assert "Traceback" not in errors
    last = errors.strip().splitlines()[-1]
    assert "is gone" in last or "the executor takes no more chunks" in last
    seen(f"after {time.monotonic() - began:.0f} s, exit status 1: {last}")


def test_command_on_dask(
    finished: Path, tmp_path: Path, cluster: object, seen: Callable[[str], None]
) -> None:
    """--executor dask --scheduler ADDRESS

    The scores of local processes, bit for bit.
    """
    scores = []
    for flags in ((), ("--executor", "dask", "--scheduler", cluster.scheduler_address)):
        path = tmp_path / f"{len(flags)}.json"
        command = ("evaluate", "car_racing", "--episodes", "3", "--frames", "fast", "--json", path)
        subprocess.run(
            [sys.executable, "-m", "wm_tf", *map(str, command), *flags,
             "--models", str(finished / "exports")],
            check=True, capture_output=True,
        )  # fmt: skip
        scores.append(storage.read_json(path)["returns"])
    assert scores[0] == scores[1]
    seen(f"evaluate gave the same returns as on local processes: {scores[0]}")


_WITH_MPI = """
import sys
from pathlib import Path
from mpi4py.futures import MPIPoolExecutor
from wm_tf.cluster import RemoteExecutor
from wm_tf.evaluate import evaluate, write_json

if __name__ == "__main__":
    with MPIPoolExecutor() as pool:
        executor = RemoteExecutor(pool, timeout=300, workers=lambda: pool.num_workers)
        result = evaluate(
            executor, "car_racing", Path(sys.argv[1]),
            env="real", episodes=3, seed=0, frames="fast",
        )
        write_json(Path(sys.argv[2]), {**result, "workers": executor.workers})
"""


def test_mpi(finished: Path, tmp_path: Path, seen: Callable[[str], None]) -> None:
    """mpiexec -n 3 python -m mpi4py.futures, with evaluate on an MPIPoolExecutor

    The scores of local processes, bit for bit.
    """
    pytest.importorskip("mpi4py", reason="mpi4py is missing (pip install mpi4py mpich)")
    mpiexec = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if mpiexec is None:
        pytest.skip("mpiexec is missing")
    script, path = tmp_path / "with_mpi.py", tmp_path / "score.json"
    script.write_text(_WITH_MPI)
    command = (mpiexec, "-n", "3", sys.executable, "-m", "mpi4py.futures", script)
    models = finished / "exports"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [*map(str, command), str(models), str(path)],
        env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    scored = storage.read_json(path)
    with LocalExecutor(1) as local:
        here = evaluate(local, "car_racing", models, env="real", episodes=3, seed=0, frames="fast")
    assert scored["returns"] == here["returns"]
    seen(f"{scored['workers']} MPI workers gave the same returns: {here['returns']}")
