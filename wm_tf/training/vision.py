"""Trains V on frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import keras

from wm_tf.config import Task, VisionConfig
from wm_tf.data.streams import frame_batches
from wm_tf.models import Vision
from wm_tf.seeding import Purpose
from wm_tf.training.fit import Places, fit, seed_weights

_FAST_BFLOAT16 = ("amx_bf16", "avx512_bf16")


def make_vision(task: Task, config: VisionConfig, seed: int) -> Vision:
    """An untrained, compiled V."""
    seed_weights(seed, Purpose.VISION)
    vision = Vision(
        task.latent_size, config.kl_tolerance, seed, dtype=_dtype_policy(config.precision)
    )
    # XLA makes the convolutions twenty times slower on a CPU.
    vision.compile(keras.optimizers.Adam(config.learning_rate), jit_compile=False)
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
    )


def _dtype_policy(precision: str) -> str:
    if precision == "auto":
        precision = "bfloat16" if bfloat16_is_fast() else "float32"
    return "mixed_bfloat16" if precision == "bfloat16" else "float32"


def bfloat16_is_fast() -> bool:
    """Whether this processor multiplies bfloat16 matrices faster than float32 ones."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return any(flag in flags for flag in _FAST_BFLOAT16)
