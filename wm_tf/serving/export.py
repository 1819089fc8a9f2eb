"""Writes a task's trained models as SavedModels, with what describes them.

`wm_tf.serving.folder` says what a task's folder holds; it is replaced as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from wm_tf import storage
from wm_tf.config import Task
from wm_tf.errors import RunFailed
from wm_tf.models import Controller, Memory, Vision, mixture
from wm_tf.precision import computing_in
from wm_tf.serving import contract, golden, manifest, tensorflow_serving
from wm_tf.serving.decoder import FoldedDecoder
from wm_tf.serving.folder import describe, replacing
from wm_tf.serving.initial import InitialLatents

_Outputs = dict[str, Any]
_Functions = dict[str, Callable[..., _Outputs]]  # by signature


def export(
    folder: Path,
    task: Task,
    *,
    vision: Vision,
    memory: Memory,
    controller: Controller | None = None,
    initial_latents: InitialLatents,
    facts: manifest.Facts,
    assets: Mapping[str, bytes] | None = None,
) -> Path:
    """Writes everything that belongs into a task's folder, replacing what is there.

    Args:
      folder: the task's folder, such as ``saved_models/car_racing``.
      task: the task that the models are of.
      vision, memory, controller: the trained models; what was trained in bfloat16 is exported as
        the float32 model of the same weights.
      initial_latents: real moments that dreams start from.
      facts: what the manifest says beside the models' sizes.
      assets: further files of the folder by path, such as the card's ``contact_sheet.png``.

    Returns:
      `folder`.

    Raises:
      ValueError: a model or the start latents are not of the task's sizes.
      RunFailed: the folder cannot be written; the old one is untouched.
    """
    initial_latents.check(task)
    functions = {
        "vision": _vision_functions(computing_in(vision, "float32")),
        "memory": _memory_functions(computing_in(memory, "float32")),
    }
    if controller is not None:
        functions["controller"] = _controller_functions(controller)
    try:
        with replacing(folder) as aside:
            _write(aside, task, functions, initial_latents)
            describe(aside, manifest.build(task, facts), assets or {})
    except tf.errors.OpError as error:  # what TensorFlow makes of a full disk
        reason = storage.reason_of(error.message)
        raise RunFailed(f"cannot write {folder}: {reason}") from error
    tensorflow_serving.write_config(folder.parent)
    return folder


def _write(
    folder: Path,
    task: Task,
    functions: Mapping[str, tuple[list[tf.Variable], _Functions]],
    initial_latents: InitialLatents,
) -> None:
    calls: dict[tuple[str, str], golden.Call] = {}
    for model, (weights, its_functions) in functions.items():
        traced = {name: _trace(task, model, name, call) for name, call in its_functions.items()}
        _save(weights, model, traced, folder / model / contract.VERSION)
        calls |= {(model, name): _numpy_call(function) for name, function in traced.items()}
    initial_latents.write(folder)
    golden.write(folder, task, calls)


def _vision_functions(vision: Vision) -> tuple[list[tf.Variable], _Functions]:
    def encode(frame: Any) -> _Outputs:
        mean, log_variance = vision.encode(frame)
        return {"mean": mean, "log_variance": log_variance}

    decoder = FoldedDecoder(vision)

    def decode(latent: Any) -> _Outputs:
        return {"frame": decoder(latent)}

    return [*variables(vision), *decoder.derived], {"encode": encode, "decode": decode}


def _memory_functions(memory: Memory) -> tuple[list[tf.Variable], _Functions]:
    def step(latent: Any, action: Any, h: Any, c: Any) -> _Outputs:
        result = memory.step(latent, action, h, c)
        names = contract.SIGNATURES["memory"]["step"].outputs
        return {name: getattr(result, name) for name in names}

    def dream(latent: Any, action: Any, h: Any, c: Any, temperature: Any, seed: Any) -> _Outputs:
        result = memory.step(latent, action, h, c)
        uniform, normal = mixture.noise(seed, tf.shape(latent))
        return {
            "latent": mixture.sample(
                result.logits, result.mean, result.log_std, temperature, uniform, normal
            ),
            "reward": result.reward,
            "done_probability": tf.sigmoid(result.done_logit),
            "h": result.h,
            "c": result.c,
        }

    return variables(memory), {"step": step, "dream": dream}


def _controller_functions(controller: Controller) -> tuple[list[tf.Variable], _Functions]:
    def act(latent: Any, h: Any, c: Any) -> _Outputs:
        return {"action": controller.act(latent, h, c)}

    return variables(controller), {"act": act}


def _trace(task: Task, model: str, name: str, call: Callable[..., _Outputs]) -> Any:
    """The concrete function of a signature, checked against the contract."""
    signature = contract.SIGNATURES[model][name]
    inputs = [
        tf.TensorSpec(tensor.resolved(task), tensor.dtype, name=argument)
        for argument, tensor in signature.inputs.items()
    ]

    def with_contract_shapes(*arguments: Any) -> _Outputs:
        outputs = call(*arguments)
        for output, tensor in signature.outputs.items():
            outputs[output] = tf.ensure_shape(outputs[output], tensor.resolved(task))
        return outputs

    with_contract_shapes.__name__ = name
    return tf.function(with_contract_shapes, autograph=False).get_concrete_function(*inputs)


def _save(weights: list[tf.Variable], model: str, traced: Mapping[str, Any], folder: Path) -> None:
    module = tf.Module()
    module.weights = weights
    signatures = {**traced, contract.DEFAULT_SIGNATURE: traced[contract.default_signature(model)]}
    tf.saved_model.save(module, str(folder), signatures=signatures)


def _numpy_call(function: Any) -> golden.Call:
    return lambda **arrays: function(**{key: tf.constant(array) for key, array in arrays.items()})


def variables(model: Vision | Memory | Controller) -> list[tf.Variable]:
    """A model's weights in the order in which its SavedModel holds them, as ``weights/<index>``."""
    if isinstance(model, Controller):
        return [model.parameters]
    return [weight.value for weight in model.weights]
