"""The exported SavedModels: contract, parity with the Keras models, and the folder's layout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wm_tf import storage
from wm_tf.config import get_task
from wm_tf.serving import contract
from wm_tf.serving.initial import InitialLatents
from wm_tf.serving.manifest import FORMAT_VERSION, Facts

TASK = get_task("car_racing")
BATCHES = (1, 7, 64)
CALLS = [(model, name) for model, names in contract.SIGNATURES.items() for name in names]

# What somebody with TensorFlow alone would write: none of this project's code is imported.
FRESH_PROCESS = """
import sys
import numpy as np
import tensorflow as tf

folder, inputs_file, outputs_file = sys.argv[1:]
models = {name: tf.saved_model.load(f"{folder}/{name}/1")
          for name in ("vision", "memory", "controller")}
outputs = {}
with np.load(inputs_file) as inputs:
    for call in sorted({key.rsplit(".", 1)[0] for key in inputs.files}):
        model, signature, batch = call.split(".")
        arguments = {key.rsplit(".", 1)[1]: tf.constant(inputs[key])
                     for key in inputs.files if key.rsplit(".", 1)[0] == call}
        results = models[model].signatures[signature](**arguments)
        outputs |= {f"{call}.{name}": value.numpy() for name, value in results.items()}
assert "wm_tf" not in sys.modules
np.savez(outputs_file, **outputs)
"""


def keras_outputs(
    models: dict[str, Any], model: str, name: str, inputs: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The contract's outputs, from the Keras models and nothing of the export."""
    import tensorflow as tf

    from wm_tf.models import mixture

    if name == "encode":
        mean, log_variance = models["vision"].encode(inputs["frame"])
        return {"mean": mean, "log_variance": log_variance}
    if name == "decode":
        return {"frame": models["vision"].decode(inputs["latent"])}
    if name == "act":
        return {"action": models["controller"].act(**inputs)}
    step = models["memory"].step(*(inputs[key] for key in ("latent", "action", "h", "c")))
    if name == "step":
        return step._asdict()
    noise = mixture.noise(inputs["seed"], inputs["latent"].shape)
    latent = mixture.sample(step.logits, step.mean, step.log_std, inputs["temperature"], *noise)
    return {
        "latent": latent,
        "reward": step.reward,
        "done_probability": tf.sigmoid(step.done_logit),
        "h": step.h,
        "c": step.c,
    }


@pytest.fixture(scope="module")
def inputs() -> dict[tuple[str, str, int], dict[str, np.ndarray]]:
    generator = np.random.default_rng(3)
    values = {
        (model, name, batch): contract.example_inputs(
            TASK, contract.SIGNATURES[model][name], batch, generator
        )
        for model, name in CALLS
        for batch in BATCHES
    }
    for key, arrays in values.items():
        if key[1] == "dream":
            arrays["temperature"] = np.array(1.3, np.float32)
    return values


@pytest.fixture(scope="module")
def fresh_outputs(
    saved_models: Path,
    inputs: dict[tuple[str, str, int], dict[str, np.ndarray]],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, np.ndarray]:
    folder = tmp_path_factory.mktemp("fresh")
    np.savez(
        folder / "inputs.npz",
        **{
            f"{model}.{name}.{batch}.{key}": array
            for (model, name, batch), arrays in inputs.items()
            for key, array in arrays.items()
        },
    )
    arguments = [saved_models / "car_racing", folder / "inputs.npz", folder / "outputs.npz"]
    subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS, *map(str, arguments)],
        check=True,
        timeout=180,
        stderr=subprocess.DEVNULL,
    )
    with np.load(folder / "outputs.npz") as outputs:
        return dict(outputs)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(("model", "name"), CALLS)
def test_a_fresh_process_gets_what_the_keras_model_gives(
    model: str,
    name: str,
    batch: int,
    keras_models: dict[str, Any],
    inputs: dict[tuple[str, str, int], dict[str, np.ndarray]],
    fresh_outputs: dict[str, np.ndarray],
) -> None:
    signature = contract.SIGNATURES[model][name]
    expected = keras_outputs(keras_models, model, name, inputs[model, name, batch])
    for key, tensor in signature.outputs.items():
        actual = fresh_outputs[f"{model}.{name}.{batch}.{key}"]
        shape = tuple(batch if size is None else size for size in tensor.resolved(TASK))
        assert (actual.shape, actual.dtype.name) == (shape, tensor.dtype)
        np.testing.assert_allclose(actual, expected[key], rtol=1e-5, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("model", contract.SIGNATURES)
def test_signatures_are_the_contract_and_nothing_else(saved_models: Path, model: str) -> None:
    import tensorflow as tf

    signatures = tf.saved_model.load(str(saved_models / "car_racing" / model / "1")).signatures
    assert set(signatures) == {*contract.SIGNATURES[model], "serving_default"}
    default = signatures[contract.default_signature(model)]
    for name, signature in {**contract.SIGNATURES[model], "serving_default": None}.items():
        expected = signature or contract.SIGNATURES[model][contract.default_signature(model)]
        actual = signatures[name]
        assert set(actual.structured_input_signature[1]) == set(expected.inputs)
        assert set(actual.structured_outputs) == set(expected.outputs)
        for side, tensors in (
            (actual.structured_input_signature[1], expected.inputs),
            (actual.structured_outputs, expected.outputs),
        ):
            for key, tensor in tensors.items():
                assert side[key].dtype.name == tensor.dtype
                assert tuple(side[key].shape.as_list()) == tensor.resolved(TASK)
    assert signatures["serving_default"].structured_outputs == default.structured_outputs


def test_saved_model_cli_shows_every_signature(saved_models: Path) -> None:
    path = saved_models / "car_racing" / "memory" / "1"
    shown = subprocess.run(
        [Path(sys.executable).with_name("saved_model_cli"), "show", "--dir", path, "--all"],
        check=True,
        timeout=180,
        capture_output=True,
        text=True,
    ).stdout
    for name in ("step", "dream", "serving_default"):
        assert f"signature_def['{name}']" in shown
    for tensor in ("temperature", "seed", "done_probability", "done_logit"):
        assert f"['{tensor}'] tensor_info" in shown


def test_the_same_call_gives_the_same_sample_and_rows_have_their_own_noise(models: Any) -> None:
    zero = np.zeros((2, TASK.hidden_size), np.float32)
    latent, action = np.zeros((2, TASK.latent_size)), np.zeros((2, TASK.action_size))

    def dream(seed: tuple[int, int], temperature: float = 1.0) -> np.ndarray:
        return models.dream(latent, action, zero, zero, temperature, seed)["latent"]

    np.testing.assert_array_equal(dream((5, 0)), dream((5, 0)))
    for other in (dream((5, 1)), dream((6, 0)), dream((5, 0), 1.5)):
        assert not np.allclose(dream((5, 0)), other)
    assert not np.allclose(*dream((5, 0)))


def test_the_folder_holds_the_layout_and_the_manifest_the_checksum_of_every_file(
    saved_models: Path,
) -> None:
    folder = saved_models / "car_racing"
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {
        "manifest.json", "README.md", "initial_latents.npz", "golden.npz",
        "vision/1/saved_model.pb", "memory/1/saved_model.pb", "controller/1/saved_model.pb",
    } <= files  # fmt: skip
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["files"]) == files - {"manifest.json"}
    for name, digest in manifest["files"].items():
        assert storage.sha256(folder / name) == digest
    assert manifest["format_version"] == FORMAT_VERSION
    assert manifest["task"] == "car_racing"
    sizes = ("latent_size", "hidden_size", "mixtures", "action_size", "steps_per_second")
    assert [manifest[size] for size in sizes] == [32, 256, 5, 3, 50]
    assert manifest["end"] == {"rule": "never", "value": None, "odds_correction": 1.0}
    assert manifest["packages"]["tensorflow"]
    names = {path.name for path in saved_models.iterdir()}
    assert names == {folder.name, "models.config"}  # nothing is left of building it aside


def test_start_latents_of_another_task_are_refused(
    tmp_path: Path, keras_models: dict[str, Any]
) -> None:
    from wm_tf.serving.export import export

    wrong = InitialLatents(np.zeros((4, 64), np.float32), np.zeros((4, 64), np.float32))
    with pytest.raises(ValueError, match=r"mean: expected \[4, 32\], got \[4, 64\]"):
        export(
            tmp_path / "car_racing",
            TASK,
            **{**keras_models, "initial_latents": wrong},
            facts=Facts({}),
        )
    assert list(tmp_path.iterdir()) == []
