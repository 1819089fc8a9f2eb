"""verify: says nothing of sound models and what is wrong with others."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wm_tf import storage
from wm_tf.config import get_task
from wm_tf.errors import DamagedFile, UserError
from wm_tf.serving import golden, manifest
from wm_tf.serving.verify import tasks_in, verify


@pytest.fixture
def copied(saved_models: Path, tmp_path: Path) -> Path:
    shutil.copytree(saved_models, tmp_path / "saved_models")
    return tmp_path / "saved_models"


def resigned(models: Path) -> None:
    """Writes the manifest again for files that were changed on purpose."""
    path = models / "car_racing" / manifest.FILE_NAME
    files = manifest.checksums(models / "car_racing")
    storage.write_json(path, {**storage.read_json(path), "files": files})


def test_sound_models_have_no_findings(saved_models: Path) -> None:
    assert tasks_in(saved_models) == ["car_racing"]
    assert verify(saved_models, "car_racing") == {
        "files": [], "vision": [], "memory": [], "controller": []
    }  # fmt: skip


def test_every_damaged_missing_and_additional_file_is_named(copied: Path) -> None:
    folder = copied / "car_racing"
    (folder / "README.md").write_text("other")
    (folder / "golden.npz").unlink()
    (folder / "notes.txt").write_text("mine")
    checks = verify(copied, "car_racing")
    assert list(checks) == ["files"]  # what was altered is not run
    findings = checks["files"]
    assert [finding.split(":")[0] for finding in findings] == [
        str(folder / name) for name in ("README.md", "golden.npz", "notes.txt")
    ]
    assert "damaged" in findings[0]
    assert "no such file" in findings[1]
    assert "not listed" in findings[2]


def test_a_manifest_that_cannot_be_used_is_the_finding(copied: Path) -> None:
    (copied / "car_racing" / "manifest.json").write_text("{}")
    (finding,) = verify(copied, "car_racing")["files"]
    assert "damaged" in finding


def test_other_numbers_than_the_golden_ones_are_found(copied: Path) -> None:
    folder = copied / "car_racing"
    arrays, _ = storage.read_npz(folder / golden.FILE_NAME)
    arrays["memory.step.outputs.reward"] = arrays["memory.step.outputs.reward"] + 0.01
    storage.write_npz(folder / golden.FILE_NAME, arrays)
    resigned(copied)
    checks = verify(copied, "car_racing")
    (finding,) = checks.pop("memory")
    assert not any(checks.values())
    assert "memory: step: output reward: not the golden one" in finding
    assert "0.01" in finding


def test_values_that_are_not_finite_are_found(tmp_path: Path, keras_models: dict[str, Any]) -> None:
    from wm_tf.models import Memory
    from wm_tf.serving.export import export

    task = get_task("car_racing")
    broken = Memory(task.latent_size, task.action_size, task.hidden_size)
    weights = broken.get_weights()
    weights[-1][-1] = np.nan  # the end head's bias
    broken.set_weights(weights)
    models = {**keras_models, "memory": broken, "controller": None}
    export(tmp_path / task.name, task, **models, facts=manifest.Facts({}))
    checks = verify(tmp_path, task.name)
    findings = checks.pop("memory")
    assert any("step: output done_logit: values that are not finite" in line for line in findings)
    assert any("dream: output done_probability" in line for line in findings)
    assert findings[0] == f"{tmp_path / task.name / 'memory'}: weights that are not finite"
    assert checks == {"files": [], "vision": []}


def test_goldens_that_cannot_be_used_are_found(copied: Path) -> None:
    arrays, _ = storage.read_npz(copied / "car_racing" / golden.FILE_NAME)
    arrays["vision.decode.inputs.latent"] = np.zeros((1, 3), np.float32)
    del arrays["controller.act.outputs.action"]
    arrays["memory.step.outputs.reward"] = arrays["memory.step.outputs.reward"][:1]
    storage.write_npz(copied / "car_racing" / golden.FILE_NAME, arrays)
    resigned(copied)
    checks = verify(copied, "car_racing")
    assert (
        "golden.npz cannot be used: latent: expected ['B', 32], got [1, 3]" in checks["vision"][0]
    )
    assert "act: no golden outputs" in checks["controller"][0]
    assert "step: golden.npz cannot be used: outputs of other shapes" in checks["memory"][0]


def test_a_folder_without_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no models; expected a folder with car_racing or"):
        tasks_in(tmp_path)


def test_what_may_not_be_read_is_named(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copied / "car_racing"

    def refuse(self: Path, *_: object, **__: object) -> object:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "is_file", refuse)  # as where a folder may not be entered
    for read in (
        lambda: manifest.checksum(folder),
        lambda: manifest.check_file(folder, "golden.npz", "0" * 64),
    ):
        with pytest.raises(DamagedFile, match=r"cannot be read \(Permission denied\)"):
            read()
