"""Checks a task's folder of models and says what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from wm_tf.config import TASKS, get_task
from wm_tf.errors import DamagedFile, UserError
from wm_tf.serving import card, contract, golden, manifest
from wm_tf.serving.initial import InitialLatents
from wm_tf.serving.load import Models, load

_ROWS = (1, 7)


def tasks_in(models: Path | str) -> list[str]:
    """The tasks that a folder such as ``saved_models`` has models of.

    Raises:
      UserError: none at all.
    """
    found = []
    for task in TASKS:
        try:
            manifest.find_models(models, task)
        except UserError:
            continue
        found.append(task)
    if not found:
        raise UserError(f"{models}: no models; expected a folder with {' or '.join(TASKS)} in it")
    return found


def verify(models: Path | str, task: str) -> list[str]:
    """What is wrong with a task's models: layout, manifest, checksums, signatures and numbers.

    Returns:
      One line for each finding, none if all is well.

    Raises:
      UserError: an unknown task, or no folder of it.
    """
    folder = manifest.find_models(models, task)
    try:
        content = manifest.read(folder, task)
    except DamagedFile as error:
        return [str(error)]
    findings = _check_files(folder, content)
    if findings:
        return findings  # what was altered is not run
    try:
        InitialLatents.read(folder, get_task(task))
        loaded = load(folder.parent, task)
    except DamagedFile as error:
        return [str(error)]
    for key in loaded.calls:
        findings += _check_outputs(loaded, *key) + _check_golden(loaded, *key)
    return findings


def info(models: Path | str, task: str) -> dict[str, Any]:
    """What is in a task's models and where their scores come from: the manifest's facts.

    Raises:
      UserError, DamagedFile: there is no folder, or its manifest cannot be used.
    """
    folder = manifest.find_models(models, task)
    content = manifest.read(folder, task)
    names = [name for name in contract.SIGNATURES if contract.model_file(name) in content["files"]]
    files = [folder / name for name in content["files"]]
    return {
        "folder": str(folder),
        "models": {name: list(contract.SIGNATURES[name]) for name in names},
        "bytes": sum(path.stat().st_size for path in files if path.is_file()),
        **{key: value for key, value in content.items() if key != "files"},
    }


def _check_files(folder: Path, content: dict[str, Any]) -> list[str]:
    findings = []
    for name in manifest.REQUIRED_FILES:
        if name not in content["files"]:
            findings.append(f"{folder / manifest.FILE_NAME}: does not list {name}")
    for name, digest in content["files"].items():
        try:
            manifest.check_file(folder, name, digest)
        except DamagedFile as error:
            findings.append(str(error))
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    for name in sorted(there - set(content["files"]) - {manifest.FILE_NAME}):
        findings.append(f"{folder / name}: not listed in {manifest.FILE_NAME}")
    for name in (card.FILE_NAME, golden.FILE_NAME):
        if name not in content["files"]:
            findings.append(f"{folder / name}: no such file")
    return findings


def _check_outputs(models: Models, model: str, name: str) -> list[str]:
    """Shapes, types and finite values for several numbers of rows."""
    signature = contract.SIGNATURES[model][name]
    place = f"{models.folder / model}: {name}"
    findings = []
    for rows in _ROWS:
        inputs = contract.example_inputs(models.task, signature, rows, np.random.default_rng(rows))
        outputs = models.calls[model, name](**inputs)
        for output, tensor in signature.outputs.items():
            array = outputs[output]
            shape = tuple(rows if size is None else size for size in tensor.resolved(models.task))
            if array.shape != shape or array.dtype != tensor.dtype:
                findings.append(
                    f"{place}: output {output}: expected {tensor.dtype} {list(shape)}, "
                    f"got {array.dtype} {list(array.shape)}"
                )
            elif not np.isfinite(array).all():
                findings.append(f"{place}: output {output}: values that are not finite")
    return findings


def _check_golden(models: Models, model: str, name: str) -> list[str]:
    place = f"{models.folder / model}: {name}"
    inputs, expected = golden.read(models.folder, model, name)
    if not inputs:
        return [f"{place}: no golden outputs in {golden.FILE_NAME}"]
    actual = models.calls[model, name](**inputs)
    return [
        f"{place}: output {output}: not the golden one, the greatest difference is "
        f"{np.max(np.abs(actual[output] - values)):.2g}"
        for output, values in expected.items()
        if not golden.agrees(actual[output], values)
    ]
