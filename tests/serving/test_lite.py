"""TFLite: the converted files give what the Keras models give, or are not written."""

from __future__ import annotations

import dataclasses
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wm_tf import storage
from wm_tf.cli import main
from wm_tf.config import get_task
from wm_tf.errors import RunFailed
from wm_tf.serving import contract, lite, manifest
from wm_tf.serving.load import Models

TASK = get_task("car_racing")


@pytest.fixture(scope="module")
def converted(saved_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the converted models."""
    out = tmp_path_factory.mktemp("tflite")
    arguments = ["--format", "tflite", "--models", str(saved_models), "--out", str(out)]
    assert main(["export", "car_racing", *arguments]) == 0
    return out / "car_racing"


def signatures(file: Path) -> Any:
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the interpreter moves to another package
        return tf.lite.Interpreter(model_path=str(file))


def test_every_model_is_there_with_its_signatures(converted: Path) -> None:
    found = {
        file.name: sorted(signatures(file).get_signature_list()) for file in converted.iterdir()
    }
    assert found == {
        "vision.tflite": ["decode", "encode"],
        "memory.tflite": ["step"],
        "controller.tflite": ["act"],
    }


@pytest.mark.parametrize("rows", [1, 5])
def test_they_give_what_the_keras_models_give(
    converted: Path, keras_models: dict[str, Any], rows: int
) -> None:
    def run(model: str, name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        signature = contract.SIGNATURES[model][name]
        inputs = contract.example_inputs(TASK, signature, rows, np.random.default_rng(rows))
        runner = signatures(converted / f"{model}.tflite").get_signature_runner(name)
        return inputs, runner(**inputs)

    inputs, outputs = run("vision", "encode")
    mean, log_variance = keras_models["vision"].encode(**inputs)
    expected = {"mean": mean, "log_variance": log_variance}
    inputs, decoded = run("vision", "decode")
    outputs |= decoded
    expected["frame"] = keras_models["vision"].decode(**inputs)
    inputs, step = run("memory", "step")
    outputs |= step
    expected |= keras_models["memory"].step(**inputs)._asdict()
    inputs, acted = run("controller", "act")
    outputs |= acted
    expected["action"] = keras_models["controller"].act(**inputs)
    assert outputs.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(outputs[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_other_numbers_than_the_saved_models_are_refused(converted: Path, models: Models) -> None:
    content = (converted / "controller.tflite").read_bytes()
    same = lite._compare(models, "controller", "act", content, Path("c.tflite"))
    assert same.difference < 1e-5
    act = models.calls["controller", "act"]
    other = {
        **models.calls,
        ("controller", "act"): lambda **x: {"action": act(**x)["action"] + 0.1},
    }
    with pytest.raises(RunFailed, match=r"c\.tflite: act: action differs by up to 0\.1"):
        changed = dataclasses.replace(models, calls=other)
        lite._compare(changed, "controller", "act", content, Path("c.tflite"))


def test_no_controller_of_other_models_is_left(
    converted: Path, saved_models: Path, tmp_path: Path
) -> None:
    out = tmp_path / "car_racing"
    out.mkdir()
    shutil.copy(converted / "controller.tflite", out)
    shutil.copytree(saved_models, tmp_path / "models")
    folder = tmp_path / "models" / "car_racing"
    shutil.rmtree(folder / "controller")
    content = storage.read_json(folder / manifest.FILE_NAME)
    files = {name: file for name, file in content["files"].items() if "controller/" not in name}
    storage.write_json(folder / manifest.FILE_NAME, {**content, "files": files})
    lite.convert(tmp_path / "models", "car_racing", tmp_path)
    assert {file.name for file in out.iterdir()} == {"vision.tflite", "memory.tflite"}
