"""Recordings: exact replay, here and in a fresh process; damaged and foreign files."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pygame
import pytest

from player import __main__ as entry
from player import app as loop
from player import options as command_line
from player import play, recording
from player.commands import Command
from player.driving import HANDS_OFF, Driver, Hands
from player.recording import Recorder
from player.session import Session
from player.view.screen import who_drives
from player.world import World
from wm_tf.dream.world import Dream
from wm_tf.errors import DamagedFile, UserError


def drive(session: Session, steps: int, hands: Hands = HANDS_OFF) -> None:
    for _ in range(steps):
        session.tick(hands)


def recorded(world, path: Path) -> Session:
    """A drive with all that a recording must keep: overrides, temperatures, pins, a rewind."""
    session = Session(world, seed=7)
    drive(session, 5)
    recorder = Recorder()
    recorder.begin(session.history)
    drive(session, 10, Hands(steer=1.0))
    session.do(Command.WARMER)
    drive(session, 10)
    session.rewinding = True
    drive(session, 5)
    session.rewinding = False
    drive(session, 5, Hands(gas=1.0))
    session.pin(3, 1.25)
    drive(session, 5)
    session.do(Command.FREE_LATENT)
    drive(session, 5)
    recording.write(path, recording.of(recorder.finish()[0], world.task.name, world.digest))
    return session


def replayed(world, path: Path) -> Session:
    session = Session(world)
    session.replay(recording.read(path, world.task, world.digest))
    while session.scripted:
        session.tick()
    return session


def test_replay_gives_the_same_moments(world, tmp_path):
    original = recorded(world, tmp_path / "a.jsonl")
    again = replayed(world, tmp_path / "a.jsonl")
    moments = original.history.moments[5:]
    assert len(again.history.moments) == len(moments)
    for before, after in zip(moments, again.history.moments, strict=True):
        np.testing.assert_array_equal(before.state.latent, after.state.latent)
        np.testing.assert_array_equal(before.state.h, after.state.h)
    for before, after in zip(moments[1:], again.history.moments[1:], strict=True):
        np.testing.assert_array_equal(before.action, after.action)
        np.testing.assert_array_equal(before.by_human, after.by_human)
        assert before.temperature == after.temperature


def test_a_recording_written_again_is_the_same_file(world, tmp_path):
    recorded(world, tmp_path / "a.jsonl")
    again = replayed(world, tmp_path / "a.jsonl")
    recording.write(
        tmp_path / "b.jsonl", recording.of(again.history.moments, world.task.name, world.digest)
    )
    first, second = (json.loads((tmp_path / f).read_text().splitlines()[-1])["end"]
                     for f in ("a.jsonl", "b.jsonl"))  # fmt: skip
    assert first["latent"] == second["latent"]
    assert first["steps"] == second["steps"] == 30


def test_replay_in_a_fresh_process_ends_in_the_recorded_latent(world, tmp_path):
    recorded(world, tmp_path / "a.jsonl")
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from conftest import build_world
from player import recording
from player.session import Session
from player.view.screen import who_drives
world = build_world()
read = recording.read(Path({str(tmp_path / "a.jsonl")!r}), world.task, world.digest)
session = Session(world)
session.replay(read)
while session.scripted:
    session.tick()
assert recording.latent_digest(session.now.state.latent) == read.last_latent
assert len(read.steps) == 30
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_taking_over_in_a_replay_ends_it(world, tmp_path):
    recorded(world, tmp_path / "a.jsonl")
    session = Session(world)
    session.replay(recording.read(tmp_path / "a.jsonl", world.task, world.digest))
    drive(session, 4)
    session.tick(Hands(steer=-1.0))
    assert not session.scripted
    assert session.now.by_human.tolist() == [True, False, False]


def test_rewinding_a_replay_does_not_disturb_it(world, tmp_path):
    original = recorded(world, tmp_path / "a.jsonl")
    session = Session(world)
    session.replay(recording.read(tmp_path / "a.jsonl", world.task, world.digest))
    drive(session, 12)
    session.rewinding = True
    drive(session, 6)
    session.rewinding = False
    while session.scripted:
        session.tick()
    np.testing.assert_array_equal(session.now.state.latent, original.now.state.latent)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "line lost"])
def test_damage_is_found(world, tmp_path, damage):
    path = tmp_path / "a.jsonl"
    recorded(world, path)
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    path.write_bytes({
        "truncated": data[:-40],
        "flipped": data.replace(b"0.25", b"0.35", 1),
        "empty": b"",
        "line lost": b"".join(lines[:3] + lines[4:]),
    }[damage])  # fmt: skip
    with pytest.raises(DamagedFile, match=r"a\.jsonl"):
        recording.read(path, world.task, world.digest)


def test_recordings_of_other_models_tasks_and_versions_are_refused(world, fake_world, tmp_path):
    path = tmp_path / "a.jsonl"
    recorded(world, path)
    with pytest.raises(UserError, match="other models"):
        recording.read(path, world.task, "another digest")
    with pytest.raises(DamagedFile, match="expected take_cover"):
        recording.read(path, fake_world(task_name="take_cover").task, world.digest)


def test_other_scores_are_no_other_models(world):
    def digest(**changes):
        models = world._models
        altered = replace(models, manifest={**models.manifest, **changes})
        return World(altered, Dream(altered)).digest

    files = world._models.manifest["files"]
    assert digest(scores=[{"mean": 1.0}], files={**files, "README.md": "1" * 64}) == world.digest
    for changes in (
        {"files": dict.fromkeys(files, "1" * 64)},
        {"end": {"rule": "threshold", "value": 0.5}},
    ):
        assert digest(**changes) != world.digest


def test_a_newer_version_is_refused(world, tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "FORMAT_VERSION", 2)
    recorded(world, tmp_path / "a.jsonl")
    monkeypatch.setattr(recording, "FORMAT_VERSION", 1)
    with pytest.raises(DamagedFile, match="version 2"):
        recording.read(tmp_path / "a.jsonl", world.task, world.digest)


@pytest.mark.parametrize(
    ("line", "change"),
    [
        (0, {"state": {}}),
        (0, {"state": None}),
        (0, {"task": None}),
        (1, {"action": [0.0]}),
        (1, {"action": [float("nan"), 0.0, 0.0]}),
        (1, {"by_human": "yes"}),
        (1, {"temperature": 0.0}),
        (1, {"temperature": None}),
        (1, {"seed": -1}),
        (1, {"pins": [[32, 0.0]]}),
    ],
)
def test_content_that_cannot_be_dreamt_is_refused(world, tmp_path, line, change):
    """Written by someone else, with a checksum that fits."""
    path = tmp_path / "a.jsonl"
    recorded(world, path)
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    lines[line] |= change
    body = "".join(json.dumps(content) + "\n" for content in lines[:-1]).encode()
    lines[-1]["end"]["sha256"] = hashlib.sha256(body).hexdigest()
    path.write_bytes(body + json.dumps(lines[-1]).encode())
    with pytest.raises(DamagedFile, match=r"a\.jsonl"):
        recording.read(path, world.task, world.digest)


def test_nothing_driven_is_nothing_recorded(world):
    recorder = Recorder()
    recorder.begin(Session(world).history)
    assert len(recorder.finish()[0]) < 2
    assert not recorder.running


def test_a_recording_of_nothing_says_so(make_app, world):
    app = make_app(world)
    for _ in range(2):
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_F2, mod=0))
    app.turn()
    assert app.show.message == "nothing was recorded"


def test_recording_survives_a_rewind_to_before_its_beginning(world, tmp_path):
    session = Session(world, driver=Driver.HUMAN)
    drive(session, 10)
    recorder = Recorder()
    recorder.begin(session.history)
    session.rewinding = True
    drive(session, 5)
    assert recorder.follows(session.history)
    session.rewinding = False
    for _ in range(3):  # where it was: nothing new
        drive(session, 1)
        assert recorder.follows(session.history)
    for _ in range(8):
        drive(session, 1, Hands(steer=1.0))
        assert recorder.follows(session.history)
    kept = recording.of(recorder.finish()[0], "car_racing", world.digest)
    assert kept.start.step == 8
    assert len(kept.steps) == 8


def test_the_window_and_the_headless_player_replay_the_same_file(world, tmp_path, make_app):
    """F2 in the window; the kept file through the command line gives the same return."""
    exported = []
    app = make_app(
        world, lambda w: Session(w, seed=3), limits=loop.Limits(steps=40),
        export=lambda task, path: exported.append((task, path)),
    )  # fmt: skip
    for _ in range(2):
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_F2, mod=0))
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_RIGHT, mod=0))
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_F2, mod=0))
    app.run()
    pygame.quit()
    (path,) = (tmp_path / "recordings").glob("*.jsonl")
    assert exported == [("car_racing", path.relative_to(tmp_path))]
    status = play.main(
        ["--headless", "--actions", str(path), "--json", "r.json", "--mp4", "film.mp4"],
        load=lambda models, task: world,
    )
    report = json.loads((tmp_path / "r.json").read_text())
    assert (status, report["steps"]) == (0, 40)
    assert report["return"] == pytest.approx(app.session.now.total)
    assert _length_of(tmp_path / "film.mp4") == 40


def test_the_window_does_not_wait_for_the_films(world, tmp_path, make_app, monkeypatch):
    """A film maker that waits for the test: the loop goes on meanwhile, and it is reaped."""
    code = (
        "import pathlib, time\n"
        "pathlib.Path('began').touch()\n"
        "while not pathlib.Path('go').exists(): time.sleep(0.01)\n"
        "pathlib.Path('done').touch()"
    )
    monkeypatch.setattr(play, "export_command", lambda *_: [sys.executable, "-c", code])
    said: list[str] = []
    app = make_app(world, export=lambda task, path: play._export(None, task, path, said.append))
    for wait in (1, 5):
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_F2, mod=0))
        for _ in range(wait):
            app.turn()
    assert (tmp_path / "recordings").is_dir()
    _until((tmp_path / "began").exists)
    step = app.session.step
    for _ in range(50):
        app.turn()
    assert app.session.step == step + 50
    assert not (tmp_path / "done").exists()
    (tmp_path / "go").touch()
    _until((tmp_path / "done").exists)
    _until(lambda: said != [])
    assert said[0].startswith("films: recordings/car_racing-")
    _until(lambda: not any(thread.name == "export" for thread in threading.enumerate()))


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _length_of(film: Path) -> int:
    import cv2

    video = cv2.VideoCapture(str(film))
    frames = 0
    while video.read()[0]:
        frames += 1
    video.release()
    return frames


def test_films_that_cannot_be_begun_are_told_of(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    said = []
    monkeypatch.setattr(play.subprocess, "Popen", fail)
    play._export(command_line.Options(), "take_cover", tmp_path / "a.jsonl", said.append)
    assert said == [
        f"no films could be made of {tmp_path / 'a.jsonl'} (Resource temporarily unavailable)"
    ]


@pytest.mark.skipif(not hasattr(os, "setpriority"), reason="there are no priorities")
def test_films_of_a_player_of_the_lowest_priority_are_made(tmp_path, monkeypatch):
    def fail(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    said = queue.Queue()
    monkeypatch.setattr(play.os, "setpriority", fail)
    monkeypatch.setattr(play, "export_command", lambda *_: [sys.executable, "-c", ""])
    play._export(command_line.Options(), "take_cover", tmp_path / "a.jsonl", said.put)
    assert said.get(timeout=30).startswith("films: ")


def test_a_replay_says_who_drove(world):
    session = Session(world, seed=7)
    drive(session, 5)
    drive(session, 5, Hands(steer=1.0))
    said = ["controller drives"] * 6 + ["together: you steer"] * 5
    kept = recording.of(session.history.moments, "car_racing", world.digest)
    again = Session(world, driver=Driver.HUMAN)
    again.replay(kept)
    assert who_drives(again) == "you drive"
    for words in said[1:]:
        drive(again, 1)
        assert who_drives(again) == words
    drive(again, 1)
    assert who_drives(again) == "you drive"


def test_export_is_this_player_without_a_display(tmp_path):
    path = tmp_path / "a.jsonl"
    command = play.export_command(command_line.Options(), "take_cover", path)
    assert command[1:3] == ["-m", "player"]
    options = command_line.parse(command[3:])
    assert options.headless
    assert options.task == "take_cover"
    assert (options.actions, options.gif) == (path, tmp_path / "a.gif")
    assert options.mp4 == tmp_path / "a.mp4"


def test_every_player_adds_up_in_one_thread(monkeypatch):
    """The window and the process that makes its films: a sum depends on the number of threads."""
    found: dict[str, str] = {}
    others = {"OMP_NUM_THREADS": "4", "TF_NUM_INTRAOP_THREADS": "4"}
    monkeypatch.setattr(os, "environ", dict(os.environ) | others)
    monkeypatch.setattr(sys, "argv", ["player", "--headless"])
    monkeypatch.setattr(play, "main", lambda *_, **__: found.update(os.environ) or 0)
    assert entry.main() == 0
    assert {name: found[name] for name in others} == dict.fromkeys(others, "1")


@pytest.mark.parametrize("by_key", [True, False])
@pytest.mark.parametrize("exact", [True, False])
def test_a_replay_says_whether_it_was_exact(world, tmp_path, make_app, capsys, exact, by_key):
    session = Session(world, seed=7)
    drive(session, 5)
    kept = recording.of(session.history.moments, "car_racing", world.digest)
    if not exact:
        kept = replace(kept, last_latent="0" * 16)
    path = tmp_path / "a.jsonl"
    recording.write(path, kept)
    status = play.main(["--headless", "--actions", str(path)], load=lambda models, task: world)
    assert status == 0
    expected = "" if exact else f"player: {path}: {recording.STRAYED}\n"
    assert capsys.readouterr().err == expected
    app = make_app(world)
    app.session.replay(kept)
    for _ in range(4):
        app.turn()
    assert app.show.message == ""
    if by_key:
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_PERIOD, mod=0))
    app.turn()
    assert app.show.message == ("" if exact else recording.STRAYED)


def test_a_latent_that_was_let_go_before_another_was_held_is_in_the_recording(world, tmp_path):
    """All at one moment: its value stays in the latent until the next step."""
    session = Session(world)
    recorder = Recorder()
    recorder.begin(session.history)
    drive(session, 5)
    session.pin(3, 2.0)
    session.unpin(3)
    session.pin(4, 1.0)
    drive(session, 5)
    assert list(session.pins) == [4]
    path = tmp_path / "a.jsonl"
    recording.write(path, recording.of(recorder.finish()[0], world.task.name, world.digest))
    again = replayed(world, path)
    np.testing.assert_array_equal(again.now.state.latent, session.now.state.latent)
    assert not again.strayed


def test_the_same_dream_of_a_replay_begins_where_the_recording_did(world, tmp_path):
    recorded(world, tmp_path / "a.jsonl")
    kept = recording.read(tmp_path / "a.jsonl", world.task, world.digest)
    session = Session(world)
    session.replay(kept)
    drive(session, 4)
    session.do(Command.BEGIN_SAME)
    assert session.now.state is kept.start
    session.do(Command.BEGIN_AGAIN)
    np.testing.assert_array_equal(session.now.state.latent, kept.start.latent)
    assert session.now.state.seed != kept.start.seed
    session.do(Command.BEGIN_ELSEWHERE)
    assert not np.array_equal(session.now.state.latent, kept.start.latent)


def test_deep_nesting_is_damage(world, tmp_path):
    path = tmp_path / "a.jsonl"
    recorded(world, path)
    path.write_bytes(path.read_bytes() + b"[" * 100_000)
    with pytest.raises(DamagedFile, match=r"a\.jsonl"):
        recording.read(path, world.task, world.digest)
