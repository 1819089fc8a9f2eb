"""The SavedModels' signatures: names, types and shapes that other people's code depends on.

Shapes are written with the letters B (rows, at least one), Z (latent size), H (hidden size), K
(mixture components) and A (action size). Every signature is stateless: what changes is an argument
and a result, the randomness of ``dream`` included (``seed`` = [episode seed, step]).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from wm_tf.config import FRAME_SIZE, Task

VERSION = "1"
"""The folder of a model's version, as TensorFlow Serving expects it."""

DEFAULT_SIGNATURE = "serving_default"

Dimension = str | int


@dataclass(frozen=True)
class TensorType:
    """A tensor's shape, in the letters above, and its type's name."""

    shape: tuple[Dimension, ...]
    dtype: str = "float32"

    def resolved(self, task: Task) -> tuple[int | None, ...]:
        """The shape for a task, with None for the number of rows."""
        sizes = {
            "B": None,
            "Z": task.latent_size,
            "H": task.hidden_size,
            "K": task.mixtures,
            "A": task.action_size,
        }
        return tuple(sizes[size] if isinstance(size, str) else size for size in self.shape)


@dataclass(frozen=True)
class Signature:
    """What one function of a SavedModel takes and returns, by name."""

    inputs: Mapping[str, TensorType]
    outputs: Mapping[str, TensorType]


_LATENT = TensorType(("B", "Z"))
_HIDDEN = TensorType(("B", "H"))
_ACTION = TensorType(("B", "A"))
_MIXTURE = TensorType(("B", "Z", "K"))
_ROWS = TensorType(("B",))
_PIXELS: tuple[Dimension, ...] = ("B", FRAME_SIZE, FRAME_SIZE, 3)
_STATE = {"h": _HIDDEN, "c": _HIDDEN}
_STEP_INPUTS = {"latent": _LATENT, "action": _ACTION, **_STATE}

SIGNATURES: Mapping[str, Mapping[str, Signature]] = {
    "vision": {
        "encode": Signature(
            {"frame": TensorType(_PIXELS, "uint8")}, {"mean": _LATENT, "log_variance": _LATENT}
        ),
        "decode": Signature({"latent": _LATENT}, {"frame": TensorType(_PIXELS)}),
    },
    "memory": {
        "step": Signature(
            _STEP_INPUTS,
            {
                "logits": _MIXTURE,
                "mean": _MIXTURE,
                "log_std": _MIXTURE,
                "reward": _ROWS,
                "done_logit": _ROWS,
                **_STATE,
            },
        ),
        "dream": Signature(
            {
                **_STEP_INPUTS,
                "temperature": TensorType(()),
                "seed": TensorType((2,), "int32"),
            },
            {"latent": _LATENT, "reward": _ROWS, "done_probability": _ROWS, **_STATE},
        ),
    },
    "controller": {
        "act": Signature({"latent": _LATENT, **_STATE}, {"action": _ACTION}),
    },
}
"""By model and signature; the first signature of a model is also its ``serving_default``."""


def model_file(model: str) -> str:
    """The path of a model's main file below a task's folder."""
    return f"{model}/{VERSION}/saved_model.pb"


def default_signature(model: str) -> str:
    """The signature that ``serving_default`` is another name of."""
    return next(iter(SIGNATURES[model]))


def example_inputs(
    task: Task, signature: Signature, rows: int, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Inputs for a signature that look like real ones, of `rows` rows, drawn from `generator`."""
    return {
        name: _example(name, tensor, task, rows, generator)
        for name, tensor in signature.inputs.items()
    }


def _example(
    name: str, tensor: TensorType, task: Task, rows: int, generator: np.random.Generator
) -> np.ndarray:
    shape = tuple(rows if size is None else size for size in tensor.resolved(task))
    if name == "temperature":
        return np.array(1.0, np.float32)
    if tensor.dtype != "float32":
        high = 256 if tensor.dtype == "uint8" else 2**31 - 1
        return generator.integers(0, high, shape).astype(tensor.dtype)
    values = generator.normal(size=shape)
    # h is bounded by the LSTM's equations, an action by its environment.
    return (np.tanh(values) if name in ("h", "action") else values).astype(np.float32)
