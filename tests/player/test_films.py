"""Films of a drive: what the loop does with its cameras, whatever happens to one of them."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pygame
import pytest

from player import app as loop
from player import media
from player.driving import Driver
from player.keys import chord
from player.media import Animation, Film
from player.session import Session
from player.world import World
from wm_tf.errors import RunFailed


@pytest.fixture
def app(world, make_app):
    return make_app(world)


def turns(app: loop.App, count: int = 1) -> None:
    for _ in range(count):
        app.turn()


def press(app: loop.App, name: str) -> None:
    code, _ = chord(name)
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=code, mod=0))
    app.turn()


class Camera:
    """Takes nothing; `fails` says whether it cannot write at the end."""

    def __init__(self, fails: bool = False, seconds: float = 0.0) -> None:
        self.fails, self.seconds = fails, seconds
        self.done: list[str] = []

    def add(self, session: Session, frame: np.ndarray) -> None:
        pass

    def close(self) -> None:
        time.sleep(self.seconds)
        self.done.append("close")
        if self.fails:
            raise RunFailed("a full disk")

    def discard(self) -> None:
        self.done.append("discard")


@pytest.mark.parametrize("failing", [0, 1])
def test_one_file_that_cannot_be_written_takes_no_other_with_it(world, make_app, failing):
    cameras = [Camera(fails=index == failing) for index in range(2)]
    app = make_app(world, cameras=cameras, limits=loop.Limits(steps=3))
    with pytest.raises(RunFailed, match="full disk"):
        app.run()
    assert [camera.done for camera in cameras] == [["close", "discard"]] * 2


def test_a_recording_that_cannot_be_kept_takes_no_film_with_it(world, make_app):
    camera = Camera()
    app = make_app(world, cameras=[camera], limits=loop.Limits(steps=3))
    Path("recordings").write_text("a file where the folder should be")
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_F2, mod=0))
    with pytest.raises(RunFailed, match="recordings"):
        app.run()
    assert camera.done == ["close", "discard"]


def test_what_is_raised_discards_the_films(world, make_app, monkeypatch):
    film = Film("car_racing", Path("f.mp4"))
    app = make_app(world, cameras=[film])
    turns(app, 3)
    assert list(Path().glob(".f.*.mp4"))

    def interrupted(hands: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(app.session, "tick", interrupted)
    with pytest.raises(KeyboardInterrupt):
        app.run()
    assert not list(Path().glob("*f*mp4"))


def test_frames_per_second_are_those_of_the_drive(world, make_app):
    app = make_app(world, cameras=[Camera(seconds=0.5)], limits=loop.Limits(steps=5))
    app.run()
    assert app.frames_per_second > 5 / 0.5


def two_tasks(fake_world, make_app, **arguments) -> loop.App:
    worlds = {task: fake_world(task_name=task) for task in ("car_racing", "take_cover")}
    options = {"load": lambda task: worlds[task]} | arguments
    return make_app(
        worlds["car_racing"], drivers=dict.fromkeys(worlds, tuple(Driver)), **options
    )  # fmt: skip


def test_cameras_follow_into_the_other_task(fake_world, make_app):
    app = two_tasks(fake_world, make_app, cameras=[Animation("car_racing", Path("a.gif"))])
    turns(app, 3)
    press(app, "t"), press(app, "t")
    app.loading.result()
    turns(app), press(app, "return"), turns(app, 2)
    assert app.task == "take_cover"
    app.running = False
    app.run()
    assert Path("a.gif").stat().st_size > 0


def test_a_long_drives_gif_has_fewer_pictures_a_second(app, monkeypatch):
    from PIL import Image

    monkeypatch.setattr(media, "_GIF_MOST", 10)
    camera = Animation("car_racing", Path("long.gif"))
    for _ in range(50):  # a second
        turns(app)
        camera.add(app.session, app.session.frame())
    camera.close()
    with Image.open("long.gif") as gif:
        durations = []
        for index in range(gif.n_frames):
            gif.seek(index)
            durations.append(gif.info["duration"])
    assert len(durations) < 10
    assert sum(durations) == pytest.approx(1000, abs=200)


def test_quitting_while_the_other_task_is_loaded_keeps_the_films(fake_world, make_app):
    gate = threading.Event()
    camera = Camera()

    def load(task: str) -> World:
        if task == "take_cover":
            gate.wait(5)
        return fake_world(task_name=task)

    app = two_tasks(fake_world, make_app, cameras=[camera], load=load)
    turns(app, 3)
    press(app, "t"), press(app, "t")
    assert app.session is None
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    app.run()
    gate.set()
    assert camera.done == ["close", "discard"]
