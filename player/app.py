"""The loop: events in, one step of the dream, one picture out, at the environment's rate.

The same loop runs in a window, without a display and in the tests; only the clock differs.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pygame

from player.commands import BINDINGS, Binding, Command
from player.devices import Devices, open_gamepads
from player.keeping import Keeper
from player.loading import Loading
from player.pacing import Pacer, Stopwatch
from player.session import Session
from player.view import panels
from player.view.layout import Layout
from player.view.screen import Screen, Show, quarters
from player.view.title import Title
from wm_tf.errors import UserError

if TYPE_CHECKING:
    from player.media import Animation, Film

WINDOW = (960, 720)
_MOUSE_EVENTS = (pygame.MOUSEBUTTONDOWN, pygame.MOUSEBUTTONUP, pygame.MOUSEMOTION)
_IDLE_PERIOD = 1 / 30  # of the loading screen
_MESSAGE_SECONDS = 2.5


@dataclass
class Limits:
    """When the loop ends by itself."""

    steps: int | None = None  # after so many dream steps
    at_end: bool = False  # when the dream ends
    at_script_end: bool = False  # when the script is driven


class App:
    """A window with a session in it."""

    def __init__(
        self,
        task: str,
        loading: Loading,
        begin: Callable[[Any], Session],
        *,
        limits: Limits,
        bindings: Sequence[Binding] = BINDINGS,
        real_time: bool = True,
        cameras: Sequence[Animation | Film] = (),
        export: Callable[[Path], None] | None = None,
    ) -> None:
        """Args:
        loading: the world that is on its way.
        begin: makes the session once the world is there.
        bindings: the key table.
        cameras: take pictures of every step.
        export: makes films of a finished recording, without being waited for.
        """
        self.task = task
        self.show = Show()
        self.devices = Devices(bindings)
        self.session: Session | None = None
        self.steps = 0  # dream steps made, over all dreams
        self.first_frame: float | None = None  # time.perf_counter() of it
        self.running = True
        self._turns = 0
        self.stopwatch = Stopwatch()
        self.pacer = Pacer(real_time)
        self._loading = loading
        self._begin = begin
        self._limits = limits
        self._cameras = cameras
        self._keeper = Keeper(task, export)
        self._screen = Screen(task, bindings)
        self._title = Title(task)
        self._started = time.perf_counter()
        self._message_until = 0.0
        self._layout: Layout | None = None
        self._dragged: int | None = None
        self._windowed: tuple[int, int] | None = None  # the size to come back to

    def run(self) -> None:
        """Runs until someone quits or a limit is reached; raises what loading raised."""
        while self.running and self._loading.running:
            self._wait_for_world()
        if not self.running:
            return
        self.session = self._begin(self._loading.result())
        while self.running:
            self.turn()
        self._keeper.finish(self.session)
        for camera in self._cameras:
            camera.close()

    @property
    def frames_per_second(self) -> float:
        """Pictures a second, over the whole drive."""
        if self.first_frame is None or self._turns < 2:
            return 0.0
        return (self._turns - 1) / (time.perf_counter() - self.first_frame)

    def turn(self) -> None:
        """One turn of the loop."""
        session = self.session
        assert session is not None
        for event in pygame.event.get():
            self._handle(event)
        self._follow_recording(session)
        began = time.perf_counter()
        moved = self._tick(session)
        frame = session.frame()
        self._refresh_numbers(session)
        surface = window()
        self._layout = self._screen.draw(surface, session, frame, self.show)
        if moved:
            self.stopwatch.add(time.perf_counter() - began)
            for camera in self._cameras:
                camera.add(session, frame)
        pygame.display.flip()
        if self.first_frame is None:
            self.first_frame = time.perf_counter()
        self._turns += 1
        self._stop_at_limits(session)
        self.pacer.wait(1 / (session.world.steps_per_second * min(session.speed, 1.0)))

    # Inside a turn -------------------------------------------------------------------------

    def _tick(self, session: Session) -> bool:
        session.rewinding = self.devices.holds(Command.REWIND)
        hands = self.devices.hands()
        moved = False
        # Faster than the environment's rate means more steps per picture.
        for _ in range(max(1, round(session.speed))):
            if self._limits.steps is not None and self.steps >= self._limits.steps:
                break
            if session.tick(hands):
                moved = True
                self.steps += not session.rewinding
        return moved

    def _stop_at_limits(self, session: Session) -> None:
        done = self._limits.steps is not None and self.steps >= self._limits.steps
        ended = self._limits.at_end and session.ended
        driven = self._limits.at_script_end and not session.scripted
        if done or ended or driven:
            self.running = False

    def _refresh_numbers(self, session: Session) -> None:
        self.show.frames_per_second = self.pacer.rate
        expected = session.world.steps_per_second * min(session.speed, 1.0)
        enough = len(self.pacer.ticks) == self.pacer.ticks.maxlen
        self.show.slow = self.pacer.real_time and enough and self.pacer.rate < 0.9 * expected
        if time.perf_counter() > self._message_until:
            self.show.message = ""

    def _wait_for_world(self) -> None:
        for event in pygame.event.get():
            if Command.QUIT in self.devices.handle(event):
                self.running = False
        surface = window()
        self._title.draw(surface, time.perf_counter() - self._started)
        pygame.display.flip()
        time.sleep(_IDLE_PERIOD)

    def _handle(self, event: pygame.event.Event) -> None:
        if event.type in _MOUSE_EVENTS:
            self._mouse(event)
        for command in self.devices.handle(event):
            self.do(command)

    def _mouse(self, event: pygame.event.Event) -> None:
        """Dragging the latents' bars: left holds, right lets go."""
        if event.type == pygame.MOUSEBUTTONUP:
            self._dragged = None
        elif event.type == pygame.MOUSEBUTTONDOWN:
            self._choose_future(event)
            dimension = self._bar_at(event.pos)
            if dimension is None or self.session is None:
                return
            if event.button == pygame.BUTTON_RIGHT:
                self.session.unpin(dimension)
            elif event.button == pygame.BUTTON_LEFT:
                self._dragged = dimension
                self._drag(event.pos)
        elif self._dragged is not None:
            self._drag(event.pos)

    def _choose_future(self, event: pygame.event.Event) -> None:
        if self.session is None or self.session.futures is None or self._layout is None:
            return
        for index, place in enumerate(quarters(self._layout.picture)):
            if event.button == pygame.BUTTON_LEFT and place.collidepoint(event.pos):
                self.session.choose(index)

    def _bars(self) -> list[pygame.Rect]:
        """Where the latents' bars are; empty while they are not shown."""
        layout, session = self._layout, self.session
        if not self.show.latent or layout is None or layout.panel is None or session is None:
            return []
        parts = panels.sections(layout.panel, layout.unit, True, self.show.mixture)
        if parts.latent is None:
            return []
        return panels.cells(parts.latent, layout.unit, session.world.task.latent_size)

    def _bar_at(self, point: tuple[int, int]) -> int | None:
        # The gaps between the bars belong to them.
        bars = enumerate(bar.inflate(2, 2) for bar in self._bars())
        return next((index for index, bar in bars if bar.collidepoint(point)), None)

    def _drag(self, point: tuple[int, int]) -> None:
        bars = self._bars()
        if self._dragged is not None and self.session is not None and bars:
            value = panels.value_at(bars[self._dragged], point[1])
            self.session.pin(self._dragged, value)

    def do(self, command: Command) -> None:
        """Carries out a command: the window's own here, the others in the session."""
        action = self._ACTIONS.get(command)
        if action is not None:
            action(self)
        elif self.session is not None:
            try:
                self.session.do(command)
            except UserError as error:  # such as: no vizdoom to be real in
                self.say(str(error))
            else:
                self._announce(command)

    def _follow_recording(self, session: Session) -> None:
        self.say(self._keeper.follow(session))
        self.show.recording = self._keeper.recording

    def say(self, message: str) -> None:
        """Shows a message for a moment, if there is one."""
        if not message:
            return
        self.show.message = message
        self._message_until = time.perf_counter() + _MESSAGE_SECONDS

    def _announce(self, command: Command) -> None:
        session = self.session
        assert session is not None
        if command is Command.SAVE_STATE:
            self.say("this moment is kept")
        elif command is Command.LOAD_STATE:
            self.say("back at the kept moment" if session.kept else "no moment was kept")
        elif command is Command.NEXT_DRIVER and len(session.drivers) == 1:
            self.say("there is no controller here")

    # The window's own commands ---------------------------------------------------------------

    def _quit(self) -> None:
        self.running = False

    def _toggle_help(self) -> None:
        self.show.help = not self.show.help

    def _toggle_hud(self) -> None:
        self.show.hud = not self.show.hud

    def _toggle_smooth(self) -> None:
        self.show.smooth = not self.show.smooth

    def _toggle_latent(self) -> None:
        self.show.latent = not self.show.latent
        self._dragged = None

    def _toggle_mixture(self) -> None:
        self.show.mixture = not self.show.mixture

    def _full_screen(self) -> None:
        self.devices.release_all()
        if self._windowed is None:
            self._windowed = window().get_size()
            pygame.display.set_mode((0, 0), pygame.FULLSCREEN)
        else:
            pygame.display.set_mode(self._windowed, pygame.RESIZABLE)
            self._windowed = None

    def _screenshot(self) -> None:
        self.say(self._keeper.screenshot(window()))

    def _toggle_recording(self) -> None:
        if self.session is not None:
            self.say(self._keeper.toggle(self.session))

    _ACTIONS: ClassVar[dict[Command, Callable[[Any], None]]] = {
        Command.QUIT: _quit,
        Command.HELP: _toggle_help,
        Command.HUD: _toggle_hud,
        Command.SMOOTH: _toggle_smooth,
        Command.FULL_SCREEN: _full_screen,
        Command.SCREENSHOT: _screenshot,
        Command.RECORD: _toggle_recording,
        Command.LATENT_PANEL: _toggle_latent,
        Command.MIXTURE_PANEL: _toggle_mixture,
    }


def window() -> pygame.Surface:
    """What is shown."""
    surface = pygame.display.get_surface()
    if surface is None:
        raise RuntimeError("the window is not open")
    return surface


def open_window(task: str) -> None:
    """Opens the window; in full screen or of any size later. Raises pygame.error if it cannot."""
    if sys.platform.startswith("linux"):
        # Without this SDL shows even a plain surface through OpenGL, Mesa's drivers load LLVM,
        # and the import of TensorFlow, which has an LLVM of its own, ends in a segmentation fault.
        os.environ.setdefault("SDL_FRAMEBUFFER_ACCELERATION", "0")
    pygame.display.init()
    pygame.font.init()
    pygame.display.set_caption(f"World Models: the dream of {task}")
    desktop = pygame.display.get_desktop_sizes()
    width, height = WINDOW
    if desktop and pygame.display.get_driver() != "dummy":  # a small screen gets a small window
        width, height = min(width, desktop[0][0]), min(height, desktop[0][1])
    try:
        pygame.display.set_mode((width, height), pygame.RESIZABLE)
    except pygame.error:  # a display that knows OpenGL alone (Wayland without X)
        os.environ.pop("SDL_FRAMEBUFFER_ACCELERATION", None)
        pygame.display.quit()
        pygame.display.init()
        pygame.display.set_mode((width, height), pygame.RESIZABLE)
    open_gamepads()
    pygame.key.set_repeat()  # none: a held key is one press
