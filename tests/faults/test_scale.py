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
from typing import Any

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


PUBLISHED = Path(__file__).parents[2] / "saved_models"


def work(models: agent.ModelsAt, size: int, count: int, **fields: Any) -> list[agent.Chunk]:
    rollouts = [agent.Rollout(1, (2, 0, index), **fields) for index in range(size * count)]
    return agent.chunks(rollouts, size, task="car_racing", max_steps=CAR.max_steps, models=models)


def master_seconds(executor: Executor) -> float:
    """What a chunk costs the master: chunks that only sleep keep no worker busy."""
    parameters = np.zeros(CAR.controller_parameters, np.float32)
    models = agent.ModelsAt(PUBLISHED, "0" * 64)
    chunks = work(models, agent.ROWS, SLEEPS, parameters=parameters)
    map_chunks(executor, sleep, chunks[:SLEEPERS])  # the workers start
    began = time.process_time()
    map_chunks(executor, sleep, chunks)
    return (time.process_time() - began) / SLEEPS


def test_scale(seen: Callable[[str], None]) -> None:
    """Scale: a generation of 64 x 16 real rollouts of car_racing

    Measured. The master feeds more than 64 workers.
    """
    models = agent.ModelsAt(PUBLISHED, manifest.checksum(PUBLISHED / "car_racing"))
    parameters = np.zeros(CAR.controller_parameters, np.float32)
    chunk = work(models, agent.ROWS, 1, parameters=parameters)[0]
    there = len(pickle.dumps((agent.play, (chunk,), {})))
    parcels = len(parcel.pack(models.folder, "car_racing"))
    seconds, steps = {}, []
    with LocalExecutor(1) as executor:
        map_chunks(executor, timed, work(models, 1, 1))  # which loads the models
        for size in (2, 16):
            played = map_chunks(executor, timed, work(models, size, 3))
            seconds[size] = statistics.median(taken for taken, _ in played)
            steps += [outcome.steps for _, outcomes in played for outcome in outcomes]
            back = max(len(pickle.dumps(outcomes)) for _, outcomes in played)
    with LocalExecutor(SLEEPERS) as executor:
        local = master_seconds(executor)
    ask_tell = strategy_seconds()
    totals = {}
    for workers in (64, 1000):
        size = agent.chunk_size(POPULATION * ROLLOUTS, _Workers(workers))
        chunks = math.ceil(POPULATION * ROLLOUTS / size)
        rounds = math.ceil(chunks / workers)
        totals[workers] = rounds * seconds[size] + chunks * local + ask_tell
    chunks = POPULATION * ROLLOUTS // 16
    feeds = chunks * seconds[16] / (ask_tell + chunks * local)
    assert feeds > 64
    seen(
        f"a chunk of 16 ({np.mean(steps):.0f} steps each on average): {there:,} bytes there, "
        f"{back:,} back, models once: {parcels:,}; {seconds[16]:.1f} s of computing (a chunk of 2: "
        f"{seconds[2]:.1f} s); of the master {1000 * local:.2f} ms per chunk, ask and tell "
        f"{1000 * ask_tell:.0f} ms per generation; computed from these: with {feeds:,.0f} workers "
        f"ask, tell and handing out take as long as they do; a generation takes "
        f"{totals[64]:.1f} s with 64 workers and {totals[1000]:.1f} s with 1,000"
    )


def test_scale_with_dask(seen: Callable[[str], None]) -> None:
    """Scale: the master's share with Dask (client and scheduler in one process)

    Measured.
    """
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
    """Mean CPU seconds of ask and tell for the paper's population."""
    strategy = Strategy(np.zeros(CAR.controller_parameters), 0.1, POPULATION, seed=1)
    random = np.random.default_rng(1)
    spent = []
    for _ in range(generations):
        began = time.process_time()
        strategy.ask()
        strategy.tell(random.normal(size=POPULATION))
        spent.append(time.process_time() - began)
    return statistics.fmean(spent)
