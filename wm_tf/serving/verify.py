"""Checks a task's folder of models and says what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from wm_tf.config import TASKS
from wm_tf.errors import DamagedFile, UserError
from wm_tf.serving import card, contract, golden, manifest
from wm_tf.serving.load import Models, load, load_keras

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


def verify(models: Path | str, task: str) -> dict[str, list[str]]:
    """What is wrong with a task's models: layout, manifest, checksums, signatures and numbers.

    Weights are looked at, too: a signature may have copies of its own of them.

    Returns:
      One line for each finding, none where all is well: of ``files`` (layout, manifest and
      checksums) and, where there is none of these, of each model. What was altered is not run.

    Raises:
      UserError: an unknown task, or no folder of it.
    """
    folder = manifest.find_models(models, task)
    try:
        findings = _check_files(folder, manifest.read(folder, task))
        if findings:
            return {"files": findings}
        loaded = load(folder.parent, task)
        from wm_tf.serving.export import variables  # imports TensorFlow

        weights = dict(zip(contract.SIGNATURES, load_keras(folder.parent, task), strict=True))
    except DamagedFile as error:
        return {"files": [str(error)]}
    checks: dict[str, list[str]] = {"files": []}
    for model, held in weights.items():
        if held is not None:
            finite = all(np.isfinite(weight).all() for weight in variables(held))
            checks[model] = [] if finite else [f"{folder / model}: weights that are not finite"]
    for model, name in loaded.calls:
        checks[model] += _check_outputs(loaded, model, name) + _check_golden(loaded, model, name)
    return checks


def verify_all(models: Path | str) -> None:
    """Verifies all tasks' models and prints a line for each part that is sound, or its findings.

    Raises:
      UserError: there are no models, or something is wrong with them.
    """
    wrong = 0
    for task in tasks_in(models):
        for part, findings in verify(models, task).items():
            wrong += len(findings)
            for line in findings or ["OK"]:
                print(f"{task} {part}: {line}", flush=True)
    if wrong:
        raise UserError(f"{models}: {wrong} finding{'s' if wrong > 1 else ''}")


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
    try:
        inputs, expected = golden.read(models.folder, model, name)
        if expected.keys() != contract.SIGNATURES[model][name].outputs.keys():
            return [f"{place}: no golden outputs in {golden.FILE_NAME}, or not of this signature"]
        actual = models.calls[model, name](**inputs)
    except (DamagedFile, ValueError) as error:
        return [f"{place}: {golden.FILE_NAME} cannot be used: {error}"]
    shapes = {output: (actual[output].shape, values.shape) for output, values in expected.items()}
    if any(held != wanted for held, wanted in shapes.values()):
        return [f"{place}: {golden.FILE_NAME} cannot be used: outputs of other shapes"]
    return [
        f"{place}: output {output}: not the golden one, the greatest difference is "
        f"{np.max(np.abs(actual[output] - values)):.2g}"
        for output, values in expected.items()
        if not golden.agrees(actual[output], values)
    ]
