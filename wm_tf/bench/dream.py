"""The population's dreams against dreaming step by step from Python, and against the machine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from wm_tf import seeding
from wm_tf.agent import ModelsAt
from wm_tf.bench import models
from wm_tf.bench.compare import Comparison, Disagreement, Goal, Side, compare, rate
from wm_tf.config import TASKS, ControllerConfig, Task
from wm_tf.evolution.dreams import dream_all
from wm_tf.execution import LocalExecutor
from wm_tf.models import controller
from wm_tf.precision import Arithmetic, Precision, fast_dtypes
from wm_tf.seeding import Purpose, generator
from wm_tf.serving.contract import VERSION
from wm_tf.serving.initial import InitialLatents

POPULATION = 64
ROLLOUTS = 16
HORIZON = 50
WORKERS = 2
TIMEOUT = 600.0
SEED = 1
SIDE = 2048
"""Of the large matrix product."""

TOLERANCE: dict[Arithmetic, float] = {"float32": 1e-3, "bfloat16": 0.1}
"""Of most returns, in their standard deviations."""


class Dreamer:
    """Dreams of untrained models that never end, in processes as a generation's are.

    with Dreamer(task) as dreamer:
        dreamer(parameters, precision, horizon)
    """

    def __init__(self, task: Task) -> None:
        self.task = task

    def __enter__(self) -> Dreamer:
        self._folder = tempfile.TemporaryDirectory()
        self.folder = models.export_untrained(Path(self._folder.name), self.task)
        self._models = ModelsAt.now(self.folder)
        self._executor = LocalExecutor(WORKERS, TIMEOUT)
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self._folder.cleanup()

    @property
    def start(self) -> tuple[np.ndarray, int]:
        """The latents at which the R dreams begin, [R, Z], and the seed of their noise."""
        stream = seeding.sequence(SEED, Purpose.BENCHMARK, 0)
        starts = InitialLatents.read(self.folder, self.task)
        random = np.random.default_rng(stream)
        latent, _, _ = starts.sample(random, ROLLOUTS, self.task.hidden_size)
        return latent, seeding.environment_seed(stream)

    def __call__(
        self, parameters: np.ndarray, precision: Precision = "auto", horizon: int = HORIZON
    ) -> np.ndarray:
        """What candidates [P, N] reach, [P, R]."""
        config = ControllerConfig(
            rollouts=ROLLOUTS, horizon=horizon, precision=precision, dropout=0.0
        )
        return dream_all(
            self._executor,
            parameters,
            task=self.task.name,
            models=self._models,
            config=config,
            seed=SEED,
            purpose=Purpose.BENCHMARK,
            generation=0,
        ).returns


def dreams() -> list[Comparison]:
    """Both tasks, in float32 and, where it is fast, in bfloat16."""
    lines = []
    for task in TASKS.values():
        with Dreamer(task) as dreamer:
            for dtype in fast_dtypes():
                lines += _dreams(dreamer, dtype)
    return lines


def _dreams(dreamer: Dreamer, dtype: Arithmetic) -> list[Comparison]:
    task, parameters = dreamer.task, models.candidates(dreamer.task, POPULATION)
    steps = POPULATION * ROLLOUTS * HORIZON

    def returns() -> np.ndarray:
        """Those of the first candidate, [R]."""
        return dreamer(parameters, dtype)[0]

    dream = tf.saved_model.load(str(dreamer.folder / "memory" / VERSION)).signatures["dream"]
    latents, seed = dreamer.start
    everyone = np.repeat(parameters, ROLLOUTS, 0)
    batched = by_steps(task, dream, everyone, np.tile(latents, (POPULATION, 1)), seed)
    single = by_steps(task, dream, parameters[:1], latents[:1], seed)
    what = f"dream, {task.name}, {POPULATION} x {ROLLOUTS} rollouts, {dtype}"
    measure = rate(steps, returns)
    return [
        compare(
            what,
            "steps/s",
            Side("ours", measure, returns),
            Side(
                "one batched `memory.dream` call per step from Python",
                rate(steps, batched),
                # The noise of a call's first R rows is that of the R rollouts.
                lambda: batched()[:ROLLOUTS],
            ),
            agree=_same_returns(TOLERANCE[dtype]),
            goal=Goal(3),
        ),
        compare(
            what,
            "steps/s",
            Side("ours", measure, lambda: returns()[:1]),
            Side("one rollout at a time, a call per step", rate(HORIZON, single), single),
            agree=_same_returns(TOLERANCE[dtype]),
            goal=Goal(100),
        ),
        compare(
            f"{what}: its matrix products",
            "GFLOP/s",
            Side("ours", rate(steps * _operations(task) / 1e9, returns)),
            Side(f"one float32 product of {SIDE} x {SIDE} matrices", _large_product()),
            goal=Goal(0.5 if dtype == "float32" else 1.0),
        ),
    ]


def by_steps(
    task: Task, dream: Any, parameters: np.ndarray, latents: np.ndarray, seed: int
) -> Callable[[], np.ndarray]:
    """Rolls B rows out from Python, with a call of C and one of M for each step: returns [B].

    Args:
      task: whose models they are.
      dream: the SavedModel's signature.
      parameters: of each row's controller, [B, N].
      latents: where the rows begin, [B, Z], with the zero state.
      seed: of the noise.
    """
    kernels = tf.constant(parameters, tf.float32)  # [B, N]
    zeros = tf.zeros([len(latents), task.hidden_size])

    @tf.function(autograph=False)
    def act(latent: Any, h: Any, c: Any) -> Any:
        return controller.act(task, kernels, controller.features(task, latent, h, c))

    def run() -> np.ndarray:
        state = {"latent": tf.constant(latents), "h": zeros, "c": zeros}
        total = np.zeros(len(latents))
        for step in range(HORIZON):
            now = tf.constant([seed, step])
            out = dream(action=act(**state), temperature=tf.constant(1.0), seed=now, **state)
            state = {name: out[name] for name in state}
            total += out["reward"].numpy()
        return total

    return run


def _operations(task: Task) -> int:
    """Of the matrix products of one rollout's step: of M's, and of C's."""
    z, a, h = task.latent_size, task.action_size, task.hidden_size
    memory = (z + a + h) * 4 * h + h * (3 * z * task.mixtures + 2)
    return 2 * (memory + task.controller_inputs * a)


def _large_product(repeats: int = 4) -> Callable[[], float]:
    matrix = tf.constant(generator(0, Purpose.BENCHMARK).normal(size=(SIDE, SIDE)), tf.float32)
    product = tf.function(lambda x: x @ x, autograph=False)
    return rate(repeats * 2 * SIDE**3 / 1e9, lambda: [product(matrix) for _ in range(repeats)])


def _same_returns(tolerance: float) -> Callable[[np.ndarray, np.ndarray], None]:
    """Most returns are the same: rounding now and then picks another of a mixture's components,
    after which a dream goes another way."""

    def agree(ours: np.ndarray, peer: np.ndarray) -> None:
        difference = float(np.median(np.abs(ours - peer)))
        if difference > tolerance * max(1.0, float(peer.std())):
            raise Disagreement(f"returns differ by {difference:.3g} (median)")

    return agree
