"""What TensorFlow Serving would read, read by TensorFlow and by the classes of its own messages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from wm_tf.serving import contract, golden, manifest
from wm_tf.serving import tensorflow_serving as serving

tf = pytest.importorskip("tensorflow")
prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
model_server_config_pb2 = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")

WARMUP = "1/assets.extra/tf_serving_warmup_requests"


@pytest.mark.parametrize("model", contract.SIGNATURES)
def test_there_is_a_warmup_request_for_each_signature(saved_models: Path, model: str) -> None:
    folder = saved_models / "car_racing"
    records = tf.data.TFRecordDataset(str(folder / model / WARMUP))  # checks both CRCs
    requests = {}
    for record in records.as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        assert request.model_spec.name == f"car_racing_{model}"
        requests[request.model_spec.signature_name] = request.inputs
    assert list(requests) == list(contract.SIGNATURES[model])
    loaded = tf.saved_model.load(str(folder / model / "1"))
    for signature, inputs in requests.items():
        expected_inputs, expected_outputs = golden.read(folder, model, signature)
        tensors = {name: tf.make_ndarray(tensor) for name, tensor in inputs.items()}
        for name, array in expected_inputs.items():
            np.testing.assert_array_equal(tensors[name], array)
            assert tensors[name].dtype == array.dtype
        outputs = loaded.signatures[signature](
            **{name: tf.constant(array) for name, array in tensors.items()}
        )
        assert all(
            golden.agrees(outputs[name].numpy(), array) for name, array in expected_outputs.items()
        )


def test_the_manifest_has_the_checksums_of_the_warmup_requests(saved_models: Path) -> None:
    files = manifest.read(saved_models / "car_racing", "car_racing")["files"]
    assert {f"{model}/{WARMUP}" for model in contract.SIGNATURES} <= files.keys()


@pytest.mark.parametrize("with_controller", [True, False])
def test_the_configuration_names_every_model_that_is_there(
    tmp_path: Path, with_controller: bool
) -> None:
    present = [("car_racing", "vision"), ("car_racing", "memory"), ("take_cover", "vision"),
               ("take_cover", "memory")]  # fmt: skip
    if with_controller:
        present += [("car_racing", "controller"), ("take_cover", "controller")]
    for task, model in present:
        path = tmp_path / task / contract.model_file(model)
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    serving.write_config(tmp_path)
    text = (tmp_path / "models.config").read_text()
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    models = {
        entry.name: (entry.base_path, entry.model_platform)
        for entry in config.model_config_list.config
    }
    assert models == {
        f"{task}_{model}": (f"/models/{task}/{model}", "tensorflow") for task, model in present
    }


def test_an_export_configures_what_it_wrote(saved_models: Path) -> None:
    text = (saved_models / "models.config").read_text()
    assert [line.split('"')[3] for line in text.splitlines() if "config {" in line] == [
        f"/models/car_racing/{model}" for model in contract.SIGNATURES
    ]
