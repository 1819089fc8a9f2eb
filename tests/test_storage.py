"""Files are written whole or not at all, and damage of any kind is found before use."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wm_tf import storage
from wm_tf.errors import DamagedFile, RunFailed, UserError
from wm_tf.storage import (
    append_line,
    read_array,
    read_json,
    read_metadata,
    read_npz,
    remove_leftovers,
    sha256,
    write_bytes,
    write_json,
    write_npz,
)

posix_only = pytest.mark.skipif(os.name == "nt", reason="needs POSIX limits and signals")
same_folder = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

# What JSON can hold; names of arrays as they occur in code.
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(st.text().filter(lambda key: key != "sha256"), values, max_size=5)
names = st.from_regex(r"[a-z][a-z_0-9]{0,12}", fullmatch=True).filter(
    lambda name: name != "metadata"
)
arrays = st.dictionaries(
    names,
    hnp.arrays(
        st.sampled_from([np.uint8, np.bool_, np.int32, np.int64, np.float32, np.float64]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    ),
    max_size=4,
)

CONTENT = {"task": "car_racing", "scores": [1.5, -2.0, 1e-9], "note": "naïve \u2028 line", "n": 3}
ARRAYS = {
    "frames": np.random.default_rng(1).integers(0, 255, (3, 8, 8, 3)).astype(np.uint8),
    "actions": np.linspace(-1, 1, 30, dtype=np.float32).reshape(10, 3),
    "empty": np.zeros((0, 4), np.float32),
}

FILES = {
    "state.json": (lambda path: write_json(path, CONTENT), read_json),
    "stored.npz": (lambda path: write_npz(path, ARRAYS, CONTENT, compress=False), read_npz),
    "packed.npz": (lambda path: write_npz(path, ARRAYS, CONTENT), read_npz),
}


@pytest.fixture(params=FILES)
def file(request, tmp_path):
    """(path of a whole file, its reader)."""
    write, read = FILES[request.param]
    path = tmp_path / request.param
    write(path)
    return path, read


@same_folder
@given(content=objects)
def test_json_round_trip(tmp_path, content):
    path = tmp_path / "state.json"
    write_json(path, content)
    assert read_json(path) == content
    assert "sha256" in json.loads(path.read_bytes())


@same_folder
@given(arrays=arrays, metadata=objects, compress=st.booleans())
def test_npz_round_trip(tmp_path, arrays, metadata, compress):
    path = tmp_path / "data.npz"
    write_npz(path, arrays, metadata, compress=compress)
    again, metadata_again = read_npz(path)
    assert metadata_again == metadata
    assert again.keys() == arrays.keys()
    for name, array in arrays.items():
        assert again[name].dtype == array.dtype
        assert again[name].tobytes() == array.tobytes() and again[name].shape == array.shape


def test_numpy_reads_the_archive(tmp_path):
    write_npz(tmp_path / "data.npz", ARRAYS)
    with np.load(tmp_path / "data.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["frames"], ARRAYS["frames"])


def test_the_same_content_gives_the_same_bytes(file):
    path, _ = file
    before = path.read_bytes()
    time.sleep(0.01)
    FILES[path.name][0](path)
    assert path.read_bytes() == before


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(tmp_path / "abc") == expected


@pytest.mark.parametrize("part", [0.0, 0.5, 0.99, "all but a byte"])
def test_a_file_cut_short_is_found(file, part):
    path, read = file
    data = path.read_bytes()
    path.write_bytes(data[: -1 if isinstance(part, str) else int(part * len(data))])
    with pytest.raises(DamagedFile, match=path.name):
        read(path)


def test_a_file_with_something_added_is_found(file):
    path, read = file
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(DamagedFile, match=path.name):
        read(path)


def test_flipped_bits_are_found(file):
    path, read = file
    data = path.read_bytes()
    numbers = np.random.default_rng(7)
    bits = numbers.integers(0, 8 * len(data), 250).tolist()
    missed = []
    for bit in bits:
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            read(path)
        except DamagedFile as error:
            assert path.name in str(error)
        else:
            missed.append(bit)
    assert missed == []


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"3",
        b"null",
        b'"text"',
        b"{}",
        b'{"sha256": 1}',
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"a": 1, "sha256": "0"}',
        b'{"a": ' + b"9" * 5000 + b', "sha256": "0"}',
        b'{"a": NaN}',
        b'{"a": NaN, "sha256": ""}',
        b'{"a": "\\ud800", "sha256": ""}',
    ],
    ids=lambda content: content[:12].decode(errors="replace"),
)
def test_other_json_is_found(tmp_path, content):
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match=r"state\.json"):
        read_json(path)


def test_a_plain_archive_is_found(tmp_path):
    path = tmp_path / "plain.npz"
    np.savez(path, **ARRAYS)
    with pytest.raises(DamagedFile, match=r"plain\.npz"):
        read_npz(path)


@pytest.mark.parametrize("read", [read_json, read_npz])
def test_a_missing_file_is_named(tmp_path, read):
    with pytest.raises(DamagedFile, match=r"absent\.json: no such file"):
        read(tmp_path / "absent.json")
    with pytest.raises(DamagedFile, match="cannot be read"):
        read(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DamagedFile, match="cannot be read"):
        read(tmp_path / "file" / "below.json")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_refuses_what_is_not_a_number(tmp_path, number):
    write_json(tmp_path / "state.json", CONTENT)
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "state.json", {"loss": number})
    assert read_json(tmp_path / "state.json") == CONTENT


def test_objects_are_refused(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle=False"):
        write_npz(tmp_path / "data.npz", {"code": np.array([print])})
    assert not list(tmp_path.iterdir())


def test_reserved_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match="sha256"):
        write_json(tmp_path / "state.json", {"sha256": "mine"})
    with pytest.raises(ValueError, match="metadata"):
        write_npz(tmp_path / "data.npz", {"metadata": np.zeros(3)})
    assert not list(tmp_path.iterdir())


def test_the_folder_is_made_and_nothing_else_is_left(tmp_path):
    write_json(tmp_path / "a" / "b" / "state.json", CONTENT)
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["state.json"]


def test_a_folder_that_cannot_be_is_reported(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(RunFailed, match=r"cannot write .*state\.json: (Not a dir|File exists)"):
        write_json(tmp_path / "file" / "state.json", CONTENT)


def run(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@posix_only
def test_a_full_disk_is_reported_and_the_old_file_stays(tmp_path):
    """The limit on file sizes stands for the full disk: the write fails halfway."""
    path = tmp_path / "state.npz"
    write_npz(path, ARRAYS, {"generation": 1})
    code = """
import pathlib, resource, signal, sys
import numpy as np
from wm_tf import errors, storage
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    storage.write_npz(pathlib.Path(sys.argv[1]), {"a": np.ones(10**5)}, compress=False)
except errors.RunFailed as error:
    print(error)
"""
    process = run(code, path)
    assert process.communicate()[0] == f"cannot write {path}: File too large\n"
    assert read_npz(path)[1] == {"generation": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["state.npz"]


@posix_only
def test_killed_writers_leave_whole_files(tmp_path):
    code = """
import pathlib, sys
import numpy as np
from wm_tf import storage
folder = pathlib.Path(sys.argv[1])
for number in range(10**6):
    data = np.full(100_000, number)
    storage.write_npz(folder / "state.npz", {"data": data}, {"number": number}, compress=False)
    storage.write_json(folder / "state.json", {"number": number, "text": str(number) * 10_000})
    print(number, flush=True)
"""
    numbers = np.random.default_rng(3)
    for _ in range(4):
        writer = run(code, tmp_path)
        writer.stdout.readline()
        time.sleep(numbers.uniform(0.0, 0.1))
        writer.send_signal(signal.SIGKILL)
        finished = int((writer.communicate()[0].split() or ["0"])[-1])
        arrays, metadata = read_npz(tmp_path / "state.npz")
        assert metadata["number"] >= finished
        assert (arrays["data"] == metadata["number"]).all()
        content = read_json(tmp_path / "state.json")
        assert content["text"] == str(content["number"]) * 10_000
        assert metadata["number"] - content["number"] in (0, 1)
    left = set(tmp_path.iterdir())
    remove_leftovers(tmp_path.parent)  # which might be of a writer that is at work
    assert set(tmp_path.iterdir()) == left
    for file in left:
        os.utime(file, (0, 0))
    remove_leftovers(tmp_path.parent)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["state.json", "state.npz"]


@posix_only
def test_a_reader_beside_a_writer_sees_whole_files(tmp_path):
    code = """
import pathlib, sys
from wm_tf import storage
while True:
    for letter in "ab":
        storage.write_json(pathlib.Path(sys.argv[1]), {"text": letter * 50_000})
"""
    path = tmp_path / "state.json"
    writer = run(code, path)
    try:
        while not path.exists():
            time.sleep(0.01)
        seen = {read_json(path)["text"] for _ in range(200)}
    finally:
        writer.kill()
        writer.communicate()
    assert seen <= {"a" * 50_000, "b" * 50_000}


def test_two_threads_write_the_same_file(tmp_path):
    path = tmp_path / "state.json"
    with ThreadPoolExecutor(4) as executor:
        for future in [executor.submit(write_json, path, {"n": n}) for n in range(40)]:
            future.result()
    assert read_json(path)["n"] in range(40)


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path):
    path = tmp_path / ("a" * 255)
    storage.write_bytes(path, b"content")
    assert [path] == list(tmp_path.iterdir())


def test_lines_are_added(tmp_path):
    for line in ("one", "two"):
        append_line(tmp_path / "log", line)
    assert (tmp_path / "log").read_text() == "one\ntwo\n"
    with pytest.raises(RunFailed, match=f"cannot write {tmp_path}: Is a directory"):
        append_line(tmp_path, "three")


def test_metadata_are_those_of_a_whole_file(tmp_path):
    path = tmp_path / "data.npz"
    write_npz(path, ARRAYS, CONTENT)
    assert read_metadata(path) == CONTENT
    path.write_bytes(path.read_bytes().replace(b"frames", b"flames"))
    with pytest.raises(DamagedFile, match=r"data\.npz"):
        read_metadata(path)


def test_bytes_replace_a_file(tmp_path):
    for data in (b"old and longer", b"", b"new"):
        write_bytes(tmp_path / "a", data)
        assert (tmp_path / "a").read_bytes() == data


def test_one_array_is_read_alone_and_its_damage_is_found(tmp_path):
    path = tmp_path / "arrays.npz"
    write_npz(path, {"rewards": np.arange(50.0), "frames": ARRAYS["frames"]})
    whole = path.read_bytes()
    np.testing.assert_array_equal(read_array(path, "rewards"), np.arange(50.0))
    with pytest.raises(DamagedFile, match=r"arrays\.npz: damaged \(actions cannot be read"):
        read_array(path, "actions")
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 16]) + whole[position + 1 :])
        try:
            np.testing.assert_array_equal(read_array(path, "rewards"), np.arange(50.0))
        except DamagedFile:
            continue
    path.write_bytes(whole[:200])
    for missing in (path, tmp_path / "none.npz"):
        with pytest.raises(DamagedFile, match=f"{missing.name}: damaged"):
            read_array(missing, "rewards")


def test_the_reason_is_taken_out_of_tensorflows_messages() -> None:
    full = "{{function_node __wrapped__SaveV2}} /disk/part-0; No space left on device [Op:SaveV2]"
    assert storage.reason_of(full) == "No space left on device"
    assert storage.reason_of("{{node}} /disk; File too large\n\t at ...") == "File too large"
    assert storage.reason_of("something else") == "something else"


def test_where_no_result_can_be_written_is_told_before(tmp_path):
    (tmp_path / "file").touch()
    storage.check_output("--json", None)
    storage.check_output("--json", tmp_path / "new" / "score.json")
    for path, message in (
        (tmp_path, "--json: expected the name of a file, got '/"),
        (Path("."), "--json: expected the name of a file, got '.'"),
        (tmp_path / "file" / "score.json", "file is none"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            storage.check_output("--json", path)


def test_an_archive_with_a_checksum_that_is_none_is_damaged(tmp_path):
    data = b"no archive"
    (tmp_path / "a.npz").write_bytes(data + hashlib.sha256(data).hexdigest().encode())
    for read in (read_npz, read_metadata):
        with pytest.raises(DamagedFile, match="not an archive"):
            read(tmp_path / "a.npz")
    with pytest.raises(DamagedFile, match="cannot be read"):
        storage.sha256(tmp_path)


def test_what_is_no_ordinary_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"--json: expected the name of a file, got .*pipe"):
        storage.check_output("--json", tmp_path / "pipe")
