"""Trains V on frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from wm_tf.config import Task, VisionConfig
from wm_tf.data.streams import frame_batches
from wm_tf.models import Vision
from wm_tf.precision import dtype_policy
from wm_tf.seeding import Purpose
from wm_tf.training.adam import Adam
from wm_tf.training.fit import Places, fit, seed_weights


def make_vision(task: Task, config: VisionConfig, seed: int) -> Vision:
    """An untrained, compiled V."""
    seed_weights(seed, Purpose.VISION)
    vision = Vision(
        task.latent_size,
        config.kl_tolerance,
        config.emphasis,
        seed,
        dtype=dtype_policy(config.precision),
    )
    # XLA makes the convolutions twenty times slower on a CPU.
    vision.compile(Adam(config.learning_rate), jit_compile=False)
    return vision


def train_vision(
    vision: Vision,
    episodes: Sequence[Path],
    task: Task,
    config: VisionConfig,
    places: Places,
    *,
    seed: int,
    epochs: int,
) -> float:
    """Trains V up to `epochs` epochs in total (see `fit`); returns seconds."""
    return fit(
        vision,
        lambda epoch: frame_batches(episodes, task, config, seed=seed, epoch=epoch),
        epochs=epochs,
        places=places,
        facts={"task": task.name, "config": dataclasses.asdict(config), "seed": seed},
        name="train-vision",
        decay=config.decay,
    )
