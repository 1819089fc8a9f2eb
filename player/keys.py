"""Other keys and buttons, from a TOML file:

    gas = ["up", "i"]        # keys, as pygame names them, shift+ or alt+ before them
    begin_in_noise = []      # no key

    [gamepad]                # buttons and halves of axes, as player.gamepads names them
    gas = ["a", "righty-"]

Commands that are not named keep what they have.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pygame

from player import gamepads
from player.commands import BINDINGS, DRIVING, Binding, Command
from wm_tf.errors import UserError

Chord = tuple[int, str]
"""A key code and the modifier that goes with it: "", "shift" or "alt"."""


def chord(key: str) -> Chord:
    """The key of a binding, as ``shift+r``. Raises ValueError for an unknown name."""
    modifier, name = "", key
    for prefix in ("shift", "alt"):
        if key.startswith(prefix + "+"):
            modifier, name = prefix, key[len(prefix) + 1 :]
    return pygame.key.key_code(name), modifier


def rebound(path: Path) -> tuple[Binding, ...]:
    """The key table with the changes of a file.

    Raises:
      UserError: the file cannot be read, or names a command, key or button that does not exist,
        or gives one of them two meanings.
    """
    try:
        changes = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    pads = changes.pop("gamepad", {})
    if not isinstance(pads, dict):
        raise UserError(f"{path}: gamepad: expected a table, got {pads!r}")
    for table in (changes, pads):
        _check_table(path, table)
    bindings = tuple(
        replace(
            binding,
            keys=tuple(changes.get(binding.command.name.lower(), binding.keys)),
            pad=tuple(pads.get(binding.command.name.lower(), binding.pad)),
        )
        for binding in BINDINGS
    )
    named = "one that pygame names, perhaps after shift+ or alt+"
    _check_meanings(path, "key", named, bindings, lambda binding: binding.keys, chord)
    named = "one of " + ", ".join([*gamepads.BUTTONS, *gamepads.AXES])
    _check_meanings(path, "button", named, bindings, lambda binding: binding.pad, _button)
    for binding in bindings:
        axes = [name for name in binding.pad if name in gamepads.AXES]
        if axes and binding.command not in DRIVING:
            name = binding.command.name.lower()
            raise UserError(f"{path}: {name}: {axes[0]!r} is an axis, which can only drive")
    return bindings


def _check_table(path: Path, table: dict[str, Any]) -> None:
    known = {binding.command.name.lower() for binding in BINDINGS}
    for name, keys in table.items():
        if name not in known:
            accepted = ", ".join(sorted(known))
            raise UserError(f"{path}: unknown command {name!r}: expected one of {accepted}")
        if not (isinstance(keys, list) and all(isinstance(key, str) for key in keys)):
            raise UserError(f"{path}: {name}: expected a list of names, got {keys!r}")


def _check_meanings(
    path: Path,
    what: str,
    accepted: str,
    bindings: Sequence[Binding],
    names_of: Callable[[Binding], Sequence[str]],
    meaning_of: Callable[[str], Any],
) -> None:
    meanings: dict[Any, Command] = {}
    for binding in bindings:
        for name in names_of(binding):
            try:
                meaning = meaning_of(name)
            except ValueError:
                raise UserError(f"{path}: unknown {what} {name!r}: expected {accepted}") from None
            first = meanings.setdefault(meaning, binding.command)
            if first is not binding.command:
                pair = f"{first.name.lower()} and {binding.command.name.lower()}"
                raise UserError(f"{path}: {what} {name!r} means both {pair}")


def _button(name: str) -> str:
    if name not in gamepads.BUTTONS and name not in gamepads.AXES:
        raise ValueError(name)
    return name
