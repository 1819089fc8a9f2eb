"""A task's folder is replaced as a whole, and described anew without touching its models."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wm_tf import storage
from wm_tf.errors import DamagedFile, RunFailed
from wm_tf.serving import folder as folders
from wm_tf.serving import manifest

SCORE = {
    "env": "real", "frames": "official", "seed": 1, "episodes": 16, "mean": 500.0, "std": 100.0,
    "se": 25.0, "min": 300.0, "max": 700.0, "command": "python -m wm_tf evaluate car_racing",
}  # fmt: skip


def write(folder: Path, *names: str) -> None:
    with folders.replacing(folder) as aside:
        for name in names:
            (aside / name).write_text(name)


def names_in(folder: Path) -> list[str]:
    assert list(folder.parent.iterdir()) == [folder]  # nothing else is left behind
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    write(tmp_path / "task", "first", "both")
    assert names_in(tmp_path / "task") == ["both", "first"]
    write(tmp_path / "task", "second", "both")
    assert names_in(tmp_path / "task") == ["both", "second"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs fcntl")
def test_two_writers_take_turns(tmp_path: Path) -> None:
    """The second one would take what the first one has written for a killed writer's."""
    code = """
import pathlib, sys
from wm_tf.serving.folder import replacing
print("ready", flush=True)
with replacing(pathlib.Path(sys.argv[1])) as aside:
    (aside / "second").touch()
"""
    command = [sys.executable, "-c", code, str(tmp_path / "task")]
    with folders.replacing(tmp_path / "task") as aside:
        (aside / "first").touch()
        second = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert second.stdout is not None
        assert second.stdout.readline() == b"ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(0.5)
        assert [path.name for path in aside.iterdir()] == ["first"]
    assert second.wait(30) == 0
    second.stdout.close()
    assert names_in(tmp_path / "task") == ["second"]


def test_of_a_link_what_it_points_to_is_replaced(tmp_path: Path) -> None:
    write(tmp_path / "here" / "task", "old")
    (tmp_path / "link").symlink_to(tmp_path / "here" / "task")
    for _ in range(2):
        write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert names_in(tmp_path / "here" / "task") == ["new"]


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".task.1.new" / "half").mkdir(parents=True)
    write(tmp_path / "task", "whole")
    assert names_in(tmp_path / "task") == ["whole"]


@pytest.mark.parametrize("content", ["old", "new"])
def test_what_a_killed_writer_moved_away_is_put_back(tmp_path: Path, content: str) -> None:
    """On a system that cannot exchange two folders in one step: killed before or after the second
    renaming; then a writer that fails."""
    (tmp_path / ".task.1.old").mkdir()
    (tmp_path / ".task.1.old" / "old").touch()
    if content == "new":
        (tmp_path / "task").mkdir()
        (tmp_path / "task" / "new").touch()
    with pytest.raises(KeyboardInterrupt), folders.replacing(tmp_path / "task"):
        raise KeyboardInterrupt
    assert names_in(tmp_path / "task") == [content]


def test_models_that_a_killed_writer_moved_away_are_described_anew(
    saved_models: Path, tmp_path: Path
) -> None:
    shutil.copytree(saved_models / "car_racing", tmp_path / ".car_racing.1.old")
    folder = folders.renew(tmp_path, "car_racing", scores=[SCORE])
    assert folder == tmp_path / "car_racing"
    assert manifest.read_verified(folder, "car_racing")["scores"] == [SCORE]


@pytest.mark.skipif(sys.platform != "linux", reason="needs renameat2")
def test_a_reader_never_misses_the_folder(tmp_path: Path) -> None:
    """Beside a process that replaces it again and again, and is killed in the middle of it."""
    code = """
import itertools, pathlib, sys
from wm_tf.serving.folder import replacing
for number in itertools.count():
    with replacing(pathlib.Path(sys.argv[1])) as aside:
        (aside / "number").write_text(str(number))
"""
    folder = tmp_path / "task"
    with subprocess.Popen([sys.executable, "-c", code, str(folder)]) as writer:
        while not folder.exists():
            time.sleep(0.01)
        last, replaced = 0, 0
        while replaced < 10:
            descriptor = os.open(folder, os.O_RDONLY)  # fails if it is missing
            # Two folders take turns with the same numbers on some file systems.
            inode = os.fstat(descriptor).st_ino
            replaced += inode != last
            last = inode
            os.close(descriptor)
        writer.kill()
    assert (folder / "number").read_text().isdigit()


def test_the_old_content_is_there_until_the_new_one_is_complete(tmp_path: Path) -> None:
    write(tmp_path / "task", "old")
    with folders.replacing(tmp_path / "task") as aside:
        (aside / "new").write_text("")
        assert [path.name for path in (tmp_path / "task").iterdir()] == ["old"]
    assert names_in(tmp_path / "task") == ["new"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_keeps_the_old_content(tmp_path: Path, error: BaseException) -> None:
    write(tmp_path / "task", "old")
    expected = RunFailed if isinstance(error, OSError) else KeyboardInterrupt

    def fail() -> None:
        with folders.replacing(tmp_path / "task") as aside:
            (aside / "half").write_text("")
            raise error

    with pytest.raises(expected) as caught:
        fail()
    assert names_in(tmp_path / "task") == ["old"]
    if expected is RunFailed:
        assert str(caught.value) == f"cannot write {tmp_path / 'task'}: No space left on device"


def test_a_swap_that_fails_restores_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a system that cannot exchange two folders in one step."""
    write(tmp_path / "task", "old")
    monkeypatch.setattr(folders, "_exchange", lambda one, other: False)
    rename = folders.os.rename

    def failing(source: Path, target: Path) -> None:
        if source.suffix == ".new":
            raise OSError(13, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(folders.os, "rename", failing)
    with pytest.raises(RunFailed, match="Permission denied"):
        write(tmp_path / "task", "new")
    assert names_in(tmp_path / "task") == ["old"]


def test_scores_and_images_are_renewed_and_models_are_not(
    saved_models: Path, tmp_path: Path
) -> None:
    models = tmp_path / "saved_models"
    shutil.copytree(saved_models, models)
    before = manifest.read_verified(models / "car_racing", "car_racing")
    folder = folders.renew(
        models, "car_racing", scores=[SCORE], assets={"contact_sheet.png": b"image"}
    )
    after = manifest.read_verified(folder, "car_racing")
    assert after["scores"] == [SCORE]
    assert after["training"] == before["training"]
    changed = {
        name for name, digest in after["files"].items() if before["files"].get(name) != digest
    }
    assert changed == {"README.md", "contact_sheet.png"}
    card = (folder / "README.md").read_text()
    assert "500.0 +/- 100.0" in card
    assert "(contact_sheet.png)" in card
    folders.renew(models, "car_racing")
    assert manifest.read_verified(folder, "car_racing")["scores"] == [SCORE]
    assert "(contact_sheet.png)" in (folder / "README.md").read_text()


def test_damaged_models_are_not_described_anew(saved_models: Path, tmp_path: Path) -> None:
    models = tmp_path / "saved_models"
    shutil.copytree(saved_models, models)
    (models / "car_racing" / "golden.npz").write_bytes(b"")
    digest = storage.sha256(models / "car_racing" / "manifest.json")
    with pytest.raises(DamagedFile, match=r"golden\.npz: damaged"):
        folders.renew(models, "car_racing", scores=[])
    assert storage.sha256(models / "car_racing" / "manifest.json") == digest
