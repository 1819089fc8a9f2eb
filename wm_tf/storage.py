"""State on disk: data instead of code, written whole or not at all, and checked when read.

Every file that this package reads back is one of two kinds, and both carry a SHA-256 of
themselves, so that a truncated or altered file is found before anything in it is used:

* JSON: an object whose key ``sha256`` is the digest of its own text without that key.
* npz: an ordinary NumPy archive (no pickles) whose zip comment is the digest of all the bytes
  before the comment. ``numpy.load`` reads it as it is.

Writing goes to a temporary file in the same folder, which is flushed to the disk and renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sys
import time
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wm_tf.errors import DamagedFile, RunFailed, UserError

_DIGEST_LENGTH = 64  # hexadecimal characters of a SHA-256
_METADATA = "metadata"
_CHECKSUM = "sha256"
_TEMPORARY = ".tmp"
_NAME_KEPT = 40  # characters of a file's name in that of its temporary one: 255 bytes are the limit
_WRITING = 3600.0  # seconds that no file takes to be written


def sha256(path: Path) -> str:
    """The SHA-256 of a file, as 64 hexadecimal characters.

    Raises:
      DamagedFile: the file is missing or cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise DamagedFile(f"{path}: no such file") from None
    except OSError as error:
        raise DamagedFile(f"{path}: cannot be read ({error.strerror})") from error


def stamp(path: Path) -> str:
    """The checksum that an npz file carries, without reading the rest of it: names its content.

    Raises:
      DamagedFile: the file is missing.
    """
    try:
        with path.open("rb") as file:
            file.seek(-_DIGEST_LENGTH, os.SEEK_END)
            return file.read().decode("ascii", "replace")
    except OSError as error:
        raise DamagedFile(f"{path}: cannot be read ({error.strerror})") from error


def beside(path: Path, name: str) -> Path:
    """A file of that name for while `path` is written, which `remove_leftovers` knows."""
    return path.with_name(f".{path.name[:_NAME_KEPT]}.{name}{_TEMPORARY}")


def write_bytes(path: Path, data: bytes) -> None:
    """Writes `data` to `path` so that a reader sees the old file or the new one, never a part.

    Raises:
      RunFailed: the file cannot be written (disk full, no permission); the old one is untouched.
    """
    temporary = beside(path, uuid.uuid4().hex)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise RunFailed(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_output(flag: str, path: Path | None) -> None:
    """Looks, before long work, whether its result can be written where a flag says.

    Raises:
      UserError: the place is no file's, or nothing can be written there.
    """
    if path is None:
        return
    folder = next((place for place in path.absolute().parents if os.path.exists(place)), path)
    if not path.name or (os.path.exists(path) and not os.path.isfile(path)):
        raise UserError(f"{flag}: expected the name of a file, got {str(path)!r}")
    if not folder.is_dir():
        raise UserError(f"{flag}: expected a file in a folder, but {folder} is none")
    if not os.access(folder, os.W_OK):
        raise UserError(f"{flag}: nothing can be written into {folder}")


def reason_of(message: str) -> str:
    """Why TensorFlow could not write a file, from the message of its error.

    That is ``{{node ...}} path; reason [Op:...]``, and then lines of what it was at.
    """
    return message.partition("\n")[0].rpartition("; ")[2].partition(" [Op:")[0]


def append_line(path: Path, line: str) -> None:
    """Adds a line to a text file that nothing of ours reads back.

    Raises:
      RunFailed: it cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise RunFailed(f"cannot write {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def only_writer(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Keeps others who ask for it out of a folder. (Windows and some file systems cannot.)

    The system lets the next one in when a process is killed.

    Args:
      folder: which exists.
      wait: until the one who is in has left.

    Raises:
      BlockingIOError: somebody is in, and `wait` is False.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files that killed writers left below `folder`.

    They do no harm but fill the disk. A young one may be of a writer that is at work.
    """
    with contextlib.suppress(OSError):  # somebody has just renamed or removed what is looked at
        for temporary in folder.rglob(f".*{_TEMPORARY}"):
            if time.time() - temporary.stat().st_mtime > _WRITING:
                temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON object, which has no key ``sha256``, with its checksum; see `write_bytes`."""
    if _CHECKSUM in content:
        raise ValueError(f"content: the key {_CHECKSUM!r} is reserved for the checksum")
    write_bytes(path, _json_text(content).encode())


def read_json(path: Path) -> dict[str, Any]:
    """Reads an object that `write_json` wrote.

    Raises:
      DamagedFile: the file is missing or is not, byte for byte, what was written.
    """
    data = _read_bytes(path)
    try:
        content = json.loads(data)
        del content[_CHECKSUM]
        intact = _json_text(content).encode() == data
    except (ValueError, KeyError, TypeError, RecursionError):
        intact = False
    if not intact:
        raise DamagedFile(f"{path}: damaged (its checksum does not match its content)")
    return content


def write_npz(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    metadata: Mapping[str, Any] | None = None,
    *,
    compress: bool = True,
) -> None:
    """Writes arrays, none named ``metadata``, and a JSON object beside them with their checksum."""
    if _METADATA in arrays:
        raise ValueError(f"arrays: the name {_METADATA!r} is reserved for the JSON object")
    buffer = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    members = {**arrays, _METADATA: np.array(json.dumps(metadata or {}, sort_keys=True))}
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in members.items():
            # A fixed date: the same content gives the same bytes.
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
            # Level 1 takes a third of the default's time for a twentieth more bytes.
            archive.writestr(entry, member.getbuffer(), method, compresslevel=1)
        archive.comment = b"0" * _DIGEST_LENGTH
    body = buffer.getbuffer()[:-_DIGEST_LENGTH]
    write_bytes(path, bytes(body) + hashlib.sha256(body).hexdigest().encode())


def read_npz(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads what `write_npz` wrote: (arrays, metadata).

    Raises:
      DamagedFile: the file is missing or is not, byte for byte, what was written.
    """
    data = _checked_bytes(path)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return arrays, json.loads(str(arrays.pop(_METADATA)))
    except Exception as error:  # of what others wrote, with a checksum
        raise DamagedFile(f"{path}: not an archive of this package ({error})") from error


def read_array(path: Path, name: str) -> np.ndarray:
    """One array of what `write_npz` wrote. The rest of the file is neither read nor checked.

    Raises:
      DamagedFile: the file is missing, or cut, or the array is not what was written.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return archive[name]
    except Exception as error:  # a bit that is flipped in a zip file can raise anything
        raise DamagedFile(f"{path}: damaged ({name} cannot be read: {error})") from error


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of what `write_npz` wrote, all of which is checked; raises DamagedFile."""
    data = _checked_bytes(path)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return json.loads(str(archive[_METADATA]))
    except Exception as error:  # of what others wrote, with a checksum
        raise DamagedFile(f"{path}: not an archive of this package ({error})") from error


def _checked_bytes(path: Path) -> bytes:
    data = _read_bytes(path)
    digest = hashlib.sha256(memoryview(data)[:-_DIGEST_LENGTH]).hexdigest().encode()
    if len(data) <= _DIGEST_LENGTH or data[-_DIGEST_LENGTH:] != digest:
        raise DamagedFile(f"{path}: damaged (its checksum does not match its content)")
    return data


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DamagedFile(f"{path}: no such file") from None
    except OSError as error:
        raise DamagedFile(f"{path}: cannot be read ({error.strerror})") from error


def _json_text(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps({**content, _CHECKSUM: digest}, indent=1, ensure_ascii=False) + "\n"


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # a folder cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
