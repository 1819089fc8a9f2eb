"""A ViZDoom engine that leaves nothing behind, however its user ends.

The engine is a process of its own. `DoomEngine` keeps its files in a temporary folder, starts it
under `wm_tf.envs.doom_supervisor` and ends it with `close`. What remains after

* `close`, the end of the interpreter or Ctrl-C: nothing;
* SIGKILL of this process, even with a hung engine: nothing, a few tenths of a second later;
* SIGKILL of its whole process group in the few milliseconds before the supervisor runs: some
  kilobytes, which the next start of an engine removes (Linux).

A hung engine blocks the process that waits for it inside native code, where no exception can reach
it. Only a watchdog in another process helps; it kills the process that waits, and the supervisor
ends the engine.

An engine belongs to the process that started it: nothing of it may be used after ``fork``.

On Windows there is no supervisor: `close` and the end of the interpreter end the engine.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wm_tf.envs import doom_supervisor
from wm_tf.errors import RunFailed, UserError

if TYPE_CHECKING:
    from vizdoom import DoomGame


_FOLDER_PREFIX = "wm_tf_doom_"  # a process id and random characters follow
_SHARED_MEMORY = Path("/dev/shm")  # where Linux shows it
_STALE_SECONDS = 60.0  # an engine is up long before


def import_vizdoom() -> Any:
    """The vizdoom package.

    Raises:
      UserError: it is not installed (or was built for another Python); says how to get it.
    """
    try:
        import vizdoom
    except (ImportError, SystemError) as error:
        raise UserError(
            f"take_cover needs the package vizdoom ({error}): pip install vizdoom"
        ) from error
    return vizdoom


class DoomEngine:
    """A running engine for one of the scenarios that vizdoom ships.

    `game` is its `vizdoom.DoomGame`, without window and sound.
    """

    def __init__(self, scenario: str, resolution: tuple[int, int]) -> None:
        """Starts the engine.

        Args:
          scenario: name of a configuration file in vizdoom's scenarios, such as "take_cover.cfg".
          resolution: width and height of the pictures; one of vizdoom.ScreenResolution.

        Raises:
          UserError: vizdoom is not installed.
          RunFailed: the engine does not start.
        """
        vizdoom = import_vizdoom()
        package = Path(vizdoom.__path__[0])
        if os.name == "posix":
            remove_stale()
        folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER_PREFIX}{os.getpid()}_"))
        self.game: DoomGame = vizdoom.DoomGame()
        # Also runs when the object is forgotten and at the interpreter's end.
        self._close = weakref.finalize(self, _close, self.game, folder)
        self._errors = (
            vizdoom.ViZDoomErrorException,
            vizdoom.ViZDoomIsNotRunningException,
            vizdoom.ViZDoomUnexpectedExitException,
        )
        self.game.load_config(str(package / "scenarios" / scenario))
        # Named here, or the engine would prefer a doom2.wad of the current folder.
        self.game.set_doom_game_path(str(package / "freedoom2.wad"))
        self.game.set_doom_config_path(str(folder / "_vizdoom.ini"))
        self.game.set_screen_format(vizdoom.ScreenFormat.RGB24)
        width, height = resolution
        self.game.set_screen_resolution(getattr(vizdoom.ScreenResolution, f"RES_{width}X{height}"))
        self.game.set_window_visible(False)
        self.game.set_sound_enabled(False)
        try:
            if os.name == "posix":
                self.game.set_vizdoom_path(_launcher(folder, package / "vizdoom"))
            self.game.init()
        except self._errors as error:
            raise RunFailed(f"the ViZDoom engine cannot start: {error}") from error
        finally:
            if not self.game.is_running():
                self.close()

    def begin(self, seed: int) -> np.ndarray:
        """Begins the episode of that seed, whatever was played before.

        Every episode begins by the same way, the first one too: what comes up with the engine is
        never played.

        Returns:
          The first picture, uint8 [height, width, 3], RGB.

        Raises:
          RunFailed: the engine has ended.
        """
        try:
            self.game.set_seed(seed)
            self.game.new_episode()
        except self._errors as error:
            raise RunFailed(f"the ViZDoom engine ended: {error}") from error
        return self._picture()

    def tic(self, buttons: list[float]) -> tuple[float, np.ndarray | None]:
        """Plays one tic with these buttons, 0 or 1 each in the order of the configuration.

        Returns:
          (reward, picture); no picture when the episode is over.

        Raises:
          RunFailed: the engine has ended.
        """
        try:
            reward = self.game.make_action(buttons)
        except self._errors as error:
            raise RunFailed(f"the ViZDoom engine ended: {error}") from error
        return reward, None if self.game.is_episode_finished() else self._picture()

    def damage(self) -> int:
        """Points of health that hits have cost in this episode, those of the fatal one included."""
        return int(self.game.get_game_variable(import_vizdoom().GameVariable.DAMAGE_TAKEN))

    def spare(self) -> None:
        """No hit of this episode takes the last point of health; `damage` counts it whole."""
        self.game.send_game_command("buddha")

    def close(self) -> None:
        """Ends the engine, hung or not, and removes its files. May be called again."""
        self._close()

    def _picture(self) -> np.ndarray:
        state = self.game.get_state()
        if state is None:
            raise RunFailed("the ViZDoom engine gives no picture")
        return np.asarray(state.screen_buffer)


def remove_stale() -> None:
    """Removes what engines of dead processes left, unless it is so new that it may be starting."""
    newest = time.time() - _STALE_SECONDS
    folders = Path(tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}*_*")
    for folder in _own_older(folders, newest):
        with contextlib.suppress(ValueError):  # not a name of ours
            if not _alive(int(folder.name.removeprefix(_FOLDER_PREFIX).split("_")[0])):
                shutil.rmtree(folder, ignore_errors=True)
    objects = _own_older(_SHARED_MEMORY.glob("ViZDoom*"), newest)
    used = _mapped_objects() if objects else set()
    for file in objects:
        if str(file) not in used:
            file.unlink(missing_ok=True)


def _own_older(paths: Iterable[Path], newest: float) -> list[Path]:
    """Those of the paths that are this user's and were last changed before `newest`."""
    found = []
    for path in paths:
        with contextlib.suppress(OSError):  # it has just been removed
            status = path.stat()
            if status.st_mtime < newest and status.st_uid == os.getuid():
                found.append(path)
    return found


def _mapped_objects() -> set[str]:
    """The shared-memory objects that this user's processes have in their memory (Linux)."""
    found: set[str] = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            lines = maps.read_text(errors="replace").splitlines()
            found.update(line[line.index("/") :] for line in lines if str(_SHARED_MEMORY) in line)
    return found


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _launcher(folder: Path, engine: Path) -> str:
    """A program in `folder` that runs the engine under its supervisor."""
    # -I and -S: no user's modules and no site-packages, for a quick start.
    words = [sys.executable, "-I", "-S", doom_supervisor.__file__, str(os.getpid()), folder, engine]
    path = folder / "vizdoom"
    path.write_text(f'#!/bin/sh\nexec {shlex.join(str(word) for word in words)} "$@"\n')
    path.chmod(0o700)
    # DoomGame.init crashes the whole process when its engine cannot be run, so look before.
    for program in (path, Path(sys.executable), engine):
        if not os.access(program, os.X_OK):
            raise RunFailed(
                f"the ViZDoom engine cannot start: {program} may not be run "
                f"(temporary folder: {tempfile.gettempdir()}, chosen by TMPDIR)"
            )
    return str(path)


def _close(game: DoomGame, folder: Path) -> None:
    # The engine is killed first: a hung one would let DoomGame.close wait for ever.
    with contextlib.suppress(OSError, ValueError):
        if game.is_running():
            os.kill(int((folder / doom_supervisor.PID_FILE).read_text()), signal.SIGTERM)
    game.close()
    shutil.rmtree(folder, ignore_errors=True)
