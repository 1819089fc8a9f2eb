"""Gamepads: what their buttons and axes are called, and how they come and go.

SDL knows most gamepads and tells which button is which; from one that it does not know, the first
two axes, the hat and the first ten buttons are taken in the order that is usual.
"""

from __future__ import annotations

import contextlib
from typing import Any

import pygame
from pygame._sdl2 import controller

DEAD_ZONE = 0.18
"""A stick nearer to its centre than this rests; a trigger likewise."""

BUTTONS = {
    "a": pygame.CONTROLLER_BUTTON_A,
    "b": pygame.CONTROLLER_BUTTON_B,
    "x": pygame.CONTROLLER_BUTTON_X,
    "y": pygame.CONTROLLER_BUTTON_Y,
    "back": pygame.CONTROLLER_BUTTON_BACK,
    "start": pygame.CONTROLLER_BUTTON_START,
    "leftstick": pygame.CONTROLLER_BUTTON_LEFTSTICK,
    "rightstick": pygame.CONTROLLER_BUTTON_RIGHTSTICK,
    "leftshoulder": pygame.CONTROLLER_BUTTON_LEFTSHOULDER,
    "rightshoulder": pygame.CONTROLLER_BUTTON_RIGHTSHOULDER,
    "up": pygame.CONTROLLER_BUTTON_DPAD_UP,
    "down": pygame.CONTROLLER_BUTTON_DPAD_DOWN,
    "left": pygame.CONTROLLER_BUTTON_DPAD_LEFT,
    "right": pygame.CONTROLLER_BUTTON_DPAD_RIGHT,
}
"""Buttons by name."""

_AXES = {
    "leftx": pygame.CONTROLLER_AXIS_LEFTX,
    "lefty": pygame.CONTROLLER_AXIS_LEFTY,
    "rightx": pygame.CONTROLLER_AXIS_RIGHTX,
    "righty": pygame.CONTROLLER_AXIS_RIGHTY,
    "lefttrigger": pygame.CONTROLLER_AXIS_TRIGGERLEFT,
    "righttrigger": pygame.CONTROLLER_AXIS_TRIGGERRIGHT,
}

AXES = {f"{name}{sign}": (axis, sign) for name, axis in _AXES.items() for sign in "+-"}
"""Halves of axes by name: ``leftx-`` is the left stick pushed to the left."""

_USUAL_BUTTONS = ("a", "b", "x", "y", "leftshoulder", "rightshoulder", "back", "start",
                  "leftstick", "rightstick")  # fmt: skip
_USUAL_AXES = (pygame.CONTROLLER_AXIS_LEFTX, pygame.CONTROLLER_AXIS_LEFTY)
_HAT = {("x", -1): "left", ("x", 1): "right", ("y", 1): "up", ("y", -1): "down"}


def open_gamepads() -> None:
    """Lets gamepads send their events, those plugged in later too."""
    controller.init()
    pygame.joystick.init()


class Gamepads:
    """The gamepads that are plugged in; their events, all in the words of the known ones."""

    def __init__(self) -> None:
        self._known: dict[int, Any] = {}  # by instance: kept open
        self._unknown: dict[int, Any] = {}

    def translated(self, event: pygame.event.Event) -> list[pygame.event.Event]:
        """The events of gamepads that an event stands for: itself, or those of an unknown one.

        A gamepad that is plugged in is opened.
        """
        if event.type in (pygame.CONTROLLERDEVICEADDED, pygame.JOYDEVICEADDED):
            with contextlib.suppress(pygame.error):  # pulled out again in the meantime
                self._open(event)
        elif event.type == pygame.CONTROLLERDEVICEREMOVED:
            self._known.pop(event.instance_id, None)
            return [event]
        elif getattr(event, "instance_id", None) in self._unknown:
            return self._of_unknown(event)
        elif event.type in (
            pygame.CONTROLLERBUTTONDOWN, pygame.CONTROLLERBUTTONUP, pygame.CONTROLLERAXISMOTION
        ):  # fmt: skip
            return [event]
        return []

    def _open(self, event: pygame.event.Event) -> None:
        if event.type == pygame.CONTROLLERDEVICEADDED:
            pad = controller.Controller(event.device_index)
            self._known[pad.as_joystick().get_instance_id()] = pad
        elif not controller.is_controller(event.device_index):
            joystick = pygame.joystick.Joystick(event.device_index)
            self._unknown[joystick.get_instance_id()] = joystick

    def _of_unknown(self, event: pygame.event.Event) -> list[pygame.event.Event]:
        who = event.instance_id
        if event.type == pygame.JOYDEVICEREMOVED:
            del self._unknown[who]
            return [pygame.event.Event(pygame.CONTROLLERDEVICEREMOVED, instance_id=who)]
        if event.type == pygame.JOYAXISMOTION and event.axis < len(_USUAL_AXES):
            value = round(event.value * 32767)
            return [pygame.event.Event(pygame.CONTROLLERAXISMOTION, instance_id=who,
                                       axis=_USUAL_AXES[event.axis], value=value)]  # fmt: skip
        if event.type == pygame.JOYHATMOTION:
            held = {_HAT.get(("x", event.value[0])), _HAT.get(("y", event.value[1]))}
            return [_button(who, name, name in held) for name in _HAT.values()]
        if event.type in (pygame.JOYBUTTONDOWN, pygame.JOYBUTTONUP) and event.button < len(
            _USUAL_BUTTONS
        ):
            return [_button(who, _USUAL_BUTTONS[event.button], event.type == pygame.JOYBUTTONDOWN)]
        return []


def _button(who: int, name: str, down: bool) -> pygame.event.Event:
    kind = pygame.CONTROLLERBUTTONDOWN if down else pygame.CONTROLLERBUTTONUP
    return pygame.event.Event(kind, instance_id=who, button=BUTTONS[name])


def strength(value: float) -> float:
    """How far a stick or trigger is pushed, in [0, 1]: 0 in the dead zone, whole beyond it."""
    return max(0.0, (min(value, 1.0) - DEAD_ZONE) / (1.0 - DEAD_ZONE))
