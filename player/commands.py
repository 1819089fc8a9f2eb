"""What a person can ask of the player, and the one table of keys that asks for it.

The devices, the help overlay and the README are all made from `BINDINGS`.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass


class Command(enum.Enum):
    """A semantic command: what is wanted, not which key was pressed."""

    LEFT = enum.auto()
    RIGHT = enum.auto()
    GAS = enum.auto()
    BRAKE = enum.auto()
    NEXT_DRIVER = enum.auto()
    PAUSE = enum.auto()
    STEP_FORWARD = enum.auto()
    STEP_BACK = enum.auto()
    REWIND = enum.auto()
    SLOWER = enum.auto()
    FASTER = enum.auto()
    SAVE_STATE = enum.auto()
    LOAD_STATE = enum.auto()
    BEGIN_AGAIN = enum.auto()
    BEGIN_SAME = enum.auto()
    BEGIN_ELSEWHERE = enum.auto()
    BEGIN_IN_NOISE = enum.auto()
    NEXT_VIEW = enum.auto()
    SYNCHRONISE = enum.auto()
    FUTURES = enum.auto()
    FORK = enum.auto()
    FUTURE_1 = enum.auto()
    FUTURE_2 = enum.auto()
    FUTURE_3 = enum.auto()
    FUTURE_4 = enum.auto()
    COOLER = enum.auto()
    WARMER = enum.auto()
    HELP = enum.auto()
    HUD = enum.auto()
    SMOOTH = enum.auto()
    LATENT_PANEL = enum.auto()
    FREE_LATENT = enum.auto()
    MIXTURE_PANEL = enum.auto()
    RECORD = enum.auto()
    SCREENSHOT = enum.auto()
    FULL_SCREEN = enum.auto()
    TITLE = enum.auto()
    BEGIN = enum.auto()
    QUIT = enum.auto()


HELD = frozenset({Command.LEFT, Command.RIGHT, Command.GAS, Command.BRAKE, Command.REWIND})
"""Commands that last as long as their key is down; the others happen once per press."""

DRIVING = frozenset({Command.LEFT, Command.RIGHT, Command.GAS, Command.BRAKE})


@dataclass(frozen=True)
class Binding:
    """One line of the help overlay: a command and the keys and gamepad buttons that give it.

    Keys are named as `pygame.key.key_code` knows them, with ``shift+`` or ``alt+`` before them;
    buttons and axes of gamepads as in `player.gamepads`.
    """

    command: Command
    keys: tuple[str, ...]
    text: str
    group: str
    pad: tuple[str, ...] = ()


BINDINGS: tuple[Binding, ...] = (
    Binding(Command.LEFT, ("left", "a"), "steer left", "Drive", ("left", "leftx-")),
    Binding(Command.RIGHT, ("right", "d"), "steer right", "Drive", ("right", "leftx+")),
    Binding(Command.GAS, ("up", "w"), "gas", "Drive", ("up", "righttrigger+")),
    Binding(Command.BRAKE, ("down", "s"), "brake", "Drive", ("down", "lefttrigger+")),
    Binding(
        Command.NEXT_DRIVER, ("tab",), "who drives: together, you, controller", "Drive", ("y",)
    ),
    Binding(Command.PAUSE, ("space", "p"), "pause", "Time", ("start",)),
    Binding(Command.STEP_FORWARD, (".",), "one step forward", "Time"),
    Binding(Command.STEP_BACK, (",",), "one step back", "Time"),
    Binding(Command.REWIND, ("backspace",), "rewind while held", "Time", ("leftshoulder",)),
    Binding(Command.SLOWER, ("-",), "slower", "Time"),
    Binding(Command.FASTER, ("=", "+"), "faster", "Time"),
    Binding(Command.SAVE_STATE, ("f5",), "keep this moment", "Time"),
    Binding(Command.LOAD_STATE, ("f9",), "back to the kept moment", "Time"),
    Binding(Command.BEGIN_AGAIN, ("r",), "begin again, with other chance", "Begin", ("back",)),
    Binding(Command.BEGIN_SAME, ("shift+r",), "begin again, the same dream", "Begin"),
    Binding(Command.BEGIN_ELSEWHERE, ("n",), "begin from another real frame", "Begin"),
    Binding(Command.BEGIN_IN_NOISE, ("i",), "begin from noise", "Begin"),
    Binding(Command.TITLE, ("t",), "title screen; there: the other task", "Begin"),
    Binding(Command.BEGIN, ("return",), "from the title screen into the dream", "Begin", ("a",)),
    Binding(Command.NEXT_VIEW, ("v",), "dream, real, both side by side", "Dream", ("x",)),
    Binding(Command.SYNCHRONISE, ("y",), "dream on from what is real", "Dream"),
    Binding(Command.FUTURES, ("k",), "four possible next seconds", "Dream"),
    Binding(Command.FORK, ("b",), "stop and choose one: click or 1 to 4", "Dream", ("b",)),
    Binding(Command.FUTURE_1, ("1",), "dream on in the first", "Dream"),
    Binding(Command.FUTURE_2, ("2",), "in the second", "Dream"),
    Binding(Command.FUTURE_3, ("3",), "in the third", "Dream"),
    Binding(Command.FUTURE_4, ("4",), "in the fourth", "Dream"),
    Binding(Command.COOLER, ("[",), "cooler: a calmer dream", "Dream"),
    Binding(Command.WARMER, ("]",), "hotter: a wilder dream", "Dream"),
    Binding(Command.LATENT_PANEL, ("l",), "latent vector: drag its bars", "Dream"),
    Binding(Command.FREE_LATENT, ("u",), "let go of every held latent", "Dream"),
    Binding(Command.MIXTURE_PANEL, ("g",), "what M expects: the mixture", "Dream"),
    Binding(Command.RECORD, ("f2",), "record, and stop recording", "Keep"),
    Binding(Command.SCREENSHOT, ("f12",), "screenshot", "Keep"),
    Binding(Command.HELP, ("h", "f1"), "these keys", "Window"),
    Binding(Command.HUD, ("f3",), "instruments on and off", "Window"),
    Binding(Command.SMOOTH, ("x",), "smooth or crisp picture", "Window"),
    Binding(Command.FULL_SCREEN, ("f11", "alt+return"), "full screen", "Window"),
    Binding(Command.QUIT, ("escape",), "close these keys, or quit", "Window"),
)

_NAMES = {
    "left": "Left", "right": "Right", "up": "Up", "down": "Down", "backspace": "Backspace",
    "escape": "Esc", ".": ". (dot)", ",": ", (comma)", "-": "- (minus)",
    "return": "Enter", "space": "Space", "tab": "Tab",
}  # fmt: skip


def key_label(key: str) -> str:
    """A key as people call it: ``shift+r`` is Shift+R."""
    parts = key.split("+") if len(key) > 1 else [key]
    return "+".join(_NAMES.get(part, part.capitalize()) for part in parts)


def keys_label(binding: Binding) -> str:
    """All keys of a line of the help overlay."""
    return "  ".join(key_label(key) for key in binding.keys)


_PAD_NAMES = {
    "leftx-": "stick left", "leftx+": "stick right", "lefttrigger+": "left trigger",
    "righttrigger+": "right trigger", "leftshoulder": "left shoulder",
}  # fmt: skip


def pad_label(binding: Binding) -> str:
    """All gamepad buttons of a line, as people call them: the D-pad's are its directions."""
    return ", ".join(_PAD_NAMES.get(name, name.capitalize()) for name in binding.pad)


def keys_of(bindings: Sequence[Binding], command: Command) -> str:
    """The first key of a command, as people call it."""
    keys = next(binding.keys for binding in bindings if binding.command is command)
    return key_label(keys[0]) if keys else "(no key)"


def markdown_table() -> str:
    """The key table as the README shows it."""
    lines = ["| keys | gamepad | what they do |", "|---|---|---|"]
    for binding in BINDINGS:
        keys = " ".join(f"<kbd>{key_label(key)}</kbd>" for key in binding.keys)
        lines.append(f"| {keys} | {pad_label(binding)} | {binding.text} |")
    return "\n".join(lines)
