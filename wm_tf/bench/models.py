"""Untrained models of the tasks' sizes, whose speed does not depend on their weights, and what to
fit them to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from wm_tf.config import Task
from wm_tf.dream.population import Starts
from wm_tf.models import Controller, Memory, Vision
from wm_tf.seeding import Purpose, generator
from wm_tf.serving.export import export
from wm_tf.serving.initial import InitialLatents
from wm_tf.serving.manifest import Facts

STARTS = 16


def memory_of(task: Task) -> Memory:
    """M."""
    keras.utils.set_random_seed(1)
    return Memory(task.latent_size, task.action_size, task.hidden_size, task.mixtures)


def candidates(task: Task, count: int) -> np.ndarray:
    """Parameters of controllers, float64 [P, N]."""
    random = generator(0, Purpose.BENCHMARK)
    return random.normal(scale=0.1, size=(count, task.controller_parameters))


def starts(task: Task, count: int) -> Starts:
    """Where dreams begin."""
    random = generator(1, Purpose.BENCHMARK)
    zero = np.zeros((count, task.hidden_size), np.float32)
    return Starts(random.normal(size=(count, task.latent_size)).astype(np.float32), zero, zero)


def repeated(batch: Any, count: int) -> tf.data.Dataset:
    """A data set of the same batch so many times.

    It is not tuned by tf.data: a fit of few batches would end with the tuning's sleep, 10 ms at
    first and twice as long each time, and so take 0.63, 1.27 or 2.55 seconds.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return tf.data.Dataset.from_tensors(batch).repeat(count).with_options(options)


def export_untrained(models: Path, task: Task) -> Path:
    """Writes SavedModels of the task below `models`; returns the task's folder."""
    latents = starts(task, STARTS).latent
    return export(
        models / task.name,
        task,
        vision=Vision(task.latent_size),
        memory=memory_of(task),
        controller=Controller(task, candidates(task, 1)[0]),
        initial_latents=InitialLatents(latents, np.full_like(latents, -2.0)),
        facts=Facts(environment={"id": task.environment, "version": "0", "settings": {}}),
    )
