"""How cost grows: speeds over the size of a population, of a pool of workers and of the data."""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from wm_tf import agent
from wm_tf.bench import models
from wm_tf.bench.compare import Comparison, over_sizes, rate
from wm_tf.bench.dream import ROLLOUTS, Dreamer
from wm_tf.bench.footprint import STEPS, write_episodes
from wm_tf.bench.rollouts import TASK, TIMEOUT, chunks, per_hour, untrained_models
from wm_tf.config import MemoryConfig, VisionConfig
from wm_tf.data.latents import LatentEpisode, write_latents
from wm_tf.data.streams import frame_batches, sequence_batches
from wm_tf.execution import LocalExecutor, map_chunks
from wm_tf.seeding import Purpose, generator
from wm_tf.storage import write_bytes
from wm_tf.training.memory import make_memory
from wm_tf.training.vision import make_vision

POPULATIONS = (16, 64, 256, 1024, 4096)
HORIZON = 20
WORKERS = (1, 2)
FRAMES = (2_000, 6_000, 18_000)
LATENTS = (10_000, 40_000, 160_000)
ROUNDS = 3


def curves() -> list[Comparison]:
    """All of them."""
    with tempfile.TemporaryDirectory() as folder:
        return [
            _dreams(),
            _collection(),
            _vision(Path(folder) / "rollouts"),
            _memory(Path(folder) / "latents"),
        ]


def plot(path: Path, lines: Sequence[Comparison]) -> None:
    """Draws the lines' curves into a PNG; where cost per step is flat, so is the curve."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(lines), 3.4), layout="constrained")
    for axes, line in zip(figure.subplots(1, len(lines), squeeze=False)[0], lines, strict=True):
        curve = line.curve
        if curve is None:
            raise ValueError(f"{line.what}: has no curve")
        figures = np.array(curve.figures)
        axes.fill_between(curve.sizes, figures.min(0), figures.max(0), alpha=0.2)
        axes.plot(curve.sizes, np.median(figures, axis=0), marker="o")
        axes.set_xscale("log", base=2)
        axes.set_xticks(curve.sizes, [f"{size:,}" for size in curve.sizes])
        axes.minorticks_off()
        axes.set_ylim(0, 1.1 * figures.max())
        axes.set_title(curve.title)
        axes.set_xlabel(curve.size)
        axes.set_ylabel(line.unit)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_bytes(path, picture.getvalue())


def _dreams() -> Comparison:
    with Dreamer(TASK) as dreamer:

        def speed(population: int) -> float:
            parameters = models.candidates(TASK, population)
            steps = population * ROLLOUTS * HORIZON
            return rate(steps, lambda: dreamer(parameters, horizon=HORIZON))()

        return over_sizes(
            f"Dreams, {ROLLOUTS} each", "candidates", POPULATIONS, "steps/s", speed, ROUNDS
        )


def _collection() -> Comparison:
    with tempfile.TemporaryDirectory() as folder:
        work = chunks(untrained_models(Path(folder)), max(WORKERS))
        executors = {workers: LocalExecutor(workers, TIMEOUT) for workers in WORKERS}
        for executor in executors.values():  # the workers start
            map_chunks(executor, agent.play, work)
        curve = over_sizes(
            "car_racing rollouts",
            "workers",
            WORKERS,
            "rollouts/hour",
            lambda workers: per_hour(executors[workers], agent.play, work),
            ROUNDS,
        )
        for executor in executors.values():
            executor.shutdown()
        return curve


def _vision(folder: Path) -> Comparison:
    config = VisionConfig()
    vision = make_vision(TASK, config, 1)
    paths = write_episodes(folder, TASK, max(FRAMES) // STEPS)

    def speed(frames: int) -> float:
        batches = frame_batches(paths[: frames // STEPS], TASK, config, seed=1, epoch=0)
        return rate(frames, lambda: _epoch(vision, batches))()

    return over_sizes("Training V, an epoch", "frames", FRAMES, "frames/s", speed, rounds=1)


def _memory(folder: Path) -> Comparison:
    config = MemoryConfig()
    memory = make_memory(TASK, config, 1)
    paths = _write_latents(folder, max(LATENTS) // STEPS)

    def speed(steps: int) -> float:
        batches = sequence_batches(paths[: steps // STEPS], TASK, config, seed=1, epoch=0)
        return rate(steps, lambda: _epoch(memory, batches))()

    return over_sizes("Training M, an epoch", "steps", LATENTS, "steps/s", speed, rounds=1)


def _epoch(model: keras.Model, batches: tf.data.Dataset) -> None:
    with warnings.catch_warnings():
        # The number of batches is not known beforehand, which Keras takes for a mistake.
        warnings.filterwarnings("ignore", "Your input ran out of data", UserWarning)
        model.fit(batches, verbose=0, shuffle=False)


def _write_latents(folder: Path, count: int) -> list[Path]:
    random = generator(0, Purpose.BENCHMARK)
    episode = LatentEpisode(
        mean=random.normal(size=(STEPS + 1, TASK.latent_size)).astype(np.float32),
        log_variance=np.full((STEPS + 1, TASK.latent_size), -2.0, np.float32),
        actions=random.uniform(-1, 1, (STEPS, TASK.action_size)).astype(np.float32),
        rewards=random.normal(size=STEPS).astype(np.float32),
        terminated=False,
        last_frame_repeated=False,
        vision="none",
    )
    paths = [folder / f"episode-{index:06d}.npz" for index in range(count)]
    folder.mkdir(parents=True)
    for path in paths:
        write_latents(path, episode, TASK)
    return paths
