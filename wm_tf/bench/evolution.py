"""What CMA-ES costs beside the dreams that it asks for."""

from __future__ import annotations

from wm_tf.bench import models
from wm_tf.bench.compare import Comparison, Goal, Side, compare, rate
from wm_tf.bench.dream import HORIZON, POPULATION, ROLLOUTS, Dreamer
from wm_tf.config import TASKS, Task
from wm_tf.evolution.strategy import Strategy
from wm_tf.seeding import Purpose, generator

GENERATIONS = 20
DREAM_STEPS = 1000


def strategies() -> list[Comparison]:
    """Ask and tell of both tasks' controllers, against the dreams between them."""
    return [_strategy(task) for task in TASKS.values()]


def _strategy(task: Task) -> Comparison:
    parameters = models.candidates(task, POPULATION)
    strategy = Strategy(parameters[0], 0.1, POPULATION, seed=1)
    fitness = generator(0, Purpose.BENCHMARK).normal(size=(GENERATIONS, POPULATION))

    def ask_and_tell() -> None:
        for values in fitness:
            strategy.ask()
            strategy.tell(values)

    size = f"{task.controller_parameters} parameters, population {POPULATION}"
    with Dreamer(task) as dreamer:
        return compare(
            f"CMA-ES, ask and tell, {size}",
            "generations/s",
            Side("ours", rate(GENERATIONS, ask_and_tell)),
            Side(
                f"dreams of a generation: {ROLLOUTS} rollouts x {DREAM_STEPS} steps "
                f"(from {HORIZON} steps)",
                rate(HORIZON / DREAM_STEPS, lambda: dreamer(parameters)),
            ),
            goal=Goal(1 / 0.03),
        )
