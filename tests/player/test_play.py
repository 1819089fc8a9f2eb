"""The command line: what it writes, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pygame
import pytest
from PIL import Image

from player import app as loop
from player import options as command_line
from player import play
from player.starts import source_of
from player.world import World
from wm_tf.errors import RunFailed, UserError


@pytest.fixture
def run(fake_world) -> Callable[..., int]:
    """Runs the player with fake models; returns its exit status."""

    def run(*arguments: object, controller: bool = True, load: play.Load | None = None) -> int:
        def load_fake(models: Path, task: str) -> World:
            return fake_world(task_name=task, controller=controller)

        return play.main([str(argument) for argument in arguments], load=load or load_fake)

    return run


def actions_file(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_report_has_the_promised_keys(run, tmp_path):
    assert run("car_racing", "--headless", "--steps", 20, "--json", tmp_path / "r.json") == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert set(report) == {
        "task", "driver", "steps", "return", "ended", "step_ms", "fps", "start_seconds",
    }  # fmt: skip
    assert set(report["step_ms"]) == {"p50", "p99"}
    assert (report["task"], report["driver"], report["steps"]) == ("car_racing", "assist", 20)
    assert report["return"] == pytest.approx(10.0)
    assert report["ended"] is False
    assert report["fps"] > 0
    assert report["start_seconds"] > 0


def test_the_same_command_gives_the_same_pictures(run, tmp_path):
    for name in ("a.png", "b.png"):
        run("--headless", "--steps", 30, "--screenshot", tmp_path / name, "--driver", "controller")
    first, second = (pygame.image.load(tmp_path / name) for name in ("a.png", "b.png"))
    width = 700  # the numbers beside the picture hold the frame rate
    assert first.get_size() == (960, 720)
    crops = [image.subsurface((0, 0, width, 720)) for image in (first, second)]
    assert pygame.image.tobytes(crops[0], "RGB") == pygame.image.tobytes(crops[1], "RGB")


def test_a_great_number_is_as_good_as_the_end_of_the_range(run, tmp_path):
    lines = [f'{{"action": [{steer}, 0, 0]}}' for steer in (1.0, "100000000000000000000000")]
    for index, line in enumerate(lines):
        path = actions_file(tmp_path / "a.jsonl", line)
        assert run("--headless", "--actions", path, "--gif", tmp_path / f"{index}.gif") == 0
    assert (tmp_path / "0.gif").read_bytes() == (tmp_path / "1.gif").read_bytes()


def test_actions_file_drives_and_ends_the_run(run, tmp_path):
    path = actions_file(tmp_path / "a.jsonl", *['{"action": [1.0, 0.5, 0]}'] * 7, "")
    assert run("--headless", "--actions", path, "--json", tmp_path / "r.json") == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["steps"], report["driver"]) == (7, "human")


@pytest.mark.parametrize("task", ["car_racing", "take_cover"])
def test_gif_shows_the_drive_at_its_own_speed(run, tmp_path, task):
    assert run(task, "--headless", "--steps", 100, "--gif", tmp_path / "d.gif") == 0
    with Image.open(tmp_path / "d.gif") as image:
        assert image.n_frames > 20
        seconds = sum(_duration(image, index) for index in range(image.n_frames)) / 1000
        image.seek(0)
        first = image.convert("RGB").tobytes()
        image.seek(image.n_frames - 1)
        assert image.convert("RGB").tobytes() != first
    assert seconds == pytest.approx(100 / (50 if task == "car_racing" else 35), rel=0.1)


def _duration(image: Image.Image, index: int) -> float:
    image.seek(index)
    return float(image.info["duration"])


def test_somebody_drives_where_there_is_neither_person_nor_controller(run, tmp_path):
    run("--headless", "--steps", 50, "--screenshot", tmp_path / "a.png",
        controller=False)  # fmt: skip
    run("--headless", "--steps", 50, "--screenshot", tmp_path / "b.png", "--driver", "human",
        controller=False)  # fmt: skip
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nonsense", "nonsense"),
        ("[1, 2, 3]", "[1, 2, 3]"),
        ('{"steer": 1}', "steer"),
        ('{"action": [1, 2]}', "[1, 2]"),
        ('{"action": [1, "x", 0]}', "x"),
        ('{"action": [NaN, 0, 0]}', "finite"),
        ('{"action": null}', "None"),
        ('{"action": [' + "9" * 400 + ", 0, 0]}", "finite"),
        ('{"action": [1e39, 0, 0]}', "finite"),  # infinite in float32
        ("[" * 100_000, "[[["),
    ],
)
def test_bad_line_of_actions_is_named(run, tmp_path, capsys, line, says):
    path = actions_file(tmp_path / "a.jsonl", '{"action": [0, 0, 0]}', line)
    assert run("--headless", "--actions", path) == 2
    message = capsys.readouterr().err
    assert f"{path}, line 2" in message
    assert says in message
    assert "expected" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["chess"], "car_racing"),
        (["--temperature", "0"], "temperature"),
        (["--temperature", "nan"], "temperature"),
        (["--temperature", "1e39"], "temperature"),  # infinite in float32
        (["--steps", "0"], "--steps"),
        (["--seed", "-1"], "--seed"),
        (["--actions", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--gif", "nowhere/dream.gif"], "nowhere"),
        (["--gif", "dream.mp4"], ".gif"),
        (["--screenshot", "dream.jpg"], ".png"),
        (["--start", "nowhere.png"], "nowhere.png"),
        (["--keys", "nowhere.toml"], "nowhere.toml"),
    ],
)
def test_bad_input_is_refused_in_one_line(run, capsys, arguments, says):
    assert run("--headless", *arguments) == 2
    message = capsys.readouterr().err
    assert says in message
    assert message.count("\n") == 1
    assert "Traceback" not in message


def test_a_picture_to_start_from_is_cropped_to_its_middle_and_made_small(tmp_path):
    picture = Image.new("RGB", (300, 100), (255, 0, 0))
    picture.paste((10, 20, 30), (100, 0, 200, 100))
    picture.save(tmp_path / "p.png")
    source = source_of(str(tmp_path / "p.png"))
    assert source.picture.shape == (64, 64, 3)
    assert (source.picture == (10, 20, 30)).all()


def test_unknown_option_ends_with_status_2(run, capsys):
    with pytest.raises(SystemExit) as end:
        run("--nonsense")
    assert end.value.code == 2
    assert "nonsense" in capsys.readouterr().err


def test_a_controller_that_is_not_there_is_refused(run, capsys):
    assert run("--headless", "--driver", "assist", controller=False) == 2
    assert "human" in capsys.readouterr().err


def test_what_loading_raises_is_reported(run, capsys):
    def broken(models: Path, task: str):
        raise UserError("vision/1/saved_model.pb: damaged")

    assert run("--headless", load=broken) == 2
    assert "damaged" in capsys.readouterr().err


def test_no_display_gives_a_hint(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(UserError, match=r"--headless --gif"):
        command_line.require_display({})
    command_line.require_display({"WAYLAND_DISPLAY": "wayland-0"})
    command_line.require_display({"SDL_VIDEODRIVER": "dummy"})


def test_without_a_display_the_process_ends_with_status_2(tmp_path):
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    result = subprocess.run(
        [sys.executable, "-m", "player"], env=environment, capture_output=True, text=True,
        cwd=tmp_path, check=False, timeout=60,
    )  # fmt: skip
    assert result.returncode == 2
    assert "--headless --gif" in result.stderr
    assert result.stderr.count("\n") == 1


def test_missing_models_end_with_status_2(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "player", "--headless", "--models", "nothing_here"],
        capture_output=True, text=True, cwd=tmp_path, check=False, timeout=60,
    )  # fmt: skip
    assert result.returncode == 2
    assert "nothing_here" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.count("\n") == 1


def huge_picture(path: Path) -> Path:
    """A PNG that says it is 40000 pixels wide and high: more than OpenCV takes."""
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n"
    for name, content in chunks:
        checksum = struct.pack(">I", zlib.crc32(name + content))
        data += struct.pack(">I", len(content)) + name + content + checksum
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", ["huge", "film", "long name", "empty", "folder", "unreadable"])
def test_a_start_that_is_no_picture_is_refused(run, tmp_path, capsys, monkeypatch, kind):
    path = tmp_path / "p.png"
    if kind == "huge":
        huge_picture(path)
    elif kind == "film":  # larger than the memory
        with path.open("wb") as file:
            file.truncate(2**40)
    elif kind == "long name":
        path = tmp_path / ("a" * 300)
    elif kind == "folder":
        path.mkdir()
    else:
        path.touch()
    if kind == "unreadable":  # by whoever runs the tests

        def refused(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(np, "fromfile", refused)
    assert run("--headless", "--steps", 1, "--start", path) == 2
    assert capsys.readouterr().err.startswith("player: --start: expected")


@pytest.mark.parametrize("name", [".", "", "/", "folder"])
@pytest.mark.parametrize("option", ["json", "mp4"])
def test_a_folder_is_no_file_to_write(run, tmp_path, capsys, monkeypatch, option, name):
    monkeypatch.chdir(tmp_path)
    name = f"{name}.{option}" if name == "folder" else name
    Path(f"folder.{option}").mkdir()
    assert run("--headless", f"--{option}", name, load=None) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"player: --{option}")
    assert message.count("\n") == 1


def test_a_name_that_is_too_long_is_trouble_in_one_line(run, tmp_path, capsys):
    assert run("--headless", "--steps", 2, "--gif", tmp_path / ("a" * 252 + ".gif")) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file can get longer than 4000 bytes."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("option", ["mp4", "screenshot", "gif"])
def test_on_a_full_disk_nothing_is_left_half_written(run, tmp_path, capfd, full_disk, option):
    suffix = {"screenshot": "png"}.get(option, option)
    path = tmp_path / f"d.{suffix}"
    assert run("--headless", "--steps", 60, f"--{option}", path) == 1
    assert not list(tmp_path.iterdir())
    assert f"player: cannot write {path}" in capfd.readouterr().err


def test_films_that_cannot_be_written_leave_the_other_files(run, tmp_path, monkeypatch):
    def close(self: object) -> None:
        raise RunFailed("cannot write it")

    monkeypatch.setattr("player.media.Animation.close", close)
    names = [tmp_path / f"d.{suffix}" for suffix in ("gif", "mp4", "png", "json")]
    arguments = zip(("--gif", "--mp4", "--screenshot", "--json"), names, strict=True)
    assert run("--headless", "--steps", 3, *(text for pair in arguments for text in pair)) == 1
    assert [name.exists() for name in names] == [False, True, True, True]


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (KeyboardInterrupt(), 130, ""),
        (RunFailed("no room"), 1, "player: no room\n"),
        (ZeroDivisionError("oops"), 1, "oops"),
        (None, 0, ""),
    ],
)
def test_what_ends_the_player_while_the_models_load_is_its_status(
    run, capsys, monkeypatch, error, status, says
):
    gate = threading.Event()

    def turn(app: loop.App) -> None:
        app.running = False
        if error is not None:
            raise error

    def leave(status: int) -> None:
        gate.set()
        raise SystemExit(status)

    monkeypatch.setattr(loop.App, "turn", turn)
    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(SystemExit) as end:
        run("--headless", load=lambda models, task: gate.wait(5))
    assert end.value.code == status
    assert says in capsys.readouterr().err
