"""A task's folder as a whole: replaced in one step, and described by its card and manifest.

    TASK/{vision,memory,controller}/1/    SavedModels, see `wm_tf.serving.contract`, with requests
                                          for warm-up, see `wm_tf.serving.tensorflow_serving`
    TASK/initial_latents.npz              see `wm_tf.serving.initial`
    TASK/golden.npz                       see `wm_tf.serving.golden`
    TASK/README.md                        model card, and the images that it shows
    TASK/manifest.json                    see `wm_tf.serving.manifest`; written last

Nothing here needs TensorFlow.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wm_tf import storage
from wm_tf.errors import RunFailed
from wm_tf.serving import card, manifest, tensorflow_serving


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """An empty folder to write into, which takes the place of `folder` at the end of the block.

    A reader sees the old content or the new one. If the block fails the old content stays. What a
    writer that was killed left beside the folder is put back or removed first. Writers take turns.

    Raises:
      RunFailed: it cannot be written.
    """
    place = folder.resolve()  # of a link, what it points to
    aside = place.with_name(f".{place.name}.{os.getpid()}.new")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with storage.only_writer(place.parent):
            try:
                _recover(place)
                aside.mkdir()
                yield aside
                _flush(aside)
                _swap_in(aside, place)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise RunFailed(f"cannot write {folder}: {error.strerror or error}") from error


def describe(folder: Path, described: Mapping[str, Any], assets: Mapping[str, bytes]) -> None:
    """Writes assets, warm-up requests, model card and then the manifest of what is in `folder`.

    Args:
      described: the manifest's content; its ``files`` are made anew.
      assets: further files by path, such as the card's ``contact_sheet.png``.
    """
    for path, data in assets.items():
        storage.write_bytes(folder / path, data)
    tensorflow_serving.write_warmup(folder, described["task"])
    (folder / card.FILE_NAME).unlink(missing_ok=True)
    text = card.render(described, manifest.checksums(folder))
    storage.write_bytes(folder / card.FILE_NAME, text.encode())
    content = {**described, "files": manifest.checksums(folder)}
    storage.write_json(folder / manifest.FILE_NAME, content)


def renew(
    models: Path | str,
    task: str,
    *,
    scores: Sequence[Mapping[str, Any]] | None = None,
    assets: Mapping[str, bytes] | None = None,
) -> Path:
    """Changes what is said about models that are exported; the models stay as they are.

    Args:
      models, task: whose, see `manifest.find_models`.
      scores: the manifest's new ones; None keeps the old ones.
      assets: files to add or to replace.

    Returns:
      The task's folder.

    Raises:
      UserError, DamagedFile: there are no sound models.
      RunFailed: the folder cannot be written.
    """
    with contextlib.suppress(OSError):  # then it is not found, which is told
        place = (Path(models) / task).resolve()
        with storage.only_writer(place.parent):
            _recover(place)
    folder = manifest.find_models(models, task)
    with replacing(folder) as aside:
        described = manifest.read_verified(folder, task)
        if scores is not None:
            described["scores"] = [dict(score) for score in scores]
        for name in described["files"]:
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, aside / name)
        describe(aside, described, assets or {})
    tensorflow_serving.write_config(folder.parent)
    return folder


def _recover(folder: Path) -> None:
    """Ends what a killed writer began: old content that it had moved away counts if it is all."""
    for left in folder.parent.glob(f".{folder.name}.*.new"):
        shutil.rmtree(left, ignore_errors=True)
    for old in folder.parent.glob(f".{folder.name}.*.old"):
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(old, folder)


def _flush(folder: Path) -> None:
    """To the disk, so that a crash after the swap cannot lose what the manifest describes."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())


def _swap_in(aside: Path, folder: Path) -> None:
    if folder.exists() and _exchange(aside, folder):
        return
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    replaces = folder.exists()
    if replaces:
        os.rename(folder, old)
    try:
        os.rename(aside, folder)
    except OSError:
        if replaces:
            os.rename(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Lets two folders change their names in one step, where the system can (Linux)."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE
    paths = [os.fsencode(path.absolute()) for path in (one, other)]
    return rename is not None and rename(here, paths[0], here, paths[1], exchange) == 0
