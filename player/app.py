"""The loop: events in, one step of the dream, one picture out, at the environment's rate.

The same loop runs in a window, without a display and in the tests; only the clock differs. Until
the models are there, and until someone begins, it shows the title screen.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pygame

from player import mouse, window
from player.choice import Choice, Drivers, with_task
from player.commands import BINDINGS, Binding, Command
from player.devices import Devices
from player.driving import HANDS_OFF, Hands
from player.foyer import Foyer
from player.keeping import Keeper
from player.loading import Loading
from player.pacing import Pacer, Stopwatch, Sweeper
from player.recording import STRAYED
from player.session import Session
from player.starts import picture_source
from player.view.layout import Layout
from player.view.screen import Screen, Show
from player.world import World
from wm_tf.errors import RunFailed, UserError

if TYPE_CHECKING:
    from player.media import Animation, Film

_IDLE_PERIOD = 1 / 25  # of the title screen while models load
_MESSAGE_SECONDS = 2.5

Begin = Callable[[World, Choice], Session]


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
        choice: Choice,
        drivers: Drivers,
        load: Callable[[str], World],
        begin: Begin,
        *,
        limits: Limits,
        title: bool = False,
        bindings: Sequence[Binding] = BINDINGS,
        real_time: bool = True,
        cameras: Sequence[Animation | Film] = (),
        export: Callable[[str, Path], None] | None = None,
    ) -> None:
        """Args:
        choice: the task, the driver and the start at first.
        drivers: what else can be chosen.
        load: loads the models of a task, in a thread of its own.
        begin: makes the session once the world is there.
        title: whether the title screen waits for someone to begin.
        bindings: the key table.
        cameras: take pictures of every step.
        export: makes films of a task's finished recording, without being waited for.
        """
        self.show = Show()
        self._strayed = False  # what was said of the session
        self.devices = Devices(bindings)
        self.session: Session | None = None
        self.steps = 0  # dream steps made, over all dreams
        self.first_frame: float | None = None  # time.perf_counter() of it
        self.running = True
        self.titled = title
        self.stopwatch = Stopwatch()
        self.pacer = Pacer(real_time)
        self.loading = Loading(lambda: load(choice.task))
        self.foyer = Foyer(choice, drivers, bindings)
        self._turns = 0
        self._last_frame = 0.0  # time.perf_counter() of it
        self._load = load
        self._begin = begin
        self._limits = limits
        self._bindings = bindings
        self._cameras = cameras
        self._export = export
        self._sweeper = Sweeper()
        self._full_screen = window.FullScreen()
        self._mouse = mouse.Mouse()
        self._message_until = 0.0
        self._layout: Layout | None = None
        self._enter_task(choice.task)

    @property
    def task(self) -> str:
        """The task that is shown."""
        return self._keeper.task

    def run(self) -> None:
        """Runs until someone quits or a limit is reached; raises what loading raised.

        However it ends, a recording is kept. The cameras' files are written unless something was
        raised.

        Raises:
          RunFailed: one of the files could not be written; the others are.
        """
        with contextlib.ExitStack() as last:  # all of it is done, even if some of it raises
            for camera in self._cameras:
                last.callback(camera.discard)
            last.callback(self._finish_recording)
            while self.running:
                self.turn()
            for camera in self._cameras:
                last.callback(camera.close)

    def _finish_recording(self) -> None:
        if self.session is not None:
            self._keeper.finish(self.session)

    @property
    def frames_per_second(self) -> float:
        """Pictures a second, over the whole drive."""
        if self.first_frame is None or self._turns < 2:
            return 0.0
        return (self._turns - 1) / (self._last_frame - self.first_frame)

    def turn(self) -> None:
        """One turn of the loop."""
        for event in pygame.event.get():
            self._handle(event)
        if not self.running:
            return
        self._full_screen.turn()
        if self.session is None and not self.loading.running:
            self._take_world()
        if time.perf_counter() > self._message_until:
            self.show.message = ""
        if self.session is None:
            self._wait_for_world()
        elif self.titled:
            self._title_turn(self.session)
        else:
            self._dream_turn(self.session)
        if self.session is not None:
            self.say(self.session.take_trouble())

    def do(self, command: Command) -> None:
        """Carries out a command: the window's own here, the others in the title or the session."""
        action = self._ACTIONS.get(command)
        if action is not None:
            action(self)
        elif self.titled or self.session is None:
            if command is Command.TITLE and len(self.foyer.drivers) == 1:
                self.say("there are models of no other task here")
            elif not self.foyer.do(command, self.session) and self.session is not None:
                self._begin_dream()
                if command not in (Command.BEGIN, Command.PAUSE):
                    self.do(command)
            self._follow_choice()
        elif command is Command.TITLE:
            self._open_title()
        else:
            self._do_in_session(command, self.session)

    def say(self, message: str) -> None:
        """Shows a message for a moment, if there is one. Any thread may say something."""
        if message:
            self._message_until = time.perf_counter() + _MESSAGE_SECONDS
            self.show.message = message

    # The title screen ----------------------------------------------------------------------

    def _wait_for_world(self) -> None:
        self.foyer.draw(window.surface(), None, self.show)
        pygame.display.flip()
        time.sleep(_IDLE_PERIOD)

    def _take_world(self) -> None:
        """The models are loaded: the session begins. What loading raised ends the first one."""
        try:
            world = self.loading.result()
        except UserError as error:
            if self.foyer.back_to is None:
                raise
            self.say(str(error))
            self.foyer.choice = self.foyer.back_to
            self._load_task()
            return
        choice, task = self.foyer.choice, world.task.name
        if choice.task != task:  # chosen while this one was loaded
            self.foyer.back_to = with_task(choice, task, self.foyer.drivers)
            self._load_task()
            return
        self.session = self._begin(world, choice)
        self.foyer.follow(self.session)
        self._enter_task(task)

    def _enter_task(self, task: str) -> None:
        self._screen = Screen(task, self._bindings)
        self._keeper = Keeper(task, self._export)
        pygame.display.set_caption(f"World Models: the dream of {task}")

    def _load_task(self) -> None:
        """Leaves the session and loads the chosen task."""
        if self.session is not None:
            self.session.close()
            self.session = None
        task = self.foyer.choice.task
        self.loading = Loading(lambda: self._load(task))
        self._sweeper.sweep()

    def _follow_choice(self) -> None:
        if self.session is not None and self.foyer.choice.task != self.session.world.task.name:
            self._load_task()

    def _title_turn(self, session: Session) -> None:
        hands = self.devices.hands()
        if hands.on:
            self._begin_dream()
            self._dream_turn(session, hands)
            return
        self.foyer.tick(session)
        self.foyer.draw(window.surface(), session.frame(), self.show)
        self._present(session)

    def _begin_dream(self) -> None:
        assert self.session is not None
        self.titled = False
        self.session.speed = 1.0
        self.session.do(Command.BEGIN_SAME)

    def _open_title(self) -> None:
        session = self.session
        assert session is not None
        self._keep(lambda: self._keeper.finish(session))
        self.devices.release_all()
        self._mouse.release()
        session.paused, session.speed = False, 1.0
        if session.forked:
            session.do(Command.FORK)  # which ends it: the title's dream goes on
        session.dream_alone()
        self.foyer.follow(session)
        self.titled = True

    # The dream -----------------------------------------------------------------------------

    def _dream_turn(self, session: Session, hands: Hands | None = None) -> None:
        self._keep(lambda: self._keeper.follow(session))
        self.show.recording = self._keeper.recording
        began = time.perf_counter()
        moved = self._tick(session, hands)
        if session.strayed and not self._strayed:  # by a key's step, perhaps
            self.say(STRAYED)
        self._strayed = session.strayed
        frame = session.frame()
        self._refresh_numbers(session)
        self._layout = self._screen.draw(window.surface(), session, frame, self.show)
        if moved:
            self.stopwatch.add(time.perf_counter() - began)
            for camera in self._cameras:
                camera.add(session, frame)
        self._stop_at_limits(session)
        self._present(session)

    def _present(self, session: Session) -> None:
        pygame.display.flip()
        self._last_frame = time.perf_counter()
        if self.first_frame is None:
            self.first_frame = self._last_frame
        self._turns += 1
        self._sweeper.turn()
        self.pacer.wait(1 / session.pictures_per_second)

    def _tick(self, session: Session, hands: Hands | None) -> bool:
        session.rewinding = self.devices.holds(Command.REWIND)
        hands = hands or self.devices.hands()
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
        self.show.frames_per_second = self.pacer.rate or self.show.frames_per_second
        enough = len(self.pacer.ticks) == self.pacer.ticks.maxlen
        behind = self.pacer.rate < 0.9 * session.pictures_per_second
        self.show.slow = self.pacer.real_time and enough and behind

    # Events --------------------------------------------------------------------------------

    def _handle(self, event: pygame.event.Event) -> None:
        if event.type in mouse.EVENTS:
            self._handle_mouse(event)
        elif event.type == pygame.DROPFILE:
            self._begin_from_file(event.file)
        elif event.type == pygame.QUIT:
            self.running = False
        for command in self.devices.handle(event):
            self.do(command)

    def _handle_mouse(self, event: pygame.event.Event) -> None:
        if self.show.help and event.type == pygame.MOUSEBUTTONDOWN:
            self.show.help = False  # what lies below it cannot be meant
        elif self.titled or self.session is None:
            if self.foyer.click(event, self.session) and self.session is not None:
                self._begin_dream()
            self._follow_choice()
        elif self._layout is not None:
            self._mouse.handle(event, self.session, self._layout, self.show)

    def _begin_from_file(self, path: str) -> None:
        try:
            source = picture_source(path)
        except UserError as error:
            self.say(str(error))
            return
        self.foyer.choice = replace(self.foyer.choice, source=source)
        if self.session is not None:
            self.session.begin_from(source)

    def _do_in_session(self, command: Command, session: Session) -> None:
        hands = self.devices.hands() if command is Command.STEP_FORWARD else HANDS_OFF
        try:
            session.do(command, hands)
        except (UserError, RunFailed) as error:  # such as: no vizdoom to be real in
            self.say(str(error))
            return
        if command is Command.SAVE_STATE:
            self.say("this moment is kept")
        elif command is Command.LOAD_STATE:
            self.say("back at the kept moment" if session.kept else "no moment was kept")
        elif command is Command.FUTURES and session.futures is not None:
            self.show.hud = True
        elif command is Command.NEXT_DRIVER and len(session.drivers) == 1:
            self.say("there is no controller here")

    # The window's own commands ---------------------------------------------------------------

    def _quit(self) -> None:
        """Closes the help if that is what lies on top, else the window."""
        self.running, self.show.help = self.show.help, False

    def _toggle_help(self) -> None:
        self.show.help = not self.show.help

    def _toggle_hud(self) -> None:
        self.show.hud = not self.show.hud

    def _toggle_smooth(self) -> None:
        self.show.smooth = not self.show.smooth

    def _toggle_latent(self) -> None:
        self.show.latent = not self.show.latent
        self.show.hud |= self.show.latent
        self._mouse.release()

    def _toggle_mixture(self) -> None:
        self.show.mixture = not self.show.mixture
        self.show.hud |= self.show.mixture

    def _toggle_full_screen(self) -> None:
        self.devices.release_all()
        self._full_screen.toggle()

    def _screenshot(self) -> None:
        self._keep(lambda: self._keeper.screenshot(window.surface()))

    def _toggle_recording(self) -> None:
        session = self.session
        if session is not None:
            if self.titled:
                self._begin_dream()
            self._keep(lambda: self._keeper.toggle(session))

    def _keep(self, keep: Callable[[], str]) -> None:
        """Says what was kept, or why it could not be: the dream goes on."""
        try:
            self.say(keep())
        except RunFailed as error:
            self.say(f"not kept: {error}")

    _ACTIONS: ClassVar[dict[Command, Callable[[Any], None]]] = {
        Command.QUIT: _quit,
        Command.HELP: _toggle_help,
        Command.HUD: _toggle_hud,
        Command.SMOOTH: _toggle_smooth,
        Command.FULL_SCREEN: _toggle_full_screen,
        Command.SCREENSHOT: _screenshot,
        Command.RECORD: _toggle_recording,
        Command.LATENT_PANEL: _toggle_latent,
        Command.MIXTURE_PANEL: _toggle_mixture,
    }
