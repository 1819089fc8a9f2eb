"""Keyboard and gamepads become semantic commands and hands on the controls.

Held keys are followed through their events, not read from the keyboard's state: so a tap that is
shorter than a frame still counts for one step, posted events work like typed ones, and everything
is let go when the window loses the focus.
"""

from __future__ import annotations

from collections.abc import Sequence

import pygame

from player.commands import BINDINGS, DRIVING, HELD, Binding, Command
from player.driving import Hands
from player.gamepads import AXES, BUTTONS, Gamepads, strength
from player.keys import chord


class Devices:
    """What is held on all devices, and what was pressed since one last asked."""

    def __init__(self, bindings: Sequence[Binding] = BINDINGS) -> None:
        self._by_chord = {chord(key): b.command for b in bindings for key in b.keys}
        keys = [(key, b.command) for b in bindings for key in b.keys]
        self._by_sign = {key: c for key, c in keys if len(key) == 1 and not key.isalpha()}
        pads = [(name, b.command) for b in bindings for name in b.pad]
        self._by_button = {BUTTONS[name]: command for name, command in pads if name in BUTTONS}
        self._by_axis = {AXES[name]: command for name, command in pads if name in AXES}
        self._held: dict[object, Command] = {}  # by what holds it: a key or a gamepad's button
        self._tapped: set[Command] = set()
        self._sticks: dict[tuple[int, int], float] = {}  # (gamepad, axis): value
        self._pads = Gamepads()

    def handle(self, event: pygame.event.Event) -> list[Command]:
        """Takes note of an event; returns the commands that happened by it."""
        if event.type == pygame.KEYDOWN:
            return self._press(("key", event.key), self._command_of(event))
        if event.type == pygame.KEYUP:
            self._held.pop(("key", event.key), None)
        elif event.type == pygame.WINDOWFOCUSLOST:
            self.release_all()
        return [c for pad in self._pads.translated(event) for c in self._handle_pad(pad)]

    def release_all(self) -> None:
        """Lets go of everything, as when the window loses the focus."""
        self._held.clear()
        self._tapped.clear()
        self._sticks.clear()

    def holds(self, command: Command) -> bool:
        """Whether a command is held, or was for a moment since `hands` was last asked."""
        return command in self._tapped or command in self._held.values()

    def hands(self) -> Hands:
        """Where the hands are for the next step; a tap counts for this one step.

        On each control a key or button comes before a stick or trigger.
        """
        keys = {command for command in HELD if self.holds(command)}
        self._tapped.clear()
        held = {
            "steer": _direction(keys, Command.LEFT, Command.RIGHT),
            "gas": 1.0 if Command.GAS in keys else None,
            "brake": 1.0 if Command.BRAKE in keys else None,
        }
        pushed = {name: value for name, value in self._pushed().items() if held[name] is None}
        return Hands(**(held | pushed), analog=frozenset(pushed))

    def _command_of(self, event: pygame.event.Event) -> Command | None:
        """By the key or, because "=" and "[" have no key on some keyboards, by what it types."""
        modifiers = getattr(event, "mod", 0)
        for modifier, mask in (("shift", pygame.KMOD_SHIFT), ("alt", pygame.KMOD_ALT)):
            if modifiers & mask and (event.key, modifier) in self._by_chord:
                return self._by_chord[event.key, modifier]
        typed = self._by_sign.get(getattr(event, "unicode", ""))
        return self._by_chord.get((event.key, ""), typed)

    def _press(self, source: object, command: Command | None) -> list[Command]:
        if command is None:
            return []
        if command in HELD:
            self._held[source] = command
            self._tapped.add(command)
            return []
        return [command]

    def _handle_pad(self, event: pygame.event.Event) -> list[Command]:
        who = event.instance_id
        if event.type == pygame.CONTROLLERBUTTONDOWN:
            return self._press((who, event.button), self._by_button.get(event.button))
        if event.type == pygame.CONTROLLERBUTTONUP:
            self._held.pop((who, event.button), None)
        elif event.type == pygame.CONTROLLERAXISMOTION:
            self._sticks[who, event.axis] = event.value / 32767
        elif event.type == pygame.CONTROLLERDEVICEREMOVED:
            self._sticks = {key: v for key, v in self._sticks.items() if key[0] != who}
            self._held = {
                key: c
                for key, c in self._held.items()
                if not (isinstance(key, tuple) and key[0] == who)
            }
        return []

    def _pushed(self) -> dict[str, float]:
        """How far the sticks and triggers are pushed, by control; without those at rest."""
        pushed = dict.fromkeys(DRIVING, 0.0)
        for (_, axis), value in self._sticks.items():
            command = self._by_axis.get((axis, "+" if value > 0 else "-"))
            if command is not None:
                pushed[command] = max(pushed[command], strength(abs(value)))
        controls = {
            "steer": pushed[Command.RIGHT] - pushed[Command.LEFT],
            "gas": pushed[Command.GAS],
            "brake": pushed[Command.BRAKE],
        }
        return {name: value for name, value in controls.items() if value}


def _direction(keys: set[Command], negative: Command, positive: Command) -> float | None:
    if not keys & {negative, positive}:
        return None
    return float(positive in keys) - float(negative in keys)
