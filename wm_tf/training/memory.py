"""Trains M on encoded episodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from wm_tf.config import MemoryConfig, Task
from wm_tf.data.streams import sequence_batches
from wm_tf.models import Memory
from wm_tf.precision import dtype_policy
from wm_tf.seeding import Purpose, generator
from wm_tf.training.adam import Adam
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
    random: Sequence[Path] = (),
) -> float:
    """Trains M up to `epochs` epochs in total (see `fit`); returns seconds.

    Every epoch has all of `latents` and, drawn anew, `config.random_share` of `random`.
    """

    def batches(epoch: int) -> tf.data.Dataset:
        draw = generator(seed, Purpose.MEMORY, epoch, 3)
        count = round(config.random_share * len(random))
        drawn = [random[index] for index in sorted(draw.permutation(len(random))[:count])]
        return sequence_batches([*drawn, *latents], task, config, seed=seed, epoch=epoch)

    return fit(
        memory,
        batches,
        epochs=epochs,
        places=places,
        facts={"task": task.name, "config": dataclasses.asdict(config), "seed": seed},
        name="train-memory",
        decay=config.decay,
    )
