"""Keyboard and gamepads become semantic commands and hands on the controls.

Held keys are followed through their events, not read from the keyboard's state: so a tap that is
shorter than a frame still counts for one step, posted events work like typed ones, and everything
is let go when the window loses the focus.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pygame
from pygame._sdl2 import controller

from player.commands import BINDINGS, HELD, Binding, Command
from player.driving import Hands
from wm_tf.errors import UserError

DEAD_ZONE = 0.18
"""A stick nearer to its centre than this rests; a trigger likewise."""

_PAD_BUTTONS = {
    "a": pygame.CONTROLLER_BUTTON_A,
    "b": pygame.CONTROLLER_BUTTON_B,
    "x": pygame.CONTROLLER_BUTTON_X,
    "y": pygame.CONTROLLER_BUTTON_Y,
    "back": pygame.CONTROLLER_BUTTON_BACK,
    "start": pygame.CONTROLLER_BUTTON_START,
    "leftshoulder": pygame.CONTROLLER_BUTTON_LEFTSHOULDER,
    "rightshoulder": pygame.CONTROLLER_BUTTON_RIGHTSHOULDER,
    "up": pygame.CONTROLLER_BUTTON_DPAD_UP,
    "down": pygame.CONTROLLER_BUTTON_DPAD_DOWN,
    "left": pygame.CONTROLLER_BUTTON_DPAD_LEFT,
    "right": pygame.CONTROLLER_BUTTON_DPAD_RIGHT,
}


def open_gamepads() -> None:
    """Lets gamepads send their events, those plugged in later too."""
    controller.init()


Chord = tuple[int, str]
"""A key code and the modifier that goes with it: "", "shift" or "alt"."""


def rebound(path: Path) -> tuple[Binding, ...]:
    """The key table with other keys, from a TOML file of lines such as ``gas = ["up", "i"]``.

    Raises:
      UserError: the file cannot be read, or names a command or key that does not exist, or gives
        one key two meanings.
    """
    try:
        changes = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    known = {binding.command.name.lower() for binding in BINDINGS}
    for name, keys in changes.items():
        if name not in known:
            accepted = ", ".join(sorted(known))
            raise UserError(f"{path}: unknown command {name!r}: expected one of {accepted}")
        if not (isinstance(keys, list) and all(isinstance(key, str) for key in keys)):
            raise UserError(f"{path}: {name}: expected a list of keys, got {keys!r}")
    table = tuple(
        replace(b, keys=tuple(changes.get(b.command.name.lower(), b.keys))) for b in BINDINGS
    )
    _check_keys(path, table)
    return table


def _check_keys(path: Path, table: Sequence[Binding]) -> None:
    meanings: dict[Chord, Command] = {}
    for binding in table:
        for key in binding.keys:
            try:
                where = chord(key)
            except ValueError:
                raise UserError(f"{path}: unknown key {key!r}") from None
            if where in meanings:
                first, second = meanings[where].name.lower(), binding.command.name.lower()
                raise UserError(f"{path}: key {key!r} means both {first} and {second}")
            meanings[where] = binding.command


def chord(key: str) -> Chord:
    """The key of a binding, as ``shift+r``. Raises ValueError for an unknown name."""
    modifier, name = "", key
    for prefix in ("shift", "alt"):
        if key.startswith(prefix + "+"):
            modifier, name = prefix, key[len(prefix) + 1 :]
    return pygame.key.key_code(name), modifier


class Devices:
    """What is held on all devices, and what was pressed since one last asked."""

    def __init__(self, bindings: Sequence[Binding] = BINDINGS) -> None:
        self._by_chord = {chord(key): b.command for b in bindings for key in b.keys}
        self._by_button = {_PAD_BUTTONS[name]: b.command for b in bindings for name in b.pad}
        self._held: dict[object, Command] = {}  # by what holds it: a key or a gamepad's button
        self._tapped: set[Command] = set()
        self._sticks: dict[tuple[int, int], float] = {}  # (gamepad, axis): value
        self._pads: dict[int, object] = {}

    def handle(self, event: pygame.event.Event) -> list[Command]:
        """Takes note of an event; returns the commands that happened by it."""
        if event.type == pygame.KEYDOWN:
            return self._press(("key", event.key), self._command_of(event))
        if event.type == pygame.KEYUP:
            self._held.pop(("key", event.key), None)
        elif event.type == pygame.CONTROLLERBUTTONDOWN:
            source = (event.instance_id, event.button)
            return self._press(source, self._by_button.get(event.button))
        elif event.type == pygame.CONTROLLERBUTTONUP:
            self._held.pop((event.instance_id, event.button), None)
        elif event.type == pygame.CONTROLLERAXISMOTION:
            self._sticks[event.instance_id, event.axis] = event.value / 32767
        elif event.type == pygame.CONTROLLERDEVICEADDED:
            self._add_pad(event.device_index)
        elif event.type == pygame.CONTROLLERDEVICEREMOVED:
            self._remove_pad(event.instance_id)
        elif event.type == pygame.WINDOWFOCUSLOST:
            self.release_all()
        elif event.type == pygame.QUIT:
            return [Command.QUIT]
        return []

    def release_all(self) -> None:
        """Lets go of everything, as when the window loses the focus."""
        self._held.clear()
        self._tapped.clear()
        self._sticks.clear()

    def holds(self, command: Command) -> bool:
        """Whether a command is held, or was for a moment since `hands` was last asked."""
        return command in self._tapped or command in self._held.values()

    def hands(self) -> Hands:
        """Where the hands are for the next step; a tap counts for this one step."""
        keys = {command for command in HELD if self.holds(command)}
        self._tapped.clear()
        if keys & {Command.LEFT, Command.RIGHT, Command.GAS, Command.BRAKE}:
            return Hands(
                _direction(keys, Command.LEFT, Command.RIGHT),
                1.0 if Command.GAS in keys else None,
                1.0 if Command.BRAKE in keys else None,
            )
        return self._stick_hands()

    def _command_of(self, event: pygame.event.Event) -> Command | None:
        modifiers = getattr(event, "mod", 0)
        for modifier, mask in (("shift", pygame.KMOD_SHIFT), ("alt", pygame.KMOD_ALT)):
            if modifiers & mask and (event.key, modifier) in self._by_chord:
                return self._by_chord[event.key, modifier]
        return self._by_chord.get((event.key, ""))

    def _press(self, source: object, command: Command | None) -> list[Command]:
        if command is None:
            return []
        if command in HELD:
            self._held[source] = command
            self._tapped.add(command)
            return []
        return [command]

    def _stick_hands(self) -> Hands:
        steer = self._strongest(pygame.CONTROLLER_AXIS_LEFTX)
        gas = self._strongest(pygame.CONTROLLER_AXIS_TRIGGERRIGHT)
        brake = self._strongest(pygame.CONTROLLER_AXIS_TRIGGERLEFT)
        return Hands(steer, gas, brake, analog=True)

    def _strongest(self, axis: int) -> float | None:
        values = [value for (_, which), value in self._sticks.items() if which == axis]
        value = max(values, key=abs, default=0.0)
        if abs(value) <= DEAD_ZONE:
            return None
        # From the edge of the dead zone the range is whole again.
        reach = (min(abs(value), 1.0) - DEAD_ZONE) / (1.0 - DEAD_ZONE)
        return reach if value > 0 else -reach

    def _add_pad(self, index: int) -> None:
        if controller.is_controller(index):
            pad = controller.Controller(index)
            self._pads[pad.as_joystick().get_instance_id()] = pad

    def _remove_pad(self, instance: int) -> None:
        self._pads.pop(instance, None)
        for key in [key for key in self._sticks if key[0] == instance]:
            del self._sticks[key]
        for source in [s for s in self._held if isinstance(s, tuple) and s[0] == instance]:
            del self._held[source]


def _direction(keys: set[Command], negative: Command, positive: Command) -> float | None:
    if not keys & {negative, positive}:
        return None
    return float(positive in keys) - float(negative in keys)
