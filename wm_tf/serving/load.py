"""Reads a task's SavedModels: checked first, then as functions of NumPy arrays.

    models = load("saved_models", "car_racing")
    mean, log_variance = models.encode(frame)                        # uint8 [B, 64, 64, 3]
    out = models.dream(mean, action, h, c, temperature=1.0, seed=(episode_seed, step))

Importing this module does not import TensorFlow; `load` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wm_tf.config import Task, get_task
from wm_tf.errors import DamagedFile, UserError
from wm_tf.runtime import import_tensorflow
from wm_tf.serving import contract, manifest
from wm_tf.serving.initial import InitialLatents
from wm_tf.serving.manifest import EndRule

if TYPE_CHECKING:
    from wm_tf.models import Controller, Memory, Vision

Call = Callable[..., dict[str, np.ndarray]]

_ALWAYS = ("vision", "memory")


@dataclass(frozen=True)
class Models:
    """V, M and, where there is one, C of a task. Arrays in and out are NumPy's; no state inside.

    Inputs of another shape raise ValueError; float64 is accepted for float32.
    """

    task: Task
    folder: Path
    manifest: Mapping[str, Any]
    initial_latents: InitialLatents
    calls: Mapping[tuple[str, str], Call] = field(repr=False)  # by model and signature

    @property
    def has_controller(self) -> bool:
        return ("controller", "act") in self.calls

    @property
    def end(self) -> EndRule:
        """How a dream ends."""
        return EndRule.of(self.manifest)

    @property
    def temperature(self) -> float:
        """The temperature at which the dream is played unless one asks for another."""
        return float(self.manifest["temperature"])

    def encode(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Frames, uint8 [B, 64, 64, 3], to (mean, log_variance), each [B, Z]."""
        outputs = self.calls["vision", "encode"](frame=frame)
        return outputs["mean"], outputs["log_variance"]

    def decode(self, latent: np.ndarray) -> np.ndarray:
        """Latents [B, Z] to frames, float32 [B, 64, 64, 3] in [0, 1]."""
        return self.calls["vision", "decode"](latent=latent)["frame"]

    def step(
        self, latent: np.ndarray, action: np.ndarray, h: np.ndarray, c: np.ndarray
    ) -> dict[str, np.ndarray]:
        """One step of M.

        Args:
          latent: z_t [B, Z].
          action: a_t [B, A].
          h, c: M's state before the step [B, H], zero at an episode's start.

        Returns:
          The mixture of z_{t+1}: `logits`, `mean`, `log_std` [B, Z, K]; `reward` of that action
          and `done_logit` [B]; the state after the step: `h`, `c` [B, H].
        """
        return self.calls["memory", "step"](latent=latent, action=action, h=h, c=c)

    def dream(
        self,
        latent: np.ndarray,
        action: np.ndarray,
        h: np.ndarray,
        c: np.ndarray,
        temperature: float,
        seed: tuple[int, int],
    ) -> dict[str, np.ndarray]:
        """One step of M and a sample of z_{t+1}; the same arguments give the same sample.

        Args:
          latent, action, h, c: as of `step`.
          temperature: greater than 0.
          seed: (episode seed, step); rows of a batch have independent noise.

        Returns:
          `latent` [B, Z]; `reward`, `done_probability` [B] (see `wm_tf.serving.manifest` for what
          it means); `h`, `c` [B, H].
        """
        return self.calls["memory", "dream"](
            latent=latent, action=action, h=h, c=c, temperature=temperature, seed=seed
        )

    def act(self, latent: np.ndarray, h: np.ndarray, c: np.ndarray) -> np.ndarray:
        """C's actions [B, A] for [z_t, h_t] (and c_t where the task's controller reads it).

        Raises:
          UserError: these models have no controller.
        """
        if not self.has_controller:
            raise UserError(f"{self.folder}: there is no controller in these models")
        return self.calls["controller", "act"](latent=latent, h=h, c=c)["action"]


def load(models: Path | str, task: str, *, controller: bool | None = None) -> Models:
    """Loads a task's models, after comparing every file with the manifest's checksums.

    Args:
      models: the folder that holds the task's folder, see `manifest.find_models`.
      task: the task's name.
      controller: whether to load C; None loads it where there is one.

    Raises:
      UserError: an unknown task, no such folder, no controller where one is asked for.
      DamagedFile: incomplete or altered files, or models that do not keep the contract.
    """
    folder = manifest.find_models(models, task)
    content = manifest.read_verified(folder, task)
    names = [*_ALWAYS, *(["controller"] if _wants_controller(folder, content, controller) else [])]
    calls: dict[tuple[str, str], Call] = {}
    for name in names:
        calls |= _load_model(folder, get_task(task), name)
    return Models(
        task=get_task(task),
        folder=folder,
        manifest=content,
        initial_latents=InitialLatents.read(folder, get_task(task)).beginnings(get_task(task)),
        calls=calls,
    )


def load_keras(models: Path | str, task: str) -> tuple[Vision, Memory, Controller | None]:
    """The Keras models with exactly the weights of the SavedModels, to train or roll out.

    What is not a weight (dropout, loss weights) has the classes' own defaults.

    Raises:
      UserError, DamagedFile: as `load`.
    """
    import_tensorflow()
    from wm_tf.models import Memory, Vision

    folder = manifest.find_models(models, task)
    content = manifest.read_verified(folder, task)
    sizes = get_task(task)
    vision = Vision(sizes.latent_size)
    memory = Memory(sizes.latent_size, sizes.action_size, sizes.hidden_size, sizes.mixtures)
    _restore(vision, folder, "vision")
    _restore(memory, folder, "memory")
    if not _wants_controller(folder, content, None):
        return vision, memory, None
    return vision, memory, _controller(sizes, folder)


def _wants_controller(folder: Path, content: Mapping[str, Any], wanted: bool | None) -> bool:
    there = contract.model_file("controller") in content["files"]
    if wanted and not there:
        raise UserError(f"{folder}: there is no controller in these models (only vision, memory)")
    return there if wanted is None else wanted


def _load_model(folder: Path, task: Task, name: str) -> dict[tuple[str, str], Call]:
    import_tensorflow()
    import tensorflow as tf

    path = folder / name / contract.VERSION
    _check_names(path, name)
    try:
        module = tf.saved_model.load(str(path))
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise DamagedFile(f"{path}: not a SavedModel that can be loaded ({error})") from error
    calls = {}
    for signature, tensors in contract.SIGNATURES[name].items():
        function = module.signatures[signature]
        _check_signature(path, task, signature, tensors, function)
        calls[name, signature] = _as_numpy_call(module, function, task, tensors)
    return calls


def _check_names(path: Path, model: str) -> None:
    """Raises DamagedFile if a SavedModel lacks a signature; does not load it."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    try:
        (graph,) = SavedModel.FromString((path / "saved_model.pb").read_bytes()).meta_graphs
    except (DecodeError, ValueError) as error:
        raise DamagedFile(f"{path}: not a SavedModel ({error})") from None
    held = sorted(name for name in graph.signature_def if not name.startswith("__"))
    for signature in (*contract.SIGNATURES[model], contract.DEFAULT_SIGNATURE):
        if signature not in held:
            there = ", ".join(held) or "none"
            raise DamagedFile(f"{path}: signature {signature!r} is missing (it has: {there})")
    named = contract.default_signature(model)
    default, same = (graph.signature_def[key] for key in (contract.DEFAULT_SIGNATURE, named))
    if default.inputs.keys() != same.inputs.keys() or default.outputs.keys() != same.outputs.keys():
        raise DamagedFile(f"{path}: signature {contract.DEFAULT_SIGNATURE!r} is not {named!r}")


def _check_signature(
    path: Path, task: Task, name: str, signature: contract.Signature, function: Any
) -> None:
    sides = (
        ("input", signature.inputs, function.structured_input_signature[1]),
        ("output", signature.outputs, function.structured_outputs),
    )
    for side, expected, actual in sides:
        for tensor, kind in expected.items():
            wanted = f"{kind.dtype} {list(kind.resolved(task))}"
            held = "nothing"
            if tensor in actual:
                shape = actual[tensor].shape
                held = f"{actual[tensor].dtype.name} {'?' if shape.rank is None else list(shape)}"
            if held != wanted:
                raise DamagedFile(f"{path}: {name}: {side} {tensor}: expected {wanted}, got {held}")
        if others := sorted(actual.keys() - expected.keys()):
            raise DamagedFile(f"{path}: {name}: {side}s that are not of the contract: {others}")


def _as_numpy_call(module: Any, function: Any, task: Task, signature: contract.Signature) -> Call:
    import tensorflow as tf

    inputs = [
        (name, np.dtype(tensor.dtype), tensor.resolved(task))
        for name, tensor in signature.inputs.items()
    ]

    def call(**arrays: Any) -> dict[str, np.ndarray]:
        if arrays.keys() != signature.inputs.keys():
            missing = sorted(signature.inputs.keys() - arrays.keys())
            unknown = sorted(arrays.keys() - signature.inputs.keys())
            raise ValueError(f"inputs missing: {missing}, unknown: {unknown}")
        checked = {name: _checked(name, arrays[name], kind, shape) for name, kind, shape in inputs}
        _check_rows(signature, checked)
        _check_temperature(checked)
        tensors = {name: tf.constant(array) for name, array in checked.items()}
        return {name: output.numpy() for name, output in function(**tensors).items()}

    call.module = module  # type: ignore[attr-defined]  # it owns the variables
    return call


def _checked(name: str, value: Any, dtype: np.dtype, shape: tuple[int | None, ...]) -> np.ndarray:
    array = np.asarray(value)
    fits = len(array.shape) == len(shape) and all(
        wanted is None or size == wanted for size, wanted in zip(array.shape, shape, strict=True)
    )
    if not fits:
        wanted = ["B" if size is None else size for size in shape]
        raise ValueError(f"{name}: expected {wanted}, got {list(array.shape)}")
    if array.dtype != dtype:
        if not np.can_cast(array.dtype, dtype, "same_kind"):
            raise ValueError(f"{name}: expected {dtype}, got {array.dtype}")
        given = array
        with np.errstate(over="ignore"):
            array = given.astype(dtype)
        lost = array != given if dtype.kind in "iu" else np.isinf(array) & np.isfinite(given)
        if lost.any():
            raise ValueError(f"{name}: expected {dtype}, got {given[lost][0]}")
    return array


def _check_rows(signature: contract.Signature, arrays: Mapping[str, np.ndarray]) -> None:
    first, *others = (name for name, tensor in signature.inputs.items() if "B" in tensor.shape)
    for name in others:
        if len(arrays[name]) != len(arrays[first]):
            raise ValueError(
                f"{name}: expected {len(arrays[first])} rows as in {first}, got {len(arrays[name])}"
            )
    if len(arrays[first]) == 0:
        raise ValueError(f"{first}: expected at least one row, got none")


def is_temperature(value: float) -> bool:
    """Whether it is a positive number, as float32 too."""
    limits = np.finfo(np.float32)
    return float(limits.tiny) <= value <= float(limits.max)


def _check_temperature(arrays: Mapping[str, np.ndarray]) -> None:
    if "temperature" in arrays:
        value = arrays["temperature"]
        if not is_temperature(float(value)):
            raise ValueError(f"temperature: expected a number greater than 0, got {value:g}")


def _controller(task: Task, folder: Path) -> Controller:
    """C of as many parameters as its SavedModel holds."""
    from wm_tf.models import Controller

    shape = _stored(folder, "controller").get_variable_to_shape_map().get(_key(0), [])
    try:
        controller = Controller(task, np.zeros(shape))
    except ValueError:
        controller = Controller(task)  # with which what is stored will not agree
    _restore(controller, folder, "controller")
    return controller


def _restore(model: Vision | Memory | Controller, folder: Path, name: str) -> None:
    """Sets a model's weights to those that its SavedModel holds."""
    from wm_tf.serving.export import variables

    path = folder / name / contract.VERSION
    reader = _stored(folder, name)
    shapes = reader.get_variable_to_shape_map()
    for index, weight in enumerate(variables(model)):
        key = _key(index)
        if shapes.get(key) != weight.shape.as_list():
            raise DamagedFile(
                f"{path}: {key}: expected {weight.shape.as_list()}, got {shapes.get(key)}"
            )
        weight.assign(_read(path, reader.get_tensor, key))


def _key(index: int) -> str:
    """Of a weight in a SavedModel's variables."""
    return f"weights/{index}/.ATTRIBUTES/VARIABLE_VALUE"


def _stored(folder: Path, name: str) -> Any:
    """A reader of a SavedModel's variables."""
    import tensorflow as tf

    path = folder / name / contract.VERSION
    _check_names(path, name)
    return _read(path, tf.train.load_checkpoint, str(path / "variables" / "variables"))


def _read(path: Path, reading: Callable[[str], Any], what: str) -> Any:
    """What TensorFlow reads of a SavedModel's variables."""
    try:
        return reading(what)
    except Exception as error:  # of many kinds, for files that are cut
        raise DamagedFile(f"{path}: variables that cannot be read ({error})") from error
