"""The player's command line and what can be checked of it before a window opens."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from player import driving
from player.driving import Driver
from player.recording import Planned
from wm_tf import storage
from wm_tf.config import Task, get_task
from wm_tf.dream.world import checked_temperature
from wm_tf.errors import UserError


@dataclass(frozen=True)
class Options:
    """Drive inside the dream of a network, alone or together with its controller."""

    task: tyro.conf.Positional[str] = "car_racing"
    """car_racing or take_cover."""
    models: Path = Path("saved_models")
    """Folder of the SavedModels; looked up from the current folder, then from the checkout."""
    driver: Literal["human", "controller", "assist"] | None = None
    """Who drives. assist (the default where there is a controller): the controller, and you on the
    axis whose key you hold; controller: you on all axes while you hold a key; human: you alone. Tab
    changes it."""
    seed: int = 1
    """Another seed gives other dreams."""
    temperature: float | None = None
    """How uncertain the dream is; above 0 (default: the models' own)."""
    start: str = "real"
    """What the dream begins from: real (a recorded frame), noise, or a picture file."""
    keys: Path | None = None
    """Other keys and gamepad buttons: a TOML file of lines such as gas = ["up", "i"]."""
    headless: bool = False
    """The same loop without a display, as fast as it goes."""
    steps: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """End after so many dream steps (headless: 8 seconds' worth, or all of --actions)."""
    actions: Path | None = None
    """Actions to drive: a file of JSON lines {"action": [steer, gas, brake]}, or a recording."""
    screenshot: Path | None = None
    """Write the last picture of the window (png)."""
    gif: Path | None = None
    """Write the drive as an animation (gif)."""
    mp4: Path | None = None
    """Write the drive as a film (mp4)."""
    json: Path | None = None
    """Write what happened: steps, return, step times, frames per second."""


def parse(arguments: Sequence[str]) -> Options:
    """The options of a command line; ends the process with status 2 if it is not understood."""
    options = tyro.cli(Options, prog="python -m player", args=arguments)
    check(options)
    return options


def check(options: Options) -> None:
    """Raises UserError for values that cannot be used."""
    get_task(options.task)
    if options.seed < 0:
        raise UserError(f"--seed: expected a number from 0 on, got {options.seed}")
    if options.steps is not None and options.steps < 1:
        raise UserError(f"--steps: expected a number from 1 on, got {options.steps}")
    if options.temperature is not None:
        with np.errstate(over="ignore"):
            checked_temperature(float(np.float32(options.temperature)))  # as the dream takes it
    for name, suffix in (("screenshot", ".png"), ("gif", ".gif"), ("mp4", ".mp4"), ("json", "")):
        path: Path | None = getattr(options, name)
        if path is None:
            continue
        if not path.name.lower().endswith(suffix):
            raise UserError(f"--{name}: expected a name that ends in {suffix}, got {path}")
        if not os.path.isdir(path.absolute().parent):
            raise UserError(f"--{name} {path}: there is no folder {path.absolute().parent}")
        storage.check_output(f"--{name}", path)


def driver_of(options: Options, possible: Sequence[Driver]) -> Driver:
    """Who drives at first, of those that can.

    Raises:
      UserError: a controller is asked for where there is none.
    """
    if options.driver is not None:
        driver = Driver(options.driver)
    elif options.actions is not None or Driver.ASSIST not in possible:
        driver = Driver.HUMAN
    else:
        driver = Driver.ASSIST
    if driver not in possible:
        raise UserError(
            f"--driver {driver.value}: there is no controller for {options.task} in "
            f"{options.models}, only human is possible"
        )
    return driver


def require_display(environment: dict[str, str] | os._Environ[str] | None = None) -> None:
    """Raises UserError where no window can be opened (Linux without X or Wayland)."""
    environment = os.environ if environment is None else environment
    names = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    if sys.platform.startswith("linux") and not any(environment.get(name) for name in names):
        raise UserError(
            "no display (neither DISPLAY nor WAYLAND_DISPLAY is set); "
            "python -m player --headless --gif dream.gif makes an animation of a drive instead"
        )


def read_actions(path: Path, task: Task) -> list[Planned]:
    """Reads JSON lines {"action": [...]}; other keys are ignored, empty lines too.

    Raises:
      UserError: the file or one of its lines cannot be used; the message names both.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise UserError(f"{path}: cannot be read ({reason})") from None
    actions = [
        _action(line, task, f"{path}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not actions:
        raise UserError(f"{path}: holds no actions")
    return actions


def _action(line: str, task: Task, where: str) -> Planned:
    names = ", ".join(axis.name for axis in driving.AXES[task.name])
    expected = f'expected {{"action": [{names}]}}'
    try:
        values: Any = json.loads(line)["action"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise UserError(f"{where}: {expected}, got {line.strip()[:60]!r}") from None
    numbers = isinstance(values, list) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    )
    if not numbers or len(values) != task.action_size:
        raise UserError(f"{where}: {expected}, got {str(values)[:60]}")
    try:
        with np.errstate(over="ignore"):
            action = np.array(values, np.float64).astype(np.float32)
        finite = bool(np.isfinite(action).all())
    except OverflowError:  # a whole number that is greater than every float
        finite = False
    if not finite:
        raise UserError(f"{where}: {expected} of finite numbers, got {str(values)[:60]}")
    return Planned(action, np.ones(task.action_size, bool))
