"""Loading: every altered file is found and named, and what is loaded is what was exported."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wm_tf import storage
from wm_tf.config import get_task
from wm_tf.envs.take_cover import ENVIRONMENT
from wm_tf.errors import DamagedFile, UserError
from wm_tf.evaluate import _Dreams
from wm_tf.models import Memory, Vision
from wm_tf.serving import manifest
from wm_tf.serving.export import export
from wm_tf.serving.initial import InitialLatents
from wm_tf.serving.load import Models, load, load_keras

TASK = get_task("car_racing")


def state(rows: int) -> dict[str, np.ndarray]:
    return {
        "latent": np.zeros((rows, TASK.latent_size), np.float32),
        "h": np.zeros((rows, TASK.hidden_size), np.float32),
        "c": np.zeros((rows, TASK.hidden_size), np.float32),
    }


def test_the_wrappers_return_the_contract(models: Models) -> None:
    frame = np.zeros((2, 64, 64, 3), np.uint8)
    mean, log_variance = models.encode(frame)
    assert mean.shape == log_variance.shape == (2, 32)
    decoded = models.decode(mean)
    assert (decoded.shape, decoded.dtype) == ((2, 64, 64, 3), np.float32)
    assert models.has_controller
    assert models.act(**state(2)).shape == (2, 3)
    action = np.zeros((2, 3), np.float32)
    step = models.step(action=action, **state(2))
    assert step["logits"].shape == step["mean"].shape == step["log_std"].shape == (2, 32, 5)
    dreamt = models.dream(action=action, temperature=1.0, seed=(1, 0), **state(2))
    np.testing.assert_allclose(
        dreamt["done_probability"], 1.0 / (1.0 + np.exp(-step["done_logit"])), rtol=1e-5
    )
    np.testing.assert_allclose(dreamt["h"], step["h"], rtol=1e-5, atol=1e-6)
    assert models.temperature == 1.0
    assert models.end == manifest.EndRule("never")


def test_inputs_of_another_shape_or_type_are_refused(models: Models) -> None:
    with pytest.raises(ValueError, match=r"latent: expected \['B', 32\], got \[1, 64\]"):
        models.decode(np.zeros((1, 64), np.float32))
    with pytest.raises(ValueError, match="frame: expected uint8, got float64"):
        models.encode(np.zeros((1, 64, 64, 3)))
    with pytest.raises(ValueError, match="frame: expected uint8, got 300"):
        models.encode(np.full((1, 64, 64, 3), 300, np.uint16))
    with pytest.raises(ValueError, match=r"h: expected 2 rows as in latent, got 1"):
        models.act(**{**state(2), "h": state(1)["h"]})
    with pytest.raises(ValueError, match=r"missing: .*action"):
        models.calls["memory", "step"](**state(1))
    with pytest.raises(ValueError, match="seed: expected int32, got 4294967297"):
        models.dream(
            action=np.zeros((2, 3), np.float32), temperature=1.0, seed=(2**32 + 1, 0), **state(2)
        )
    with pytest.raises(ValueError, match=r"latent: expected float32, got 1e\+39"):
        models.decode(np.full((1, 32), 1e39))
    for call, array in (
        (models.decode, np.zeros((0, 32))),
        (models.encode, np.zeros((0, 64, 64, 3))),
    ):
        with pytest.raises(ValueError, match="expected at least one row, got none"):
            call(array.astype("f4" if call == models.decode else "u1"))
    latents = np.zeros((2, TASK.latent_size), np.float64)  # NumPy's own default is welcome
    assert models.decode(latents).shape == (2, 64, 64, 3)


def test_keras_models_come_back_with_exactly_their_weights(
    saved_models: Path, keras_models: dict[str, Any]
) -> None:
    vision, memory, controller = load_keras(saved_models, "car_racing")
    for mine, theirs in ((vision, keras_models["vision"]), (memory, keras_models["memory"])):
        for restored, original in zip(mine.get_weights(), theirs.get_weights(), strict=True):
            np.testing.assert_array_equal(restored, original)
    assert controller is not None
    original = keras_models["controller"].parameters.numpy()
    np.testing.assert_array_equal(controller.parameters.numpy(), original)
    assert original.any()


def test_a_dream_whose_return_is_survival_is_played_from_its_beginning(tmp_path: Path) -> None:
    task = get_task("take_cover")
    states = np.zeros((2, 4, task.hidden_size), np.float32)
    states[:, 2:] = 0.1  # two of four moments are on the way
    latents = np.arange(4 * task.latent_size, dtype=np.float32).reshape(4, -1)
    export(
        tmp_path / task.name,
        task,
        vision=Vision(task.latent_size),
        memory=Memory(task.latent_size, task.action_size, task.hidden_size, task.mixtures),
        initial_latents=InitialLatents(latents, latents, *states),
        facts=manifest.Facts(environment=ENVIRONMENT),
    )
    dreams = _Dreams.of(task, tmp_path / task.name, None)
    for starts in (load(tmp_path, task.name).initial_latents, dreams.starts):
        np.testing.assert_array_equal(starts.mean, latents[:2])
        assert starts.h is None


def test_models_without_a_controller(altered: Callable[..., Path]) -> None:
    folder = altered(
        files=lambda files: {
            name: digest for name, digest in files.items() if not name.startswith("controller/")
        }
    )
    shutil.rmtree(folder / "car_racing" / "controller")
    loaded = load(folder, "car_racing")
    assert not loaded.has_controller
    with pytest.raises(UserError, match="no controller"):
        loaded.act(**state(1))
    with pytest.raises(UserError, match="no controller"):
        load(folder, "car_racing", controller=True)
    assert load_keras(folder, "car_racing")[2] is None


def test_a_relative_folder_is_looked_up_here_then_in_the_checkout(
    saved_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(saved_models.parent)
    assert manifest.find_models(saved_models.name, "car_racing") == saved_models / "car_racing"
    monkeypatch.chdir(tmp_path)
    checkout = Path(manifest.__file__).parents[2]
    monkeypatch.setattr(manifest, "__file__", str(saved_models / "wm_tf" / "serving" / "m.py"))
    assert manifest.find_models(".", "car_racing") == saved_models / "car_racing"
    assert (checkout / "pyproject.toml").is_file()  # where it looks when nothing is patched
    # A folder of other models is not filled up with those of the checkout.
    (tmp_path / "take_cover").mkdir()
    with pytest.raises(UserError, match=f"no folder {tmp_path}/car_racing; models . has: take"):
        manifest.find_models(".", "car_racing")


def test_an_unknown_task_is_refused(saved_models: Path) -> None:
    with pytest.raises(UserError, match=r"unknown task 'boat_racing': expected one of car_racing"):
        load(saved_models, "boat_racing")


def test_a_missing_folder_is_named_with_what_there_is(saved_models: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no folder {tmp_path}"):
        load(tmp_path, "car_racing")
    with pytest.raises(UserError, match=r"no models of task 'take_cover'.*has: car_racing"):
        load(saved_models, "take_cover")


def test_a_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "car_racing").mkdir()
    with pytest.raises(DamagedFile, match=r"manifest\.json: no such file"):
        load(tmp_path, "car_racing")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "take_cover"}, "models of task 'take_cover', expected 'car_racing'"),
        ({"format_version": 2}, "format version 2, expected 1 .a newer wm_tf"),
        ({"format_version": None}, "format version None, expected 1"),
        ({"latent_size": 64}, "latent_size 64, expected 32"),
        ({"temperature": 0}, "temperature 0, expected a positive number"),
        ({"files": {}}, r"does not list vision/1/saved_model\.pb"),
        ({"files": []}, "key 'files' is missing or of the wrong type"),
        ({"end": {"rule": "sometimes"}}, "expected one of never, threshold, sampled"),
        ({"end": {"rule": "threshold", "value": 2}}, r"expected a number in \(0, 1\), got 2"),
        ({"end": {"rule": "never", "value": 0.5}}, "expected null for 'never'"),
        ({"end": {}}, "end: expected {rule, value, odds_correction}, got {}"),
        ({"end": {"rule": "never", "odds_correction": 0}}, "odds_correction: expected a positive"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused(
    altered_models: Callable[..., Path], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DamagedFile, match=message) as caught:
        load(altered_models(**changes), "car_racing")
    assert "manifest.json" in str(caught.value)


def test_a_file_outside_the_folder_is_refused(altered: Callable[..., Path]) -> None:
    folder = altered(files=lambda files: {**files, "../secret": "0" * 64})
    (folder / "secret").write_text("")
    with pytest.raises(DamagedFile, match=r"'\.\./secret', which lies outside"):
        load(folder, "car_racing")


def test_a_missing_file_is_named(altered: Callable[..., Path]) -> None:
    folder = altered()
    index = folder / "car_racing" / "memory" / "1" / "variables" / "variables.index"
    index.unlink()
    with pytest.raises(DamagedFile, match=f"{index}: no such file"):
        load(folder, "car_racing")


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_in_any_file_is_found_and_named(
    data: st.DataObject, saved_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "flipped" / "car_racing"
    if not folder.exists():
        shutil.copytree(saved_models / "car_racing", folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(files), label="file")
    place = data.draw(st.integers(0, path.stat().st_size * 8 - 1), label="bit")
    original = path.read_bytes()
    changed = bytearray(original)
    changed[place // 8] ^= 1 << place % 8
    path.write_bytes(changed)
    try:
        with pytest.raises(DamagedFile) as caught:
            manifest.read_verified(folder, "car_racing")
    finally:
        path.write_bytes(original)
    assert str(caught.value).startswith(f"{path}: damaged")


@pytest.mark.parametrize("read", [load, load_keras])
def test_a_missing_signature_is_named(
    altered: Callable[..., Path], read: Callable[[Path, str], Any]
) -> None:
    """Models whose checksums match but that somebody exported without the contract's functions."""
    folder = altered(replace={"memory": "vision"})
    with pytest.raises(DamagedFile, match=r"memory.1: signature 'step' is missing .it has: decode"):
        read(folder, "car_racing")


def test_a_signature_of_other_shapes_is_named(altered: Callable[..., Path], tmp_path: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    spec = tf.TensorSpec([None, 8], tf.float32, name="latent")
    decode = tf.function(lambda latent: {"frame": latent}).get_concrete_function(spec)
    encode = tf.function(lambda frame: {"mean": frame}).get_concrete_function(
        tf.TensorSpec([None, 64, 64, 3], tf.uint8, name="frame")
    )
    signatures = {"decode": decode, "encode": encode, "serving_default": encode}
    tf.saved_model.save(module, str(tmp_path / "other" / "1"), signatures=signatures)
    folder = altered(replace={"vision": str(tmp_path / "other")})
    with pytest.raises(DamagedFile, match=r"encode: output mean: expected float32 \[None, 32\]"):
        load(folder, "car_racing")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda held: held.pop("serving_default"), "signature 'serving_default' is missing"),
        (
            lambda held: held["serving_default"].CopyFrom(held["dream"]),
            "signature 'serving_default' is not 'step'",
        ),
    ],
)
def test_the_default_signature_is_part_of_the_contract(
    altered: Callable[..., Path], change: Callable[[Any], None], message: str
) -> None:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    folder = altered()
    path = folder / "car_racing" / "memory" / "1" / "saved_model.pb"
    saved = SavedModel.FromString(path.read_bytes())
    change(saved.meta_graphs[0].signature_def)
    path.write_bytes(saved.SerializeToString())
    _resign(folder)
    with pytest.raises(DamagedFile, match=message):
        load(folder, "car_racing")


def test_variables_that_are_cut_are_named(altered: Callable[..., Path]) -> None:
    folder = altered()
    (data,) = (folder / "car_racing" / "vision" / "1" / "variables").glob("*.data-*")
    data.write_bytes(data.read_bytes()[:1000])
    _resign(folder)
    with pytest.raises(DamagedFile, match=r"vision.1: variables that cannot be read"):
        load_keras(folder, "car_racing")


@pytest.mark.parametrize("temperature", [0.0, 1e-45, -1.0, np.nan, np.inf])
def test_a_temperature_that_is_none_is_refused(models: Models, temperature: float) -> None:
    z, a, h = (np.zeros((1, size), np.float32) for size in (32, 3, 256))
    with pytest.raises(ValueError, match="temperature: expected a number greater than 0"):
        models.dream(z, a, h, h, temperature, (1, 2))


def test_a_name_that_is_too_long_is_not_found() -> None:
    with pytest.raises(UserError, match="no models of task"):
        manifest.find_models("a" * 300, "car_racing")


def test_finding_and_describing_models_needs_no_tensorflow() -> None:
    script = (
        "import sys, wm_tf.serving.load, wm_tf.dream.envs, wm_tf.serving.verify;"
        "sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def _resign(folder: Path) -> None:
    """Lists the files as they are."""
    path = folder / "car_racing" / manifest.FILE_NAME
    files = manifest.checksums(folder / "car_racing")
    storage.write_json(path, {**storage.read_json(path), "files": files})


@pytest.fixture
def altered(saved_models: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copies `saved_models`, replaces models by others and lists what `files` makes of the rest."""

    def alter(
        files: Callable[[dict[str, str]], dict[str, str]] = dict,
        replace: dict[str, str] | None = None,
    ) -> Path:
        copy = tmp_path / "saved_models"
        task = copy / "car_racing"
        shutil.copytree(saved_models, copy)
        for model, other in (replace or {}).items():
            shutil.rmtree(task / model)
            shutil.copytree(task / other, task / model)
        path = task / manifest.FILE_NAME
        content = storage.read_json(path)
        storage.write_json(path, {**content, "files": files(manifest.checksums(task))})
        return copy

    return alter
