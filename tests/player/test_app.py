"""Posted events through the real loop, without a display; the pixels it drew."""

from __future__ import annotations

import threading

import numpy as np
import pygame
import pytest

from player import app as loop
from player import mouse as pointer
from player import window
from player.choice import Choice
from player.commands import BINDINGS, HELD, Command
from player.devices import Devices
from player.driving import Driver
from player.keys import chord, rebound
from player.session import Session
from player.view import palette
from player.world import NOISE, REAL, World


@pytest.fixture
def app(world, make_app):
    return make_app(world)


def key(name: str, kind: int = pygame.KEYDOWN) -> None:
    code, modifier = chord(name)
    mod = {"shift": pygame.KMOD_LSHIFT, "alt": pygame.KMOD_LALT, "": 0}[modifier]
    pygame.event.post(pygame.event.Event(kind, key=code, mod=mod, unicode=""))


def turns(app: loop.App, count: int = 1) -> None:
    for _ in range(count):
        app.turn()


def picture() -> np.ndarray:
    return pygame.surfarray.array3d(pygame.display.get_surface())


def border_colours(app: loop.App) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(side, top) of the frame around the dream."""
    rect = app._layout.picture
    surface = pygame.display.get_surface()
    side = surface.get_at((rect.left - 2, rect.centery))[:3]
    top = surface.get_at((rect.centerx, rect.top - 2))[:3]
    return tuple(side), tuple(top)


def test_the_decoded_frame_fills_the_picture(app):
    turns(app, 3)
    rect = app._layout.picture
    assert rect.width % 64 == 0
    scale = rect.width // 64
    shown = picture()[rect.left : rect.right, rect.top : rect.bottom]
    sampled = shown[scale // 2 :: scale, scale // 2 :: scale].swapaxes(0, 1)
    np.testing.assert_array_equal(sampled, app.session.frame())


@pytest.mark.parametrize(
    ("name", "component", "sign"),
    [("left", 0, -1), ("a", 0, -1), ("right", 0, 1), ("d", 0, 1),
     ("up", 1, 1), ("w", 1, 1), ("down", 2, 1), ("s", 2, 1)],
)  # fmt: skip
def test_drive_keys(app, name, component, sign):
    app.session.driver = Driver.HUMAN
    key(name)
    turns(app, 3)
    assert app.session.now.action[component] * sign > 0
    key(name, pygame.KEYUP)
    turns(app, 20)
    assert app.session.now.action[component] == 0


def test_override_is_per_axis_and_ends_with_the_key(app):
    turns(app)
    assert border_colours(app) == (palette.CONTROLLER, palette.CONTROLLER)
    key("right")
    turns(app, 5)
    assert app.session.now.by_human.tolist() == [True, False, False]
    assert app.session.now.action[1] == pytest.approx(0.25)
    assert border_colours(app) == (palette.HUMAN, palette.CONTROLLER)
    key("right", pygame.KEYUP)
    turns(app)
    assert not app.session.now.by_human.any()
    assert border_colours(app) == (palette.CONTROLLER, palette.CONTROLLER)


def test_a_tap_shorter_than_a_frame_counts_for_one_step(app):
    app.session.driver = Driver.HUMAN
    key("right")
    key("right", pygame.KEYUP)
    turns(app)
    assert app.session.now.action[0] > 0
    turns(app)
    turned = app.session.history.moments
    assert turned[2].action[0] < turned[1].action[0]


def test_keys_are_let_go_when_the_window_loses_the_focus(app):
    key("right")
    turns(app, 2)
    pygame.event.post(pygame.event.Event(pygame.WINDOWFOCUSLOST))
    turns(app)
    assert not app.session.now.by_human.any()


def test_two_keys_of_one_direction_are_held_until_both_are_let_go(app):
    key("right"), key("d"), key("d", pygame.KEYUP)
    turns(app)
    assert app.session.now.by_human[0]


def test_space_pauses_while_the_window_is_drawn(app):
    turns(app, 2)
    key("space")
    turns(app)
    step, before = app.session.step, picture()
    pygame.display.get_surface().fill((0, 0, 0))
    turns(app)
    assert app.session.step == step
    assert picture().any()
    key("p")
    turns(app, 2)
    assert app.session.step > step
    assert not np.array_equal(picture(), before)


def test_backspace_rewinds_while_held(app):
    turns(app, 10)
    key("backspace")
    turns(app, 4)
    assert app.session.step == 6
    key("backspace", pygame.KEYUP)
    turns(app, 1)
    assert app.session.step == 7
    assert app.session.history.has_future


@pytest.mark.parametrize("binding", BINDINGS, ids=lambda b: b.command.name)
def test_every_key_of_the_table_does_what_it_says(app, binding, monkeypatch):
    done = []
    if binding.command not in HELD:
        monkeypatch.setattr(app, "do", done.append)
        for name in binding.keys:
            key(name)
            turns(app)
        assert done == [binding.command] * len(binding.keys)
    else:
        for name in binding.keys:
            key(name)
            app._handle(pygame.event.poll())
            assert app.devices.holds(binding.command)
            app.devices.release_all()


def after(command: Command):
    """What is there to see of a command in an app that has just carried it out."""
    seen = {
        Command.NEXT_DRIVER: lambda app: app.session.driver is Driver.HUMAN,
        Command.PAUSE: lambda app: app.session.paused,
        Command.STEP_FORWARD: lambda app: (app.session.step, app.session.paused) == (11, True),
        Command.STEP_BACK: lambda app: (app.session.step, app.session.paused) == (9, True),
        Command.SLOWER: lambda app: app.session.speed == 0.5,
        Command.FASTER: lambda app: app.session.speed == 2.0,
        Command.SAVE_STATE: lambda app: app.session.kept and "kept" in app.show.message,
        Command.LOAD_STATE: lambda app: "no moment" in app.show.message,
        Command.BEGIN_AGAIN: lambda app: (app.session.step, app.session._origin.chance) == (1, 1),
        Command.BEGIN_SAME: lambda app: (app.session.step, app.session._origin.chance) == (1, 0),
        Command.BEGIN_ELSEWHERE: lambda app: (
            app.session.source is REAL and app.session._origin.place == 1
        ),
        Command.BEGIN_IN_NOISE: lambda app: app.session.source is NOISE,
        Command.TITLE: lambda app: app.titled,
        Command.BEGIN: lambda app: app.session.step == 11,  # only the title screen knows it
        Command.NEXT_VIEW: lambda app: "no real environment" in app.show.message,
        Command.SYNCHRONISE: lambda app: app.session.step == 11,  # nothing real runs
        Command.FUTURES: lambda app: app.session.futures and not app.session.forked,
        Command.FORK: lambda app: app.session.forked,
        Command.FUTURE_1: lambda app: app.session.futures is None,
        Command.FUTURE_2: lambda app: app.session.futures is None,
        Command.FUTURE_3: lambda app: app.session.futures is None,
        Command.FUTURE_4: lambda app: app.session.futures is None,
        Command.COOLER: lambda app: app.session.temperature == 0.9,
        Command.WARMER: lambda app: app.session.temperature == 1.1,
        Command.LATENT_PANEL: lambda app: app.show.latent and bars(app),
        Command.FREE_LATENT: lambda app: not app.session.pins,
        Command.MIXTURE_PANEL: lambda app: app.show.mixture and app._layout.panel,
        Command.RECORD: lambda app: app.show.recording,
        Command.SCREENSHOT: lambda app: "kept" in app.show.message,
        Command.HELP: lambda app: app.show.help,
        Command.HUD: lambda app: app._layout.controls.width == 0,
        Command.SMOOTH: lambda app: app.show.smooth,
        Command.FULL_SCREEN: lambda app: window.surface().get_flags() & pygame.FULLSCREEN,
        Command.QUIT: lambda app: not app.running,
    }
    return seen[command]


@pytest.mark.parametrize("binding", [b for b in BINDINGS if b.command not in HELD],
                         ids=lambda b: b.command.name)  # fmt: skip
def test_every_key_changes_what_it_should(app, binding):
    turns(app, 10)
    if binding.command is Command.FREE_LATENT:
        app.session.pin(1, 2.0)
    if binding.command.name.startswith("FUTURE_"):
        key("b"), turns(app, 3)
        assert app.session.forked
    key(binding.keys[-1])
    turns(app)
    assert after(binding.command)(app)


def test_other_keys_from_a_file(app, tmp_path):
    path = tmp_path / "keys.toml"
    path.write_text('gas = ["i"]\nbegin_in_noise = []\n')
    app.devices = Devices(rebound(path))
    app.session.driver = Driver.HUMAN
    key("up"), turns(app)
    assert app.session.now.action[1] == 0
    key("i"), turns(app)
    assert app.session.now.action[1] > 0


@pytest.mark.parametrize("name", ["h", "f1"])
def test_help_covers_the_picture_and_goes_again(app, name):
    turns(app)
    key("space"), key(name)
    turns(app)
    helped = picture()
    key(name)
    turns(app)
    assert np.abs(helped.astype(int) - picture()).mean() > 2


def test_a_click_under_the_help_closes_it_and_does_nothing_else(app):
    app.titled = True
    turns(app)
    key("h"), turns(app)
    size = pygame.display.get_surface().get_size()
    places = [(x, y) for x in range(0, size[0], 120) for y in range(0, size[1], 20)]
    for place in places:  # on each button of the title
        app.show.help = True
        app._handle_mouse(pygame.event.Event(pygame.MOUSEBUTTONDOWN, pos=place, button=1))
        app._handle_mouse(pygame.event.Event(pygame.MOUSEBUTTONUP, pos=place, button=1))
        assert not app.show.help
    turns(app)
    assert app.titled
    for place in places:
        app._handle_mouse(pygame.event.Event(pygame.MOUSEBUTTONDOWN, pos=place, button=1))
    assert not app.titled


def test_hud_off_gives_the_picture_more_room(app):
    turns(app)
    key("f3")
    turns(app)
    assert app._layout.controls.width == 0


@pytest.mark.parametrize("name", ["k", "l", "g"])
def test_who_asks_to_see_a_panel_sees_it(app, name):
    turns(app)
    key("f3"), key(name), turns(app)
    assert app.show.hud


def test_signs_that_have_no_key_of_their_own_are_known_by_what_is_typed(app):
    """As "=" on a German keyboard, which is shift+0, or "+" beside the digits."""
    turns(app)
    speeds = []
    for code, sign in ((pygame.K_0, "="), (pygame.K_KP_PLUS, "+"), (pygame.K_0, "0")):
        event = pygame.event.Event(pygame.KEYDOWN, key=code, mod=pygame.KMOD_LSHIFT, unicode=sign)
        pygame.event.post(event), turns(app)
        speeds.append(app.session.speed)
    assert 1.0 < speeds[0] < speeds[1] == speeds[2]


def test_smooth_picture_differs_from_crisp(app):
    key("space"), turns(app)
    crisp = picture()
    key("x"), turns(app)
    assert not np.array_equal(crisp, picture())


def test_screenshot_key_writes_a_picture(app, tmp_path):
    key("f12")
    turns(app)
    (path,) = (tmp_path / "recordings").glob("*.png")
    assert pygame.image.load(path).get_size() == window.SIZE


@pytest.mark.parametrize("name", ["f11", "alt+return"])
def test_full_screen_and_back(app, name):
    key(name), turns(app, 2)
    surface = pygame.display.get_surface()
    assert surface.get_flags() & pygame.FULLSCREEN
    assert surface.get_size() == pygame.display.get_desktop_sizes()[0]
    key(name), turns(app, 2)
    assert pygame.display.get_surface().get_size() == window.SIZE
    assert not pygame.display.get_surface().get_flags() & pygame.FULLSCREEN


def test_escape_and_closing_the_window_quit(app):
    key("escape")
    turns(app)
    assert not app.running
    app.running = True
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    turns(app)
    assert not app.running


def test_escape_closes_the_help_and_closing_the_window_quits_in_any_case(app):
    key("h"), key("escape"), turns(app)
    assert app.running
    assert not app.show.help
    key("h"), pygame.event.post(pygame.event.Event(pygame.QUIT)), turns(app)
    assert not app.running


@pytest.mark.parametrize("size", [(640, 480), (300, 700), (200, 150), (3840, 2160), (1400, 500)])
@pytest.mark.parametrize("task", ["car_racing", "take_cover"])
def test_any_window_size(fake_world, make_app, size, task):
    app = make_app(fake_world(task_name=task))
    pygame.display.set_mode(size, pygame.RESIZABLE)
    app.show.latent = app.show.mixture = True
    turns(app, 2)
    rect = app._layout.picture
    assert pygame.Rect((0, 0), size).contains(rect)
    assert rect.width >= min(size) * 0.3


def test_the_end_is_shown_and_r_begins_again(mortal_world, make_app):
    app = make_app(mortal_world, lambda world: Session(world, driver=Driver.HUMAN))
    key("up")
    turns(app, 60)
    assert app.session.ended
    plain = picture()
    app.session.rewinding = False
    key("r")
    turns(app, 1)
    assert app.session.step == 1
    assert not app.session.ended
    assert not np.array_equal(plain, picture())


def test_the_window_draws_while_the_models_load(world):
    window.open_window()
    gate = threading.Event()

    def load(task: str) -> World:
        gate.wait(5)
        return world

    app = loop.App(
        Choice("car_racing", Driver.ASSIST), {"car_racing": tuple(Driver)}, load,
        lambda world, choice: Session(world), limits=loop.Limits(steps=3), real_time=False,
    )  # fmt: skip
    app.turn()
    first = picture()
    app.foyer._started -= 0.3
    app.turn()
    assert first.any()
    assert not np.array_equal(first, picture())
    gate.set()
    app.run()
    assert app.steps == 3
    pygame.quit()


def bars(app: loop.App) -> list[pygame.Rect]:
    return pointer.bars(app._layout, app.session, app.show)


def mouse(kind: int, point: tuple[int, int], button: int = pygame.BUTTON_LEFT) -> None:
    pygame.event.post(pygame.event.Event(kind, pos=point, button=button))


def test_dragging_a_latent_bends_the_dream_and_it_stays(app):
    key("l"), key("space"), turns(app)
    plain = app.session.frame()
    bar = bars(app)[2]
    mouse(pygame.MOUSEBUTTONDOWN, (bar.centerx, bar.centery - bar.height // 4))
    turns(app)
    assert app.session.now.state.latent[0, 2] == pytest.approx(1.5, abs=0.1)
    assert not np.array_equal(app.session.frame(), plain)
    # A drag goes on beyond the bar's column, up to the end of the range.
    mouse(pygame.MOUSEMOTION, (bar.centerx + 60, bar.top - 50))
    mouse(pygame.MOUSEBUTTONUP, (0, 0))
    mouse(pygame.MOUSEMOTION, (bar.centerx, bar.bottom))
    key("space"), turns(app, 4)
    assert app.session.now.state.latent[0, 2] == 3.0
    drawn = pygame.display.get_surface().get_at((bar.centerx, bar.top + 3))[:3]
    assert tuple(drawn) == palette.HUMAN
    mouse(pygame.MOUSEBUTTONDOWN, bar.center, pygame.BUTTON_RIGHT)
    turns(app, 3)
    assert app.session.now.state.latent[0, 2] != 3.0


def test_a_click_where_no_panel_is_open_changes_nothing(app):
    turns(app)
    mouse(pygame.MOUSEBUTTONDOWN, (100, 300))
    turns(app)
    assert not app.session.pins


def test_the_mixture_panel_shows_what_m_expected(app):
    key("space"), turns(app, 2)
    closed = picture()
    key("."), key("g"), turns(app)
    expected = app.session.expectation()
    assert expected["weights"].shape == (32, 5)
    np.testing.assert_allclose(expected["weights"].sum(axis=1), 1, atol=1e-6)
    before = app.session.history.recent(2)[0].state.latent[0]
    np.testing.assert_allclose(expected["mean"][:, 2], before, atol=1e-6)
    panel = app._layout.panel
    area = picture()[panel.left : panel.right, panel.top : panel.bottom]
    assert not np.array_equal(closed[panel.left : panel.right, panel.top : panel.bottom], area)
    key("g"), turns(app)
    assert app._layout.panel is None


def test_hints_name_the_keys_that_were_bound(app, tmp_path):
    """The same picture as before, but for the hint."""
    path = tmp_path / "keys.toml"
    path.write_text('help = ["j"]')
    key("space"), turns(app)
    corner = app._layout.status.move(0, app._layout.status.height - 24)
    area = slice(corner.left, corner.right), slice(corner.top, corner.top + 24)
    hint = picture()[area]
    app._screen._bindings = rebound(path)
    turns(app)
    assert not np.array_equal(hint, picture()[area])


def test_keys_that_are_let_go_return_gradually(app):
    app.session.driver = Driver.HUMAN
    key("left"), key("up"), turns(app, 20)
    key("left", pygame.KEYUP), turns(app)
    assert app.session.now.action[0] == pytest.approx(-1 + 0.02 / 0.12)
    assert app.session.now.action[1] == 1.0
    key("up", pygame.KEYUP), turns(app)
    assert app.session.now.action[1] == pytest.approx(1 - 0.02 / 0.10)


def test_a_held_key_drives_the_steps_that_are_made_one_by_one(app):
    app.session.driver = Driver.HUMAN
    key("space"), turns(app)
    key("left"), key("."), turns(app)
    assert app.session.now.action[0] < 0


def test_the_titles_dream_goes_on_after_a_choice_of_futures_was_left(app):
    turns(app, 10), key("b"), turns(app)
    assert app.session.forked
    key("t"), turns(app)
    step = app.session.step
    turns(app, 5)
    assert app.titled and app.session.step > step


@pytest.mark.parametrize("size", [(9, 9), (20, 100), (100, 20)])
@pytest.mark.parametrize("name", ["k", "b"])
def test_a_window_of_a_few_pixels_does_no_harm(app, size, name):
    pygame.display.set_mode(size, pygame.RESIZABLE)
    app.show.latent = app.show.mixture = True
    key(name), turns(app, 10)
    assert app.session.futures is not None
