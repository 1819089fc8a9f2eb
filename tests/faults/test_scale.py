"""How a generation of the paper, 64 x 16 real rollouts, spreads over many workers.

Nothing fails here but a figure that is absurd: the measurements behind the README's "Scale". Times
are those of computing (CPU seconds), so that other work on the machine counts little.
"""

from __future__ import annotations

import math
import pickle
import statistics
import time
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
import pytest
from tools import sleep, timed

from wm_tf import agent
from wm_tf.cluster import dask
from wm_tf.config import get_task
from wm_tf.evolution.strategy import Strategy
from wm_tf.execution import LocalExecutor, map_chunks
from wm_tf.serving import manifest, parcel

CAR = get_task("car_racing")
POPULATION, ROLLOUTS = 64, 16
SLEEPERS, SLEEPS = 16, 480


def work(models: agent.ModelsAt | None, size: int, count: int) -> list[agent.Chunk]:
    parameters = np.zeros(CAR.controller_parameters, np.float32)
    rollouts = [agent.Rollout(1, (2, 0, index), parameters) for index in range(size * count)]
    return agent.chunks(
        rollouts, size, task="car_racing", max_steps=CAR.max_steps, models=models
    )  # fmt: skip


@pytest.fixture
def models(finished: Path) -> agent.ModelsAt:
    exports = finished / "exports"
    return agent.ModelsAt(exports, manifest.checksum(exports / "car_racing"))


def master_seconds(executor: Executor) -> float:
    """What a chunk costs the master: chunks that only sleep keep no worker busy."""
    chunks = work(agent.ModelsAt(Path("models"), "0" * 64), agent.ROLLOUTS, SLEEPS)
    map_chunks(executor, sleep, chunks[:SLEEPERS])  # the workers start
    began = time.process_time()
    map_chunks(executor, sleep, chunks)
    return (time.process_time() - began) / SLEEPS


def test_scale(models: agent.ModelsAt, seen: Callable[[str], None]) -> None:
    """Scale: a generation of 64 x 16 real rollouts of car_racing (1,000 steps each)"""
    chunk = work(models, agent.ROLLOUTS, 1)[0]
    there = len(pickle.dumps((agent.play, (chunk,), {})))
    back = len(pickle.dumps([agent.Outcome(0.0, 1000, False, True)] * agent.ROLLOUTS))
    parcels = len(parcel.pack(models.folder, "car_racing"))
    seconds = {}
    with LocalExecutor(1) as executor:
        for size in (16, 2):
            map_chunks(executor, timed, work(models, size, 1)[:1])  # loads, or is warm
            seconds[size] = statistics.median(map_chunks(executor, timed, work(models, size, 3)))
    with LocalExecutor(SLEEPERS) as executor:
        local = master_seconds(executor)
    ask_tell = strategy_seconds()
    totals = {}
    for workers in (64, 1000):
        size = agent.chunk_size(POPULATION * ROLLOUTS, _Workers(workers))
        chunks = math.ceil(POPULATION * ROLLOUTS / size)
        rounds = math.ceil(chunks / workers)
        totals[workers] = rounds * seconds[size] + chunks * local + ask_tell
    feeds = seconds[16] / local
    assert feeds > 64
    seen(
        f"a chunk of 16: {there:,} bytes there, {back:,} back, models once: {parcels:,}; "
        f"{seconds[16]:.1f} s of computing (a chunk of 2: {seconds[2]:.1f} s); of the master "
        f"{1000 * local:.2f} ms per chunk, ask and tell {1000 * ask_tell:.0f} ms per generation; "
        f"computed from these: it hands out chunks to {feeds:,.0f} workers before that fills its "
        f"time, a generation takes {totals[64]:.1f} s with 64 and {totals[1000]:.1f} s with 1,000"
    )


def test_scale_with_dask(seen: Callable[[str], None]) -> None:
    """Scale: the master's share with Dask (client and scheduler in one process)"""
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=SLEEPERS // 2,
            processes=True,
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        dask(cluster.scheduler_address) as executor,
    ):
        plain = executor._executor  # in the workers' threads, where sleeping is concurrent
        seconds = master_seconds(plain)
    seen(f"{1000 * seconds:.2f} ms per chunk")


class _Workers:
    def __init__(self, workers: int) -> None:
        self.workers = workers


def strategy_seconds(generations: int = 20) -> float:
    """Median CPU seconds of ask and tell for the paper's population."""
    strategy = Strategy(np.zeros(CAR.controller_parameters), 0.1, POPULATION, seed=1)
    random = np.random.default_rng(1)
    spent = []
    for _ in range(generations):
        began = time.process_time()
        strategy.ask()
        strategy.tell(random.normal(size=POPULATION))
        spent.append(time.process_time() - began)
    return statistics.fmean(spent)
