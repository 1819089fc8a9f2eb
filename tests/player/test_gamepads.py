"""Gamepads: posted events, plugging in and out, other buttons from a file."""

from __future__ import annotations

from types import SimpleNamespace

import pygame
import pytest

from player import gamepads
from player.commands import BINDINGS, Command
from player.devices import Devices
from player.driving import Driver
from player.keys import rebound
from wm_tf.errors import UserError

FULL = 32767


class FakePads:
    """What SDL would say of two devices: 0 is a known gamepad, 1 a joystick that it knows not."""

    def __init__(self) -> None:
        self.opened: list[int] = []

    def is_controller(self, index: int) -> bool:
        return index == 0

    def open(self, index: int) -> SimpleNamespace:
        self.opened.append(index)
        joystick = SimpleNamespace(get_instance_id=lambda: 7 + index)
        return SimpleNamespace(as_joystick=lambda: joystick, get_instance_id=lambda: 7 + index)


@pytest.fixture
def pads(monkeypatch) -> FakePads:
    fake = FakePads()
    monkeypatch.setattr(gamepads.controller, "is_controller", fake.is_controller)
    monkeypatch.setattr(gamepads.controller, "Controller", fake.open)
    monkeypatch.setattr(pygame.joystick, "Joystick", fake.open)
    return fake


@pytest.fixture
def app(world, make_app):
    return make_app(world)


def post(app, kind: int, instance_id: int = 7, **values) -> None:
    pygame.event.post(pygame.event.Event(kind, instance_id=instance_id, **values))
    app.turn()


def plug_in(app, kind: int, index: int) -> None:
    pygame.event.post(pygame.event.Event(kind, device_index=index))
    app.turn()


def test_a_stick_drives_beyond_its_dead_zone(app):
    post(app, pygame.CONTROLLERAXISMOTION, axis=pygame.CONTROLLER_AXIS_LEFTX, value=2000)
    assert not app.session.now.by_human.any()
    post(app, pygame.CONTROLLERAXISMOTION, axis=pygame.CONTROLLER_AXIS_LEFTX, value=-FULL)
    assert app.session.now.by_human.tolist() == [True, False, False]
    assert app.session.now.action[0] == pytest.approx(-1.0, abs=0.01)
    post(app, pygame.CONTROLLERAXISMOTION, axis=pygame.CONTROLLER_AXIS_LEFTX, value=FULL // 2)
    assert app.session.now.action[0] == pytest.approx((0.5 - 0.18) / 0.82, abs=0.01)


@pytest.mark.parametrize(
    ("axis", "component"),
    [(pygame.CONTROLLER_AXIS_TRIGGERRIGHT, 1), (pygame.CONTROLLER_AXIS_TRIGGERLEFT, 2)],
)
def test_triggers_are_the_pedals(app, axis, component):
    post(app, pygame.CONTROLLERAXISMOTION, axis=axis, value=FULL)
    assert app.session.now.action[component] == pytest.approx(1.0)
    assert app.session.now.by_human.tolist() == [False, True, True]


@pytest.mark.parametrize("binding", [b for b in BINDINGS if b.pad], ids=lambda b: b.command.name)
def test_every_button_of_the_table_gives_its_command(app, binding):
    devices = Devices()
    for name in binding.pad:
        if name not in gamepads.BUTTONS:
            continue
        down = pygame.event.Event(
            pygame.CONTROLLERBUTTONDOWN, instance_id=3, button=gamepads.BUTTONS[name]
        )
        assert devices.handle(down) == [binding.command] or devices.holds(binding.command)


def test_a_gamepad_that_is_plugged_in_is_opened_and_one_pulled_out_lets_go(app, pads):
    plug_in(app, pygame.CONTROLLERDEVICEADDED, 0)
    plug_in(app, pygame.JOYDEVICEADDED, 0)  # SDL reports a known one twice
    assert pads.opened == [0]
    post(app, pygame.CONTROLLERBUTTONDOWN, button=pygame.CONTROLLER_BUTTON_DPAD_UP)
    assert app.session.now.by_human.tolist() == [False, True, True]
    post(app, pygame.CONTROLLERDEVICEREMOVED)
    assert not app.session.now.by_human.any()


@pytest.mark.parametrize("kind", [pygame.CONTROLLERDEVICEADDED, pygame.JOYDEVICEADDED])
def test_a_gamepad_that_is_gone_before_it_is_opened_does_no_harm(app, kind):
    plug_in(app, kind, 99)
    assert app.running


def test_a_joystick_that_sdl_does_not_know_drives_too(app, pads):
    plug_in(app, pygame.JOYDEVICEADDED, 1)
    assert pads.opened == [1]
    post(app, pygame.JOYAXISMOTION, 8, axis=0, value=1.0)
    assert app.session.now.action[0] == pytest.approx(1.0, abs=0.01)
    post(app, pygame.JOYAXISMOTION, 8, axis=0, value=0.0)
    post(app, pygame.JOYHATMOTION, 8, hat=0, value=(-1, 1))
    assert app.session.now.by_human.tolist() == [True, True, True]
    post(app, pygame.JOYHATMOTION, 8, hat=0, value=(0, 0))
    assert not app.session.now.by_human.any()
    post(app, pygame.JOYBUTTONDOWN, 8, button=7)
    assert app.session.paused
    post(app, pygame.JOYBUTTONDOWN, 8, button=7)
    post(app, pygame.JOYAXISMOTION, 8, axis=0, value=1.0)
    post(app, pygame.JOYDEVICEREMOVED, 8)
    assert not app.session.now.by_human.any()


def test_events_of_a_known_gamepad_count_once(app, pads):
    plug_in(app, pygame.CONTROLLERDEVICEADDED, 0)
    post(app, pygame.JOYBUTTONDOWN, button=7)  # the same press, as SDL's joystick reports it
    assert not app.session.paused


def test_other_buttons_and_axes_from_a_file(app, tmp_path):
    path = tmp_path / "keys.toml"
    path.write_text('[gamepad]\ngas = ["a", "righty-"]\nbegin = []\n')
    app.devices = Devices(rebound(path))
    app.session.driver = Driver.HUMAN
    post(app, pygame.CONTROLLERAXISMOTION, axis=pygame.CONTROLLER_AXIS_TRIGGERRIGHT, value=FULL)
    assert app.session.now.action[1] == 0
    post(app, pygame.CONTROLLERAXISMOTION, axis=pygame.CONTROLLER_AXIS_RIGHTY, value=-FULL)
    assert app.session.now.action[1] == pytest.approx(1.0)
    post(app, pygame.CONTROLLERAXISMOTION, axis=pygame.CONTROLLER_AXIS_RIGHTY, value=0)
    post(app, pygame.CONTROLLERBUTTONDOWN, button=pygame.CONTROLLER_BUTTON_A)
    assert app.session.now.action[1] > 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('gas = ["turbo"]', "turbo"),
        ('gas = ["start"]', "means both"),
        ('pause = ["lefty+"]', "can only drive"),
        ('fly = ["a"]', "fly"),
    ],
)
def test_buttons_that_cannot_be_used_are_named(app, tmp_path, text, says):
    path = tmp_path / "keys.toml"
    path.write_text(f"[gamepad]\n{text}\n")
    with pytest.raises(UserError, match=says):
        rebound(path)


def test_no_button_has_two_meanings():
    names = [name for binding in BINDINGS for name in binding.pad]
    assert len(names) == len(set(names))
    assert {b.command for b in BINDINGS if b.pad} >= {Command.LEFT, Command.GAS, Command.REWIND}


def test_buttons_and_triggers_drive_together(app):
    post(app, pygame.CONTROLLERAXISMOTION, axis=pygame.CONTROLLER_AXIS_TRIGGERRIGHT, value=FULL)
    post(app, pygame.CONTROLLERAXISMOTION, axis=pygame.CONTROLLER_AXIS_LEFTX, value=FULL)
    post(app, pygame.CONTROLLERBUTTONDOWN, button=pygame.CONTROLLER_BUTTON_DPAD_LEFT)
    hands = app.devices.hands()
    assert (hands.steer, hands.gas, hands.brake) == (-1.0, 1.0, None)
    assert hands.analog == {"gas"}  # the button ramps, though the stick is pushed as well
