"""From a command line to a drive and its report."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from player import options as command_line
from player import recording
from player import world as worlds
from player.commands import BINDINGS
from player.driving import Driver
from player.options import Options
from player.real import RealWorld
from player.recording import Planned
from player.session import Session
from player.starts import source_of
from player.world import World
from wm_tf import storage
from wm_tf.config import TASKS, get_task
from wm_tf.errors import RunFailed, UserError
from wm_tf.serving import manifest

if TYPE_CHECKING:
    from player import app as loop
    from player.choice import Choice
    from player.media import Animation, Film

HEADLESS_SECONDS = 8
"""How long a drive without a display lasts unless one says."""

Load = Callable[[Path, str], World]


def main(
    arguments: Sequence[str], *, load: Load = worlds.load, started: float | None = None
) -> int:
    """Runs the player; returns the exit status.

    That is 0, 2 for input that cannot be used, 1 for trouble, 130 for Ctrl-C.

    Args:
      load: loads the models (another one in tests).
      started: `time.perf_counter()` at the process's start.
    """
    started = time.perf_counter() if started is None else started
    try:
        play(command_line.parse(arguments), load, started)
    except (UserError, RunFailed, KeyboardInterrupt) as error:
        return _status(error)
    return 0


def _status(error: BaseException | None) -> int:
    """The exit status after what ended the player, which is said."""
    if error is None:
        return 0
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, UserError | RunFailed):
        print(f"player: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    traceback.print_exception(error)
    return 1


def play(options: Options, load: Load, started: float) -> None:
    """Opens a window (or none), loads, drives until it is over and writes what was asked for."""
    script = _script(options)
    source = source_of(options.start)
    if options.headless:
        os.environ["SDL_VIDEODRIVER"] = "dummy"
        os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    else:
        command_line.require_display()
    drivers = _drivers(options, load)
    driver = command_line.driver_of(options, drivers[options.task])
    # pygame only now: a command line that cannot be used costs no time.
    import pygame

    from player import app as loop
    from player import window
    from player.choice import Choice
    from player.keys import rebound

    try:
        if pygame.display.get_surface() is None:  # `__main__` may have been faster
            window.open_window()
    except pygame.error as error:
        raise UserError(f"no window could be opened ({error}); try --headless") from None
    bindings = BINDINGS if options.keys is None else rebound(options.keys)
    asked = iter([script])  # driven in the first dream, not in that of another task

    def export(task: str, path: Path) -> None:
        _export(options, task, path, app.say)

    app = loop.App(
        Choice(options.task, driver, source),
        drivers,
        lambda task: load(options.models, task),
        lambda world, choice: _session(options, world, choice, next(asked, None)),
        limits=_limits(options),
        title=_waits_for_someone(options),
        bindings=bindings,
        real_time=not options.headless,
        cameras=_cameras(options),
        export=None if options.headless else export,
    )
    try:
        _run(options, app, started)
    finally:
        if app.session is not None:
            app.session.close()
        pygame.quit()
        if app.loading.running:
            # Someone quit while TensorFlow was being imported: the interpreter cannot be
            # taken down in an orderly way under an import.
            status = _status(sys.exception())
            sys.stderr.flush()
            os._exit(status)


def _run(options: Options, app: loop.App, started: float) -> None:
    """Drives until it is over and writes what is written then, even if the films cannot be."""
    try:
        app.run()
    except RunFailed:
        _write(options, app, started)
        raise
    if app.session is not None and app.session.strayed:
        print(f"player: {options.actions}: {recording.STRAYED}", file=sys.stderr)
    _write(options, app, started)


def _waits_for_someone(options: Options) -> bool:
    """Whether the title screen stays until someone begins: not if it was said what to do."""
    said = (options.driver, options.steps, options.actions)
    return not options.headless and options.start == "real" and not any(said)


def _script(options: Options) -> list[Planned]:
    if options.actions is None or recording.is_recording(options.actions):
        return []
    return command_line.read_actions(options.actions, get_task(options.task))


def _limits(options: Options) -> loop.Limits:
    from player.app import Limits

    limits = Limits(options.steps, at_end=options.headless)
    if options.headless and options.steps is None:
        limits.at_script_end = options.actions is not None
        if options.actions is None:
            limits.steps = HEADLESS_SECONDS * get_task(options.task).steps_per_second
    return limits


def _cameras(options: Options) -> list[Animation | Film]:
    from player.media import Animation, Film

    cameras: list[Animation | Film] = []
    if options.gif is not None:
        cameras.append(Animation(options.task, options.gif))
    if options.mp4 is not None:
        cameras.append(Film(options.task, options.mp4))
    return cameras


def export_command(options: Options, task: str, path: Path) -> list[str]:
    """The command that makes the films of a recording: this player, without a display."""
    return [
        *(sys.executable, "-m", "player", task, "--headless"),
        *("--models", str(options.models), "--actions", str(path)),
        *("--gif", str(path.with_suffix(".gif")), "--mp4", str(path.with_suffix(".mp4"))),
    ]


def _export(options: Options, task: str, path: Path, say: Callable[[str], None]) -> None:
    """Makes the films in a process of its own: the window never waits, but says what became."""
    quiet = subprocess.DEVNULL
    try:
        films = subprocess.Popen(
            export_command(options, task, path),
            stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True,
        )  # fmt: skip
    except OSError as error:  # there is no memory for it
        say(f"no films could be made of {path} ({error.strerror})")
        return
    if hasattr(os, "setpriority"):
        with contextlib.suppress(OSError):  # a player of an even lower one cannot raise it
            os.setpriority(os.PRIO_PROCESS, films.pid, 15)  # the window comes first

    def wait() -> None:
        done = films.wait() == 0  # it has to be waited for, or it stays as a zombie
        names = f"{path.with_suffix('.gif')} and .mp4"
        say(f"films: {names}" if done else f"no films could be made of {path}")

    threading.Thread(target=wait, name="export", daemon=True).start()


def _drivers(options: Options, load: Load) -> dict[str, tuple[Driver, ...]]:
    """Who can drive in which task, of the models that are here.

    Finds what is plainly wrong with the chosen task's models before a window opens; loading checks
    it all.
    """
    if load is not worlds.load:
        return dict.fromkeys(TASKS, tuple(Driver))
    drivers: dict[str, tuple[Driver, ...]] = {}
    for task in TASKS:
        try:
            folder = manifest.find_models(options.models, task)
            content = manifest.read(folder, task)
        except UserError:
            if task == options.task:
                raise
            continue
        controller = any(name.split("/")[0] == "controller" for name in content["files"])
        drivers[task] = tuple(Driver) if controller else (Driver.HUMAN,)
    return drivers


def _session(
    options: Options, world: World, choice: Choice, asked: list[Planned] | None
) -> Session:
    """A session of the choice; `asked` is the script of the first one, None for later ones."""
    if world.task.name != options.task:  # chosen while the models were loaded
        asked = None
    driver, script = choice.driver, asked or []
    if not world.has_controller:  # the manifest may have promised one
        driver = Driver.HUMAN
        if asked is not None:
            command_line.driver_of(options, (driver,))
    said = options.driver is not None or options.actions is not None
    if options.headless and driver is Driver.HUMAN and not said:
        script = demonstration(world)
    session = Session(
        world,
        seed=options.seed,
        temperature=options.temperature,
        driver=driver,
        script=script,
        source=choice.source,
        make_real=lambda: _real_world(world),
    )
    if asked is not None and options.actions and recording.is_recording(options.actions):
        session.replay(recording.read(options.actions, world.task, world.digest))
    return session


def _real_world(world: World) -> RealWorld:
    """The task's real environment; raises UserError where it cannot be made."""
    from wm_tf.envs import task_module

    try:
        environment = task_module(world.task.name).make()
    except ImportError as error:
        raise UserError(f"no real environment: {error}") from error
    return RealWorld(world, environment)


def demonstration(world: World) -> list[Planned]:
    """A minute of calm driving for where there is neither a person nor a controller."""
    steps = np.arange(round(60 * world.steps_per_second))
    sway = 0.35 * np.sin(2 * np.pi * steps / (4 * world.steps_per_second))
    if world.task.name == "car_racing":
        gas = np.where(steps % 100 < 60, 0.6, 0.15)
        actions = np.stack([sway, gas, np.zeros_like(sway)], axis=1)
    else:
        actions = np.sign(sway)[:, None]
    hands = np.ones(world.task.action_size, bool)
    return [Planned(action, hands) for action in actions.astype(np.float32)]


def _write(options: Options, app: Any, started: float) -> None:
    from player import window
    from player.keeping import write_picture

    if app.session is None:  # quit while loading
        return
    with contextlib.ExitStack() as last:  # each is written, even if the other cannot be
        if options.json is not None:
            content = json.dumps(report(app, started), indent=1) + "\n"
            last.callback(storage.write_bytes, options.json, content.encode())
        if options.screenshot is not None:
            last.callback(write_picture, options.screenshot, window.surface())


def report(app: Any, started: float) -> dict[str, Any]:
    """What a drive was, for --json. `start_seconds`: from the process's start to the first frame
    of the dream; `step_ms`: step, decoding and drawing."""
    first = app.first_frame or started
    return {
        "task": app.task,
        "driver": app.session.driver.value,
        "steps": app.steps,
        "return": round(app.session.now.total, 4),
        "ended": app.session.ended,
        "step_ms": app.stopwatch.milliseconds(),
        "fps": round(app.frames_per_second, 2),
        "start_seconds": round(first - started, 3),
    }
