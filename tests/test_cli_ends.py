"""How commands end where not their input is to blame: exit status, and what can still be told."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wm_tf import cli
from wm_tf.errors import RunFailed

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (RunFailed("the disk is full"), 1, "wm_tf: the disk is full\n"),
        (KeyboardInterrupt(), 130, "wm_tf: interrupted; the same command goes on\n"),
    ],
)
def test_other_ends_have_their_own_status(
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    error: BaseException,
    status: int,
    message: str,
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(cli.Collect, "__call__", fail)
    assert cli.main(["collect", "car_racing", "--run", str(tmp_path)]) == status
    assert capsys.readouterr().err == message


GO_ON = {
    "collect", "train-vision", "encode", "train-memory", "train-controller", "reproduce", "sweep",
    "ablate",
}  # fmt: skip


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_only_what_goes_on_says_so(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.COMMANDS[name], "__call__", interrupt)
    takes_task = any(field.name == "task" for field in dataclasses.fields(cli.COMMANDS[name]))
    assert cli.main([name, *(["car_racing"] if takes_task else [])]) == 130
    end = "; the same command goes on" if name in GO_ON else ""
    assert capsys.readouterr().err == f"wm_tf: interrupted{end}\n"


PRINTING = """
import sys
from wm_tf import cli
cli.Collect.__call__ = lambda _: print("generation 1", flush=sys.argv[1] == "flush")
sys.exit(cli.main(["collect", "car_racing"]))
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("when", ["flush", "at the end"])
def test_output_that_cannot_be_written_is_told_in_a_line(when: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", PRINTING, when], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr == "wm_tf: cannot write: No space left on device\n"


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX pipes")
@pytest.mark.parametrize("when", ["flush", "at the end"])
def test_output_that_nobody_reads_any_more_ends_silently(when: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", PRINTING, when], stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
def test_work_goes_on_where_nobody_could_read_what_goes_wrong(tmp_path: Path) -> None:
    script = """
import sys
from wm_tf.cli import main
status = main(["collect", "car_racing", "--episodes", "1", "--patience", "3", "--run", sys.argv[1]])
from wm_tf.runtime import import_tensorflow
import_tensorflow()
sys.exit(status)
"""
    shell = ["sh", "-c", 'exec "$@" 2>&-', "sh"]
    assert subprocess.run([*shell, sys.executable, "-c", script, str(tmp_path)]).returncode == 0
    assert len(list(tmp_path.rglob("episode-*.npz"))) == 1
