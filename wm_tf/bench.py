"""Speeds, each as a ratio of two things that are measured alternately in one run.

A comparison does the same work on both sides. The sides take turns, so that whatever else the
machine does meets both alike; what counts is the median of the rounds' ratios.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from wm_tf import storage
from wm_tf.config import VisionConfig, get_task
from wm_tf.progress import Progress
from wm_tf.quiet import import_tensorflow
from wm_tf.seeding import Purpose, generator

ROUNDS = 5


@dataclass(frozen=True)
class Comparison:
    """One line of the table."""

    what: str
    unit: str
    ours: float
    """Median rate."""
    against: str
    peer: float
    """Median rate of the other side, in the same unit."""
    ratio: float
    """Median of the rounds' ratios."""
    spread: tuple[float, float]
    """The lowest and the highest of them."""


def compare(
    what: str, unit: str, against: str, ours: Callable[[], float], peer: Callable[[], float]
) -> Comparison:
    """Runs both sides in turn; each returns its rate. The first round warms up."""
    ours(), peer()
    rates = np.array([(ours(), peer()) for _ in range(ROUNDS)])
    ratios = rates[:, 0] / rates[:, 1]
    mine, other = np.median(rates, axis=0)
    return Comparison(
        what, unit, float(mine), against, float(other), float(np.median(ratios)),
        (float(ratios.min()), float(ratios.max())),
    )  # fmt: skip


def bench(json: Path | None = None) -> None:
    """Measures everything, prints the table and writes it to a file if one is given."""
    lines = []
    benchmarks: list[Callable[[], Comparison]] = [_car_racing, _dream, _vision_training]
    with Progress("bench", len(benchmarks), "benchmarks") as progress:
        for benchmark in benchmarks:
            lines.append(benchmark())
            progress.advance()
    _print(lines)
    if json is not None:
        storage.write_json(json, {"comparisons": [asdict(line) for line in lines]})


def _car_racing(steps: int = 300) -> Comparison:
    """Our CarRacing against gymnasium's with the same crop and resize, on one core."""
    from wm_tf.envs.car_racing import CarRacingEnv, random_policy
    from wm_tf.envs.car_renderer import resize_official

    policy = random_policy(generator(0, Purpose.BENCHMARK))
    actions = [next(policy) for _ in range(steps)]
    fast = CarRacingEnv()
    official = gymnasium.make("CarRacing-v3").unwrapped

    def play(environment: Any, observe: Callable[[np.ndarray], np.ndarray]) -> float:
        environment.reset(seed=1)
        start = time.perf_counter()
        for action in actions:
            observe(environment.step(action)[0])
        return steps / (time.perf_counter() - start)

    return compare(
        "car_racing, 64x64 frames out",
        "steps/s",
        "gymnasium's CarRacing-v3, same crop and resize",
        lambda: play(fast, lambda frame: frame),
        lambda: play(official, resize_official),
    )


def _dream(population: int = 64, rollouts: int = 16, horizon: int = 50) -> Comparison:
    """The matrix products of the population rollout against one large matrix product."""
    import_tensorflow()
    import tensorflow as tf

    from wm_tf.dream.population import PopulationRollout, Starts
    from wm_tf.models import Memory
    from wm_tf.serving.manifest import EndRule

    task = get_task("car_racing")
    z, a, h = task.latent_size, task.action_size, task.hidden_size
    memory = Memory(z, a, h, task.mixtures)
    rollout = PopulationRollout(task, memory, EndRule("never"))
    random = generator(0, Purpose.BENCHMARK)
    parameters = random.normal(scale=0.1, size=(population, task.controller_parameters))
    zero = np.zeros((rollouts, h), np.float32)
    starts = Starts(random.normal(size=(rollouts, z)).astype(np.float32), zero, zero)
    per_step = 2 * ((z + a + h) * 4 * h + h * (3 * z * task.mixtures + 2))
    per_step += 2 * task.controller_inputs * a
    side = 2048
    matrix = tf.random.normal([side, side])
    product = tf.function(lambda x: x @ x)

    def dream() -> float:
        start = time.perf_counter()
        rollout(parameters, starts, seed=1, horizon=horizon)
        seconds = time.perf_counter() - start
        return population * rollouts * horizon * per_step / seconds / 1e9

    def multiply() -> float:
        start = time.perf_counter()
        for _ in range(4):
            product(matrix).numpy()
        return 4 * 2 * side**3 / (time.perf_counter() - start) / 1e9

    return compare(
        f"dream, {population} x {rollouts} rollouts ({per_step / 1e6:.2f} MFLOP a step)",
        "GFLOP/s",
        f"one float32 product of {side} x {side} matrices",
        dream,
        multiply,
    )


def _vision_training(batches: int = 3) -> Comparison:
    """Training V against the same layers as Keras lays them out, float32."""
    import_tensorflow()
    import keras

    from wm_tf.training.vision import make_vision

    task, config = get_task("car_racing"), VisionConfig()
    frames = generator(0, Purpose.BENCHMARK).integers(
        0, 256, (batches * config.batch_size, 64, 64, 3), np.uint8
    )

    ours = make_vision(task, config, 1)
    theirs = _plain_vision(task.latent_size)
    theirs.compile(keras.optimizers.Adam(config.learning_rate), jit_compile=False)

    def train(model: Any) -> float:
        start = time.perf_counter()
        model.fit(frames, batch_size=config.batch_size, verbose=0, shuffle=False)
        return len(frames) / (time.perf_counter() - start)

    return compare(
        "V: training",
        "frames/s",
        "Keras's own layers, float32",
        lambda: train(ours),
        lambda: train(theirs),
    )


def _plain_vision(latent_size: int) -> Any:
    """V with Keras's own transposed convolutions."""
    import keras

    from wm_tf.models import Vision

    class PlainVision(Vision):
        def transposed_convolution(
            self, channels: int, size: int, activation: str
        ) -> keras.layers.Layer:
            return keras.layers.Conv2DTranspose(channels, size, 2, activation=activation)

    return PlainVision(latent_size)


def _print(lines: list[Comparison]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"median of {ROUNDS} rounds")
    for name in ("what", "ours", "against", "theirs", "ratio", "spread"):
        table.add_column(name)
    for line in lines:
        table.add_row(
            line.what,
            f"{line.ours:,.0f} {line.unit}",
            line.against,
            f"{line.peer:,.0f} {line.unit}",
            f"{line.ratio:.2f}",
            f"{line.spread[0]:.2f} to {line.spread[1]:.2f}",
        )
    Console().print(table)
