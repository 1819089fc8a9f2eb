"""Models of the contract's sizes that have not been trained: enough for all but their scores."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as in the processes that tests start

import numpy as np
import pytest

from wm_tf.config import get_task

if TYPE_CHECKING:
    from wm_tf.serving.load import Models

# A shell that starts the tests in the background has them, and what they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

STARTS = 20


def untrained_models(task_name: str) -> dict[str, Any]:
    """What `export` takes beside folder, task and facts: models of random weights, seeded."""
    import keras

    from wm_tf.models import Controller, Memory, Vision
    from wm_tf.serving.initial import InitialLatents

    task = get_task(task_name)
    keras.utils.set_random_seed(1)
    generator = np.random.default_rng(1)
    latents = (STARTS, task.latent_size)
    vision = Vision(task.latent_size)
    memory = Memory(task.latent_size, task.action_size, task.hidden_size, task.mixtures)
    for weight in (*vision.weights, *memory.weights):
        if not np.any(weight.numpy()):  # a bias: were it left zero, a lost one would not show
            weight.assign(generator.normal(0.0, 0.1, weight.shape))
    return {
        "vision": vision,
        "memory": memory,
        "controller": Controller(task, generator.normal(0.0, 0.1, task.controller_parameters)),
        "initial_latents": InitialLatents(
            generator.normal(size=latents).astype(np.float32),
            np.full(latents, -2.0, np.float32),
        ),
    }


@pytest.fixture(scope="session")
def keras_models() -> dict[str, Any]:
    """The models that `saved_models` holds, before they were exported."""
    return untrained_models("car_racing")


@pytest.fixture(scope="session")
def saved_models(tmp_path_factory: pytest.TempPathFactory, keras_models: dict[str, Any]) -> Path:
    """A folder like ``saved_models`` with untrained models of car_racing. Not to be altered."""
    from wm_tf.serving.export import export
    from wm_tf.serving.manifest import Facts

    folder = tmp_path_factory.mktemp("saved_models")
    facts = Facts(environment={"id": "CarRacing-v3", "version": "0", "settings": {}})
    export(folder / "car_racing", get_task("car_racing"), **keras_models, facts=facts)
    return folder


@pytest.fixture(scope="session")
def models(saved_models: Path) -> Models:
    """The loaded models of `saved_models`."""
    from wm_tf.serving.load import load

    return load(saved_models, "car_racing")


@pytest.fixture
def altered_models(saved_models: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copies `saved_models`, changes keys of the copy's manifest and returns the copy's folder."""
    import shutil

    from wm_tf import storage

    def alter(**changes: Any) -> Path:
        copy = tmp_path / "saved_models"
        shutil.copytree(saved_models, copy)
        manifest = copy / "car_racing" / "manifest.json"
        storage.write_json(manifest, {**storage.read_json(manifest), **changes})
        return copy

    return alter
