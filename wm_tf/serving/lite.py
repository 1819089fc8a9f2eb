"""TFLite files of a task's SavedModels, for where there is no TensorFlow (phones, small boards).

    DIR/TASK/vision.tflite       signatures encode, decode
    DIR/TASK/memory.tflite       signature step
    DIR/TASK/controller.tflite   signature act

Names, types and shapes are those of `wm_tf.serving.contract`, with any number of rows. `dream` is
left out: TFLite has no stateless random numbers; one samples from what `step` returns.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wm_tf import storage
from wm_tf.errors import RunFailed
from wm_tf.serving import contract, golden
from wm_tf.serving.load import Models, load

_SIGNATURES: Mapping[str, Sequence[str]] = {
    "vision": ("encode", "decode"),
    "memory": ("step",),
    "controller": ("act",),
}
_ROWS = (1, 7)
_CALLS = 30  # of which the median is the speed

_Call = Callable[..., Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Converted:
    """A signature of a TFLite file beside that of the SavedModel."""

    file: Path
    signature: str
    difference: float
    """The greatest between their outputs."""
    milliseconds: float
    """Of a call with one row."""
    saved_model_milliseconds: float


def convert(models: Path | str, task: str, out: Path) -> list[Converted]:
    """Writes a task's models as TFLite files, after comparing their outputs with the SavedModels'.

    Args:
      models: the folder that holds the task's SavedModels.
      task: the task's name.
      out: the folder that gets a folder of the task.

    Raises:
      UserError, DamagedFile: there are no sound models.
      RunFailed: a converted model does not give the same numbers, or it cannot be written.
    """
    loaded = load(models, task)
    lines: list[Converted] = []
    contents: dict[Path, bytes | None] = {}
    for model, names in _SIGNATURES.items():
        file = out / task / f"{model}.tflite"
        contents[file] = None
        if (model, names[0]) in loaded.calls:
            content = _convert(loaded.folder / model / contract.VERSION, names)
            lines += [_compare(loaded, model, name, content, file) for name in names]
            contents[file] = content
    for file, converted in contents.items():
        if converted is None:
            file.unlink(missing_ok=True)  # of other models, which had a controller
        else:
            storage.write_bytes(file, converted)
    return lines


def print_converted(lines: Sequence[Converted]) -> None:
    """Shows sizes and speeds as a table."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Milliseconds of a call with one row", box=box.SIMPLE)
    for name in ("file", "signature"):
        table.add_column(name)
    for name in ("MB", "TFLite", "SavedModel", "difference"):
        table.add_column(name, justify="right")
    for line in lines:
        table.add_row(
            line.file.name,
            line.signature,
            f"{line.file.stat().st_size / 1e6:.2f}",
            f"{line.milliseconds:.2f}",
            f"{line.saved_model_milliseconds:.2f}",
            f"{line.difference:.1g}",
        )
    Console().print(table)


def _convert(folder: Path, names: Sequence[str]) -> bytes:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=list(names))
    content: bytes = converter.convert()
    return content


def _compare(models: Models, model: str, name: str, content: bytes, file: Path) -> Converted:
    signature, generator = contract.SIGNATURES[model][name], np.random.default_rng(golden.SEED)
    lite, saved = _runner(content, name), models.calls[model, name]
    difference = 0.0
    for rows in _ROWS:
        inputs = contract.example_inputs(models.task, signature, rows, generator)
        actual, expected = lite(**inputs), saved(**inputs)
        for output, values in expected.items():
            worst = float(np.max(np.abs(actual[output] - values)))
            if not golden.agrees(actual[output], values):
                raise RunFailed(f"{file}: {name}: {output} differs by up to {worst:.2g}")
            difference = max(difference, worst)
    single = contract.example_inputs(models.task, signature, 1, generator)
    return Converted(
        file, name, difference, _milliseconds(lite, single), _milliseconds(saved, single)
    )


def _runner(content: bytes, name: str) -> _Call:
    import tensorflow as tf

    with warnings.catch_warnings():
        # That it will move to a package of its own; the versions of TensorFlow named here have it.
        warnings.filterwarnings("ignore", r"\s*Warning: tf\.lite\.Interpreter is deprecated")
        interpreter: Any = tf.lite.Interpreter(model_content=content)
    runner: _Call = interpreter.get_signature_runner(name)
    return runner


def _milliseconds(call: _Call, inputs: Mapping[str, np.ndarray]) -> float:
    call(**inputs)
    times = []
    for _ in range(_CALLS):
        start = time.perf_counter()
        call(**inputs)
        times.append(time.perf_counter() - start)
    return 1000.0 * float(np.median(times))
