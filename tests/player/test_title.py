"""The title screen: loading, choosing task, driver and start, and beginning."""

from __future__ import annotations

import threading
import weakref

import numpy as np
import pygame
import pytest
from PIL import Image

from player import app as loop
from player import mouse as pointer
from player import window
from player.choice import Choice
from player.driving import Driver
from player.keys import chord
from player.session import Session
from player.view import palette
from player.world import NOISE, REAL, World
from wm_tf.config import TASKS
from wm_tf.errors import UserError

ALL = tuple(Driver)


def press(app: loop.App, *names: str) -> None:
    for name in names:
        code, _ = chord(name)
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=code, mod=0))
    app.turn()


@pytest.fixture
def app(world, fake_world, make_app):
    """At the title screen of car_racing; take_cover is there as well."""
    worlds = {"car_racing": world, "take_cover": fake_world(task_name="take_cover")}
    app = make_app(
        world, title=True, load=lambda task: worlds[task],
        drivers=dict.fromkeys(worlds, ALL),
    )  # fmt: skip
    app.turn()
    return app


def loaded(app: loop.App) -> None:
    app.loading.result()
    app.turn()


def click(app: loop.App, value: object) -> None:
    """On the value that makes that choice; None begins."""
    rect = next(
        rect for rect, made in app.foyer._targets
        if made is value or (made and value in (made.task, made.driver, made.source)
                             and made != app.foyer.choice)
    )  # fmt: skip
    pygame.event.post(
        pygame.event.Event(pygame.MOUSEBUTTONDOWN, pos=rect.center, button=pygame.BUTTON_LEFT)
    )
    app.turn()


def picture() -> np.ndarray:
    return pygame.surfarray.array3d(pygame.display.get_surface())


def test_the_dream_goes_on_behind_the_words(app):
    before = picture()
    for _ in range(5):
        app.turn()
    assert app.titled
    assert app.session.step > 3
    assert app.first_frame is not None
    assert not np.array_equal(before, picture())


@pytest.mark.parametrize("name", ["return", "space", "up", "left", "w"])
def test_enter_or_a_driving_key_begins_a_fresh_dream(app, name):
    for _ in range(5):
        app.turn()
    start = Session(app.session.world).now.state.latent
    press(app, name)
    assert not app.titled
    assert app.session.step <= 1
    assert not app.session.paused
    np.testing.assert_array_equal(app.session.history.moments[0].state.latent, start)


def test_another_key_begins_and_does_what_it_does(app):
    press(app, "l")
    assert app.titled  # the window's own: seen once the dream is entered
    press(app, "]")
    assert not app.titled
    assert app.session.temperature == 1.1


def test_tab_chooses_the_driver(app):
    press(app, "tab")
    assert app.session.driver is app.foyer.choice.driver is Driver.HUMAN
    assert app.titled
    for _ in range(40):
        app.turn()
    assert app.session.now.action[1] > 0  # somebody drives meanwhile
    press(app, "return")
    app.turn()
    assert app.session.driver is Driver.HUMAN
    assert not app.session.now.action.any()


def test_n_and_i_choose_the_start(app):
    press(app, "i")
    assert app.session.source is NOISE
    press(app, "n")
    assert app.session.source is REAL


def test_t_loads_the_other_task(app):
    press(app, "t")
    assert app.foyer.choice.task == "take_cover"
    loaded(app)
    assert app.task == app.session.world.task.name == "take_cover"
    assert app.titled
    press(app, "return")
    app.turn()
    assert app.session.now.action.shape == (1,)


def test_a_click_chooses_and_begins(app):
    click(app, Driver.CONTROLLER)
    assert app.session.driver is Driver.CONTROLLER
    click(app, NOISE)
    assert app.session.source is NOISE
    click(app, "take_cover")
    loaded(app)
    assert app.task == "take_cover"
    click(app, None)
    assert not app.titled


def test_without_another_task_t_says_so(world, make_app):
    app = make_app(world, title=True)
    press(app, "t")
    assert "no other task" in app.show.message
    assert app.titled


def test_t_comes_back_to_the_title(app):
    press(app, "return")
    press(app, "t")
    assert app.titled


def test_models_that_cannot_be_loaded_leave_the_task_as_it_was(world, make_app):
    def load(task: str) -> World:
        if task == "take_cover":
            raise UserError("take_cover/vision: damaged")
        return world

    app = make_app(world, title=True, load=load, drivers={"car_racing": ALL, "take_cover": ALL})
    press(app, "t")
    app.loading._thread.join()
    app.turn()
    assert "damaged" in app.show.message
    loaded(app)
    assert app.task == app.foyer.choice.task == "car_racing"


def test_one_chooses_while_the_models_load(world):
    window.open_window()
    gate = threading.Event()

    def load(task: str) -> World:
        gate.wait(5)
        return world

    app = loop.App(
        Choice("car_racing", Driver.ASSIST), {"car_racing": ALL}, load,
        lambda w, choice: Session(w, driver=choice.driver, source=choice.source),
        limits=loop.Limits(), real_time=False, title=True,
    )  # fmt: skip
    press(app, "return", "tab", "i")
    assert app.session is None
    assert app.titled
    gate.set()
    loaded(app)
    assert app.session.driver is Driver.HUMAN
    assert app.session.source is NOISE
    pygame.quit()


def test_the_frame_has_the_colour_of_the_driver(app):
    def colours() -> set[tuple[int, ...]]:
        return {tuple(c) for c in picture()[500:, 200:].reshape(-1, 3)}

    press(app, "tab")
    assert palette.HUMAN in colours()
    press(app, "tab")
    assert palette.CONTROLLER in colours()


def test_a_picture_dropped_on_the_window_is_where_the_dream_begins(app, tmp_path):
    Image.new("RGB", (90, 90), (200, 10, 10)).save(tmp_path / "p.png")
    pygame.event.post(pygame.event.Event(pygame.DROPFILE, file=str(tmp_path / "p.png")))
    app.turn()
    assert app.session.source.kind == "picture"
    pygame.event.post(pygame.event.Event(pygame.DROPFILE, file=str(tmp_path / "none.png")))
    app.turn()
    assert "none.png" in app.show.message


@pytest.mark.parametrize("size", [(640, 480), (320, 700), (3840, 2160)])
def test_everything_to_click_is_inside_the_window(app, size):
    pygame.display.set_mode(size, pygame.RESIZABLE)
    app.turn()
    inside = pygame.Rect((0, 0), size)
    assert all(inside.contains(rect) for rect, _ in app.foyer._targets)


def test_a_script_is_not_driven_again_in_another_task(make_app, fake_world, tmp_path):
    """Its actions have another size there."""
    from player import options as command_line
    from player import play

    path = tmp_path / "a.jsonl"
    path.write_text('{"action": [0, 1, 0]}\n' * 3)
    options = command_line.parse(["--actions", str(path)])
    asked = iter([play._script(options)])
    app = make_app(
        fake_world(),
        lambda world: play._session(options, world, Choice(world.task.name, Driver.HUMAN),
                                    next(asked, None)),
        load=lambda task: fake_world(task_name=task), drivers=dict.fromkeys(TASKS, ALL),
    )  # fmt: skip
    app.turn()
    assert app.session.now.action.tolist() == [0, 1, 0]
    press(app, "t"), press(app, "t"), loaded(app)
    assert app.task == "take_cover"
    assert not app.session.scripted


def test_a_drag_does_not_go_on_after_the_title_screen(app):
    press(app, "return", "l"), app.turn()
    bar = pointer.bars(app._layout, app.session, app.show)[3]
    down = {"pos": bar.center, "button": pygame.BUTTON_LEFT}
    pygame.event.post(pygame.event.Event(pygame.MOUSEBUTTONDOWN, **down)), app.turn()
    assert list(app.session.pins) == [3]
    press(app, "t")
    pygame.event.post(pygame.event.Event(pygame.MOUSEBUTTONUP, **down)), app.turn()
    press(app, "return"), app.turn()
    pygame.event.post(pygame.event.Event(pygame.MOUSEMOTION, pos=bar.midtop)), app.turn()
    assert not app.session.pins


@pytest.mark.parametrize("damaged", [False, True])
def test_another_task_is_chosen_while_the_models_load(fake_world, damaged):
    window.open_window()
    gate = threading.Event()

    def load(task: str) -> World:
        gate.wait(5)
        if damaged and task == "take_cover":
            raise UserError("take_cover/vision: damaged")
        return fake_world(task_name=task)

    app = loop.App(
        Choice("car_racing", Driver.ASSIST), dict.fromkeys(TASKS, ALL), load,
        lambda w, choice: Session(w), limits=loop.Limits(), real_time=False, title=True,
    )  # fmt: skip
    press(app, "t")
    gate.set()
    while app.session is None:
        app.loading._thread.join()
        app.turn()
    shown = "car_racing" if damaged else "take_cover"
    assert app.task == app.foyer.choice.task == app.session.world.task.name == shown
    pygame.quit()


def test_models_that_were_left_are_freed(make_app, fake_world):
    """Though what TensorFlow makes of them refers to itself."""
    loads: list[weakref.ref[World]] = []

    def load(task: str) -> World:
        world = fake_world(task_name=task)
        world.itself = world
        loads.append(weakref.ref(world))
        return world

    app = make_app(load("car_racing"), title=True, load=load, drivers=dict.fromkeys(TASKS, ALL))
    for _ in range(2):
        app.turn()
        press(app, "t"), loaded(app)
    assert app.session.world is loads[-1]()
    assert [ref() is None for ref in loads[:-1]] == [True] * (len(loads) - 1)


def test_a_script_is_not_driven_in_the_task_that_was_chosen_while_the_models_loaded(
    fake_world, tmp_path
):
    from player import options as command_line
    from player import play

    path = tmp_path / "a.jsonl"
    path.write_text('{"action": [0, 1, 0]}\n')
    options = command_line.parse(["--actions", str(path)])
    choice = Choice("take_cover", Driver.HUMAN)
    session = play._session(
        options, fake_world(task_name="take_cover"), choice, play._script(options)
    )
    assert not session.scripted
