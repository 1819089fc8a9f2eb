"""Real rollouts with V, M and C in the loop, in worker processes."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

import numpy as np

from wm_tf import agent
from wm_tf.bench.compare import Comparison, Goal, Side, against_limit, close, compare
from wm_tf.bench.footprint import private_memory
from wm_tf.config import get_task
from wm_tf.errors import UserError
from wm_tf.execution import LocalExecutor, map_chunks
from wm_tf.precision import Precision, compute_dtype
from wm_tf.runtime import import_tensorflow
from wm_tf.seeding import Purpose

TASK = get_task("car_racing")
WORKERS = 2
STEPS = 200
WHOLE = 1000
"""Steps of a whole rollout, which the figures are for."""
ONE_BY_ONE = 2
"""Rollouts that each worker plays one after the other."""
TIMEOUT = 600.0
MEGABYTE = 1e6


def rollouts() -> list[Comparison]:
    """Rollouts per hour, many to a network call, against one to a call; memory of a worker."""
    with tempfile.TemporaryDirectory() as folder:
        models = untrained_models(Path(folder))
        with LocalExecutor(WORKERS, TIMEOUT) as batched, LocalExecutor(WORKERS, TIMEOUT) as single:
            speed = compare(
                f"car_racing rollouts with V, M and C, {WORKERS} workers (from {STEPS} steps)",
                "rollouts/hour",
                _side("ours", batched, agent.play, chunks(models, WORKERS)),
                _side(
                    "one environment and one network call per step in each worker, float32",
                    single,
                    play_one_by_one,
                    chunks(models, WORKERS, ONE_BY_ONE, "float32"),
                ),
                agree=close(0.0, 0.02),
                goal=Goal(4),
            )
            try:
                used = batched.submit(private_memory).result()
            except UserError:  # this system does not tell
                return [speed]
    memory = against_limit(
        f"private memory of a worker with {agent.ROWS} car_racing rollouts",
        "MB",
        [used / MEGABYTE],
        450.0,
        "limit",
        Goal(1.0, most=True),
    )
    return [speed, memory]


def untrained_models(folder: Path) -> agent.ModelsAt:
    """Models for workers to load."""
    import_tensorflow()
    from wm_tf.bench.models import export_untrained

    return agent.ModelsAt.now(export_untrained(folder, TASK))


def chunks(
    models: agent.ModelsAt,
    count: int,
    rollouts: int = agent.ROWS,
    precision: Precision = "auto",
) -> list[agent.Chunk]:
    """Chunks of so many rollouts."""
    work = [
        agent.Rollout(1, (int(Purpose.BENCHMARK), chunk, rollout))
        for chunk in range(count)
        for rollout in range(rollouts)
    ]
    return agent.chunks(
        work,
        rollouts,
        task=TASK.name,
        max_steps=STEPS,
        models=models,
        precision=compute_dtype(precision),
    )


def play_one_by_one(chunk: agent.Chunk) -> list[agent.Outcome]:
    """Plays a chunk's rollouts one after the other, each with network calls of its own."""
    return [
        outcome
        for rollout in chunk.rollouts
        for outcome in agent.play(dataclasses.replace(chunk, rollouts=(rollout,), rows=1))
    ]


def per_hour(
    executor: Executor, play: Callable[[agent.Chunk], list[agent.Outcome]], work: list[agent.Chunk]
) -> float:
    """Whole rollouts per hour, by the steps that the chunks take."""
    start = time.perf_counter()
    outcomes = map_chunks(executor, play, work, describe=str)
    seconds = time.perf_counter() - start
    return sum(outcome.steps for chunk in outcomes for outcome in chunk) / WHOLE * 3600 / seconds


def _side(
    name: str,
    executor: Executor,
    play: Callable[[agent.Chunk], list[agent.Outcome]],
    work: list[agent.Chunk],
) -> Side:
    def answer() -> np.ndarray:
        """Returns of the rollouts that both sides play."""
        outcomes = map_chunks(executor, play, work, describe=str)
        return np.array([[outcome.total for outcome in chunk[:ONE_BY_ONE]] for chunk in outcomes])

    return Side(name, lambda: per_hour(executor, play, work), answer)
