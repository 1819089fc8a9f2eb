"""What a machine does to a run: a full disk, Ctrl-C, numbers that overflow, things that lack."""

from __future__ import annotations

import contextlib
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tools import SMOKE, Command, unsound, until

from wm_tf import storage
from wm_tf.training import checkpoint

Start = Callable[..., Command]
Seen = Callable[[str], None]


# --- A full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A file system of so many megabytes; given again, it has the new size."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(megabytes: int) -> Path:
        again = ["-o", f"remount,size={megabytes}m"] if place.is_mount() else None
        options = again or ["-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs"]
        done = subprocess.run(["mount", *options, str(place)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"needs the right to mount a tmpfs: {done.stderr.strip()}")
        return place

    yield mount
    if place.is_mount():
        subprocess.run(["umount", str(place)], check=True)


def failed(command: Command) -> str:
    """The one line with which a command ended with status 1."""
    status, errors = command.wait()
    assert status == 1, errors
    assert "Traceback" not in errors, errors
    *_, line = errors.splitlines()
    assert line.startswith("wm_tf: ")
    return line


def size_of(folder: Path) -> int:
    """Megabytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) // 2**20


def test_full_disk_while_collecting(
    small_disk: Callable[[int], Path], start: Start, seen: Seen
) -> None:
    """Disk full (tmpfs of 3 MB) in collect

    Status 1 and one message that names the path; the episodes before stay, and the same command
    goes on after room is made.
    """
    run = small_disk(3) / "run"
    arguments = ("collect", "car_racing", *SMOKE, "--episodes", "30", "--run", run)
    line = failed(start(*arguments))
    assert re.search(r"cannot write \S+episode-\d{6}\.npz: No space left on device", line)
    kept = {path: path.stat().st_mtime_ns for path in (run / "rollouts" / "00").glob("*.npz")}
    assert unsound(run) == []
    small_disk(200)
    assert start(*arguments).wait()[0] == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    seen(
        f"status 1, “… cannot write …: No space left on device”; {len(kept)} episodes kept, and "
        "the same command finished after room was made"
    )


def test_full_disk_while_training(
    finished: Path, small_disk: Callable[[int], Path], start: Start, seen: Seen
) -> None:
    """Disk full (tmpfs with room for one checkpoint) in train-vision and train-memory

    Status 1 and one message that names the path; the checkpoint before stays good, and the same
    command goes on after room is made.
    """
    said = []
    # Other hyper-parameters than the finished run's, so that the training begins anew.
    for model, flags in (("vision", ("--frame-stride", "8")), ("memory", ("--batch-size", "16"))):
        run = small_disk(size_of(finished) + 400) / model
        shutil.copytree(finished, run)
        shutil.rmtree(run / "exports")
        path = run / "checkpoints" / f"{model}-00.npz"
        arguments = (f"train-{model}", "car_racing", *SMOKE, *flags, "--run", run)
        assert start(*arguments, "--epochs", "1").wait()[0] == 0
        before = path.read_bytes()
        small_disk(size_of(run.parent) + 2)  # not enough for another one beside it
        line = failed(start(*arguments, "--epochs", "2"))
        assert f"cannot write {path}: No space left on device" in line
        assert path.read_bytes() == before
        assert unsound(run) == []
        small_disk(size_of(run.parent) + 400)
        status, errors = start(*arguments, "--epochs", "2").wait()
        assert status == 0, errors
        assert checkpoint.facts(path)["epochs"] == 2
        said.append(path.name)
        shutil.rmtree(run)
    seen(
        f"status 1, “cannot write {' / '.join(said)}: No space left on device”; the checkpoint "
        "before byte for byte as it was; the same command went on after room was made"
    )


def test_full_disk_while_exporting(
    finished: Path, tmp_path: Path, start: Start, seen: Seen
) -> None:
    """Files limited to 1 MB (RLIMIT_FSIZE) in export

    Status 1 and one message that names the path; the models before stay good.
    """
    out = tmp_path / "models"
    arguments = ("export", "car_racing", *SMOKE, "--run", finished, "--out", out)
    assert start(*arguments).wait()[0] == 0
    before = storage.sha256(out / "car_racing" / "manifest.json")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))

    line = failed(start(*arguments, preexec_fn=limit))
    assert f"cannot write {out / 'car_racing'}" in line
    assert storage.sha256(out / "car_racing" / "manifest.json") == before
    assert start("verify", out).wait()[0] == 0
    assert [path for path in out.iterdir() if path.name.startswith(".")] == []
    seen("status 1, “cannot write …/car_racing: File too large”; the models before verified")


def fill(disk: Path) -> None:
    """Leaves no byte."""
    with contextlib.suppress(OSError), (disk / "fill").open("ab", buffering=0) as file:
        while file.write(bytes(2**12)):
            pass


def test_full_disk_while_anything_is_written(
    finished: Path, small_disk: Callable[[int], Path], start: Start, seen: Seen
) -> None:
    """Disk full (not a byte left) in encode, train-controller, evaluate, export-data, player

    Status 1 and one message that names the path.
    """
    disk = small_disk(size_of(finished) + 10)
    run = disk / "run"
    shutil.copytree(finished, run)
    models = ("--models", finished / "exports")
    dream = ("evaluate", "car_racing", "--env", "dream", "--episodes", "1", *models)
    drive = ("car_racing", "--headless", "--steps", "5", *models)
    longer = ("--generations", "99")
    commands = [
        ("latents", ("encode", "car_racing", *SMOKE, "--run", run), "wm_tf"),
        ("exports", ("train-controller", "car_racing", *SMOKE, *longer, "--run", run), "wm_tf"),
        ("score.json", (*dream, "--json", disk / "score.json"), "wm_tf"),
        (
            "data-v0",
            ("export-data", "car_racing", "--run", run, "--out", disk / "data-v0"),
            "wm_tf",
        ),
        ("dream.gif", (*drive, "--gif", disk / "dream.gif"), "player"),
    ]
    shutil.rmtree(run / "latents")
    for name, arguments, module in commands:
        fill(disk)
        status, errors = start(*arguments, module=module).wait()
        *_, line = errors.splitlines()
        assert status == 1, errors
        assert "Traceback" not in errors
        assert line.startswith(f"{module}: cannot write {disk}") and name in line
        assert line.endswith("No space left on device")
        if name == "latents":  # the next one needs them
            (disk / "fill").unlink()
            shutil.copytree(finished / "latents", run / "latents", dirs_exist_ok=True)
    assert unsound(run) == []
    seen(f"{len(commands)} of {len(commands)}: status 1, “cannot write …: No space left on device”")


# --- Ctrl-C


INTERRUPTED = {
    "collect": ("--episodes", "500", "--workers", "2"),
    "train-vision": ("--epochs", "500"),
    "train-memory": ("--epochs", "5000"),
    "train-controller": ("--generations", "5000", "--env", "dream"),
    "reproduce": ("--iterations", "20"),
}


@pytest.mark.parametrize("name", [*INTERRUPTED, "evaluate"])
def test_ctrl_c(
    name: str, finished: Path, run: Path, start: Start, seen: Seen, chance: random.Random
) -> None:
    """Ctrl-C

    Status 130 within 10 s; finished work is kept, children are gone.
    """
    if name == "evaluate":
        flags = ("--models", finished / "exports", "--episodes", "500", "--frames", "fast")
    else:
        flags = ("--run", run, *SMOKE, *INTERRUPTED[name])
    slowest = 0.0
    for _ in range(3):
        before = {path: path.stat().st_size for path in (run / "rollouts").rglob("*.npz")}
        command = start(name, "car_racing", *flags)
        time.sleep(chance.uniform(2.0, 20.0))
        began = time.monotonic()
        os.killpg(command.process.pid, signal.SIGINT)  # what a terminal does
        status, errors = command.wait(60)
        slowest = max(slowest, time.monotonic() - began)
        assert status == 130, errors
        *_, line = errors.splitlines()
        goes_on = "" if name == "evaluate" else "; the same command goes on"
        assert line == f"wm_tf: interrupted{goes_on}"
        assert until(lambda: not command.family(), 10 - slowest)  # noqa: B023
        assert unsound(run) == []
        assert (
            before.items()
            <= {path: path.stat().st_size for path in (run / "rollouts").rglob("*.npz")}.items()
        )
    assert slowest < 10
    seen(f"{name}: 3 times status 130, after {slowest:.1f} s at most; no child left, no file lost")


# --- A loss of NaN


@pytest.mark.parametrize("model", ["vision", "memory"])
def test_nan(model: str, run: Path, start: Start, seen: Seen) -> None:
    """The loss becomes NaN

    Training stops within a step with status 1, the step and the metric; the last good weights
    stay.
    """
    path = run / "checkpoints" / f"{model}-00.npz"
    more = ("--frame-stride", "8") if model == "vision" else ("--batch-size", "16")
    arguments = (f"train-{model}", "car_racing", *SMOKE, *more, "--run", run)
    rate = ("--learning-rate", "1e30")
    assert start(*arguments, "--epochs", "1").wait()[0] == 0
    good = path.read_bytes()
    # A later round, because another learning rate in this one would begin anew.
    shutil.copytree(run / "rollouts" / "00", run / "rollouts" / "01")
    line = failed(start(*arguments, "--epochs", "2", "--round", "1", *rate))
    assert re.search(
        r"(loss|nll|kl|reconstruction|\w+) became (nan|inf) at step \d+ of epoch", line
    )
    assert path.read_bytes() == good
    assert checkpoint.facts(path)["epochs"] == 1
    seen(f"status 1, “{line.removeprefix('wm_tf: ')}”")


# --- What a machine lacks


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str | None]:
    """No home folder, no screen, no vizdoom, no folder for caches."""
    missing = tmp_path / "missing" / "vizdoom"
    missing.mkdir(parents=True)
    (missing / "__init__.py").write_text("raise ImportError('No module named vizdoom')\n")
    unset = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER", "MPLCONFIGDIR", "XDG_CACHE_HOME",
             "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "KERAS_HOME")  # fmt: skip
    return {
        **dict.fromkeys(unset),
        "HOME": "/dev/null/home",
        "PYTHONPATH": str(missing.parent),
    }


def test_bare_machine(
    bare: dict[str, str | None], tmp_path: Path, start: Start, seen: Seen
) -> None:
    """No screen, no vizdoom, no writable home folder

    What needs none of them works.
    """
    run = tmp_path / "run"
    status, errors = start(
        "reproduce", "car_racing", *SMOKE, "--iterations", "1", "--run", run, env=bare
    ).wait()
    assert status == 0, errors
    models = ("--models", run / "exports")
    status, errors = start(
        *("evaluate", "car_racing", "--episodes", "1", "--frames", "fast", *models), env=bare
    ).wait()
    assert status == 0, errors
    gif = tmp_path / "dream.gif"
    status, errors = start(
        *("car_racing", "--headless", "--steps", "20", "--gif", gif, *models),
        module="player", env=bare,
    ).wait()  # fmt: skip
    assert status == 0, errors
    assert gif.read_bytes().startswith(b"GIF")
    seen("car_racing: the whole smoke run, evaluate and the headless player with its GIF")


def test_hints_of_a_bare_machine(
    bare: dict[str, str | None], finished: Path, tmp_path: Path, start: Start, seen: Seen
) -> None:
    """No screen, no vizdoom, no writable home folder

    What needs one of them says so, with status 2.
    """
    run = tmp_path / "doom"
    status, doom = start(
        "collect", "take_cover", *SMOKE, "--workers", "1", "--run", run, env=bare
    ).wait()
    assert status == 2
    assert "take_cover needs the package vizdoom" in doom and "pip install vizdoom" in doom
    models = ("--models", finished / "exports")
    status, screen = start("car_racing", *models, module="player", env=bare).wait()
    assert status == 2
    assert "no display" in screen and "--headless --gif dream.gif" in screen
    assert "Traceback" not in doom + screen
    seen(f"status 2: “{doom.splitlines()[-1]}”, “{screen.splitlines()[-1]}”")
