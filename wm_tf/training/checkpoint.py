"""Checkpoints of a Keras model in training: weights, optimiser and random state in one npz file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from wm_tf import storage
from wm_tf.errors import DamagedFile

FORMAT_VERSION = 1


def save(path: Path, model: keras.Model, metadata: Mapping[str, Any]) -> None:
    """Writes a compiled model's state and JSON facts beside it, whole or not at all."""
    arrays = {
        f"{group}_{index:03d}": np.asarray(variable)
        for group, variables in _variables(model).items()
        for index, variable in enumerate(variables)
    }
    held = {**metadata, "kind": "checkpoint", "format_version": FORMAT_VERSION}
    storage.write_npz(path, arrays, held, compress=False)


def facts(path: Path) -> dict[str, Any]:
    """The facts of a checkpoint; raises DamagedFile."""
    return _read(path)[1]


def restore(path: Path, model: keras.Model, *, weights_only: bool = False) -> dict[str, Any]:
    """Sets a model's state to a checkpoint's and returns its facts.

    Args:
      path: what `save` wrote.
      model: of the same architecture; compiled unless `weights_only`.
      weights_only: leave optimiser and random state alone.

    Raises:
      DamagedFile: missing, damaged, or of another architecture.
    """
    arrays, held = _read(path)
    groups = _variables(model, weights_only)
    for group, variables in groups.items():
        for index, variable in enumerate(variables):
            array = arrays.get(f"{group}_{index:03d}")
            if array is None or array.shape != tuple(variable.shape):
                shape = "nothing" if array is None else list(array.shape)
                raise DamagedFile(
                    f"{path}: {variable.path}: expected {list(variable.shape)}, got {shape}"
                )
            variable.assign(array)
    return held


def digest(model: keras.Model) -> str:
    """A checksum of a model's weights, which names them."""
    total = hashlib.sha256()
    for weight in model.get_weights():
        total.update(np.ascontiguousarray(weight).tobytes())
    return total.hexdigest()


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    arrays, held = storage.read_npz(path)
    if held.get("kind") != "checkpoint":
        raise DamagedFile(f"{path}: not a checkpoint")
    version = held.get("format_version", 1)  # the first ones did not say
    if version != FORMAT_VERSION:
        raise DamagedFile(f"{path}: format version {version}, expected {FORMAT_VERSION}")
    return arrays, held


def _variables(model: keras.Model, weights_only: bool = False) -> dict[str, list[Any]]:
    groups = {"weight": list(model.weights)}
    if not weights_only:
        if not model.optimizer.built:
            with model.distribute_strategy.scope():
                model.optimizer.build(model.trainable_variables)
        groups["optimizer"] = list(model.optimizer.variables)
        groups["random"] = [model.seed_generator.state]
    return groups
