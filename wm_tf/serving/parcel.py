"""Models on their way to machines that do not have their folder, named by their content.

    data = pack("saved_models", "car_racing")        # here
    unpack(data, checksum)                           # there, once
    find(folder, "car_racing", checksum)             # there: the folder of these very models

What was unpacked stays in a folder for temporary files, from which `find` takes it by the checksum
of its manifest; loading compares everything else with the manifest, as ever. The folder's name can
be guessed, so that it counts only where it belongs to this user and nobody else can enter it.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import tempfile
import zipfile
from pathlib import Path

from wm_tf.errors import DamagedFile, RunFailed, UserError
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

    What is there and is not whole (folders for temporary files are tidied up) is replaced.

    Raises:
      RunFailed: they cannot be written, or the folder is not this user's alone.
    """
    place = _store() / checksum
    try:
        _store().mkdir(mode=0o700, exist_ok=True)
        _check_owner()
        if _is_whole(place, checksum):
            return
        aside = Path(tempfile.mkdtemp(dir=_store()))
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                archive.extractall(aside / "new")
            if place.exists():
                os.rename(place, aside / "old")
            os.rename(aside / "new", place)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        if not _is_whole(place, checksum):  # another process may have been faster
            raise RunFailed(f"cannot write {place}: {error.strerror or error}") from error


def find(models: Path, task: str, checksum: str) -> Path:
    """The folder that holds the task's models of that checksum: `models`, or where they came to.

    Raises:
      RunFailed: it is neither, or the folder of what came is not this user's alone.
    """
    for place in (models, _store() / checksum):
        try:
            if manifest.checksum(place / task) != checksum:
                continue
        except DamagedFile:
            continue
        if place is not models:
            _check_owner()
        return place
    raise RunFailed(f"{models / task}: other models than those that were meant, or none")


def _is_whole(place: Path, checksum: str) -> bool:
    """Whether a folder holds the models of that checksum, with all their files."""
    try:
        (folder,) = place.iterdir()
        manifest.read_verified(folder, folder.name)
        return manifest.checksum(folder) == checksum
    except (OSError, ValueError, UserError):  # a ValueError: not one folder
        return False


def _check_owner() -> None:
    """Raises RunFailed where another user made the folder, or could write to it or look into it."""
    if not hasattr(os, "getuid"):
        return
    try:
        held = os.lstat(_store())
    except FileNotFoundError:
        return
    alone = stat.S_ISDIR(held.st_mode) and not stat.S_IMODE(held.st_mode) & 0o077
    if held.st_uid != os.getuid() or not alone:
        raise RunFailed(f"{_store()}: expected a folder of this user alone (mode 700); remove it")


def _store() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else ""
    return Path(tempfile.gettempdir()) / f"wm_tf_models_{user}"
