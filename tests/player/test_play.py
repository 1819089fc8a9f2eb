"""The command line: what it writes, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pygame
import pytest
from PIL import Image

from player import options as command_line
from player import play
from player.starts import source_of
from player.world import World
from wm_tf.errors import UserError


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
