"""Models on their way to machines that do not have their folder, named by their content.

    data = pack("saved_models", "car_racing")        # here
    unpack(data, checksum)                           # there, once
    find(folder, "car_racing", checksum)             # there: the folder of these very models

What was unpacked stays in a folder for temporary files, from which `find` takes it by the checksum
of its manifest; loading compares everything else with the manifest, as ever.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import zipfile
from pathlib import Path

from wm_tf.errors import DamagedFile, RunFailed
from wm_tf.serving import manifest


def pack(models: Path | str, task: str) -> bytes:
    """A task's models as one zip archive.

    Raises:
      UserError, DamagedFile: there are no sound models of the task in that folder.
    """
    folder = manifest.find_models(models, task)
    names = manifest.read_verified(folder, task)["files"]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # weights hardly compress
        for name in (*names, manifest.FILE_NAME):
            archive.write(folder / name, f"{task}/{name}")
    return buffer.getvalue()


def unpack(data: bytes, checksum: str) -> None:
    """Puts packed models where `find` finds them, unless they are there; they are not loaded.

    Raises:
      RunFailed: they cannot be written.
    """
    place = _store() / checksum
    if place.exists():
        return
    try:
        _store().mkdir(mode=0o700, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=_store()))
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                archive.extractall(aside)
            os.rename(aside, place)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        if not place.exists():  # another process may have been faster
            raise RunFailed(f"cannot write {place}: {error.strerror or error}") from error


def find(models: Path, task: str, checksum: str) -> Path:
    """The folder that holds the task's models of that checksum: `models`, or where they came to.

    Raises:
      RunFailed: it is neither.
    """
    for place in (models, _store() / checksum):
        try:
            if manifest.checksum(place / task) == checksum:
                return place
        except DamagedFile:
            continue
    raise RunFailed(f"{models / task}: other models than those that were meant, or none")


def _store() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else ""
    return Path(tempfile.gettempdir()) / f"wm_tf_models_{user}"
