"""What CMA-ES costs beside the dreams that it asks for."""

from __future__ import annotations

import numpy as np

from wm_tf.bench import models
from wm_tf.bench.compare import Comparison, Goal, Side, compare, rate
from wm_tf.bench.dream import HORIZON, POPULATION, ROLLOUTS, rollout_of
from wm_tf.config import TASKS, Task
from wm_tf.evolution.strategy import Strategy
from wm_tf.seeding import Purpose, generator

GENERATIONS = 20
DREAM_STEPS = 1000


def strategies() -> list[Comparison]:
    """Ask and tell of both tasks' controllers, against the dreams between them."""
    return [_strategy(task) for task in TASKS.values()]


def _strategy(task: Task) -> Comparison:
    parameters, starts = models.candidates(task, POPULATION), models.starts(task, ROLLOUTS)
    strategy = Strategy(parameters[0], 0.1, POPULATION, seed=1)
    fitness = generator(0, Purpose.BENCHMARK).normal(size=(GENERATIONS, POPULATION))
    rollout = rollout_of(task, "auto")

    def ask_and_tell() -> None:
        for values in fitness:
            strategy.ask()
            strategy.tell(values)

    def dream() -> np.ndarray:
        return rollout(parameters, starts, seed=1, horizon=HORIZON).returns

    return compare(
        f"CMA-ES, ask and tell, {task.controller_parameters} parameters, population {POPULATION}",
        "generations/s",
        Side("ours", rate(GENERATIONS, ask_and_tell)),
        Side(
            f"dreams of a generation: {ROLLOUTS} rollouts x {DREAM_STEPS} steps "
            f"(from {HORIZON} steps)",
            rate(HORIZON / DREAM_STEPS, dream),
        ),
        goal=Goal(1 / 0.03),
    )
