"""golden.npz: fixed inputs of every signature and the outputs that the exporting machine got.

Arrays are named ``model.signature.inputs.name`` and ``model.signature.outputs.name``, so that
anyone who serves the models elsewhere can check them too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wm_tf import storage
from wm_tf.config import Task
from wm_tf.serving import contract

Call = Callable[..., Mapping[str, Any]]
"""A signature's function: named arrays to named arrays, or to tensors."""

FILE_NAME = "golden.npz"
ROWS = 3
SEED = 1803_10122  # of the inputs: the paper's number

# Other processors sum in another order: single-precision networks of this depth then differ by
# some 1e-6; a wrong weight, layout or noise stream by far more than this.
ABSOLUTE_TOLERANCE = 1e-4
RELATIVE_TOLERANCE = 1e-3


def write(folder: Path, task: Task, calls: Mapping[tuple[str, str], Call]) -> None:
    """Writes the inputs, and what the functions of each (model, signature) make of them."""
    generator = np.random.default_rng(SEED)
    arrays = {}
    for (model, name), call in calls.items():
        signature = contract.SIGNATURES[model][name]
        inputs = contract.example_inputs(task, signature, ROWS, generator)
        for kind, tensors in (("inputs", inputs), ("outputs", call(**inputs))):
            for tensor, array in tensors.items():
                arrays[f"{model}.{name}.{kind}.{tensor}"] = np.asarray(array)
    storage.write_npz(folder / FILE_NAME, arrays)


def read(
    folder: Path, model: str, signature: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The golden (inputs, outputs) of a signature; empty where the file has none.

    Raises:
      DamagedFile: the file is missing or altered.
    """
    arrays, _ = storage.read_npz(folder / FILE_NAME)
    chosen: dict[str, dict[str, np.ndarray]] = {"inputs": {}, "outputs": {}}
    for key, array in arrays.items():
        its_model, its_signature, kind, name = key.split(".")
        if (its_model, its_signature) == (model, signature):
            chosen[kind][name] = array
    return chosen["inputs"], chosen["outputs"]


def agrees(actual: np.ndarray, expected: np.ndarray) -> bool:
    """Whether an output is the golden one, up to another processor's rounding."""
    return actual.shape == expected.shape and bool(
        np.allclose(actual, expected, RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE)
    )
