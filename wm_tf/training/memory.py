"""Trains M on encoded episodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from wm_tf.config import MemoryConfig, Task
from wm_tf.data.streams import sequence_batches
from wm_tf.models import Memory
from wm_tf.precision import dtype_policy
from wm_tf.seeding import Purpose
from wm_tf.training.devices import Adam
from wm_tf.training.fit import Places, fit, seed_weights


def make_memory(task: Task, config: MemoryConfig, seed: int) -> Memory:
    """An untrained, compiled M."""
    seed_weights(seed, Purpose.MEMORY)
    memory = Memory(
        task.latent_size,
        task.action_size,
        task.hidden_size,
        task.mixtures,
        dropout=config.dropout,
        reward_weight=config.reward_weight,
        done_weight=config.done_weight,
        done_positive_weight=config.done_positive_weight,
        seed=seed,
        dtype=dtype_policy(config.precision),
    )
    optimizer = Adam(config.learning_rate, global_clipnorm=config.gradient_clip)
    memory.compile(optimizer, jit_compile=False)
    return memory


def train_memory(
    memory: Memory,
    latents: Sequence[Path],
    task: Task,
    config: MemoryConfig,
    places: Places,
    *,
    seed: int,
    epochs: int,
) -> float:
    """Trains M up to `epochs` epochs in total (see `fit`); returns seconds."""
    return fit(
        memory,
        lambda epoch: sequence_batches(latents, task, config, seed=seed, epoch=epoch),
        epochs=epochs,
        places=places,
        facts={"task": task.name, "config": dataclasses.asdict(config), "seed": seed},
        name="train-memory",
    )
