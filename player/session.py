"""A session: a dream, its history, who drives, and everything that a key can do to them.

No pygame, no clock and no files: the loop calls `tick` once per step of the environment's clock
and hands on commands; the view draws what it finds here. The same calls give the same session in
a window, without a display and in a test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from player import driving, stepping
from player.beside import Beside, View
from player.commands import Command
from player.driving import HANDS_OFF, Driver, Hands
from player.futures import COUNT, Futures
from player.history import History, Moment
from player.real import RealWorld
from player.recording import Planned, Recording
from player.script import Script
from player.verbs import ACTIONS
from player.world import REAL, Source, World
from wm_tf import seeding
from wm_tf.dream.world import checked_temperature
from wm_tf.errors import UserError
from wm_tf.seeding import Purpose

if TYPE_CHECKING:
    from wm_tf.dream.world import DreamState

__all__ = ["Session", "View"]

_PREVIEW_STEPS = 2  # of the futures, per step of a dream that goes on beside them
_REMEMBERED = 1000  # moments among which the beginning of futures is looked for


@dataclass(frozen=True)
class _Origin:
    """Where a dream began, to begin there again."""

    source: Source
    place: int = 0  # which start
    chance: int = 0  # which dream from there
    recorded: DreamState | None = None  # of a recording: its start, with its own chance as 0


class Session:
    """The state of the player, apart from window and devices."""

    def __init__(
        self,
        world: World,
        *,
        seed: int = 1,
        temperature: float | None = None,
        driver: Driver | None = None,
        script: Sequence[Planned] = (),
        source: Source = REAL,
        make_real: Callable[[], RealWorld] | None = None,
    ) -> None:
        """Begins the first dream.

        Args:
          temperature: of the dream; the manifest's if None.
          driver: who drives; assist if None and there is a controller, else the human.
          script: steps that are driven before anyone else drives.
          source: what the first dream begins from.
          make_real: makes the real environment when it is first wanted.

        Raises:
          UserError: a temperature that is not positive, or a controller that is not there.
        """
        self.world = world
        self.seed = seed
        self.temperature = checked_temperature(
            world.temperature if temperature is None else temperature
        )
        self.drivers = tuple(Driver) if world.has_controller else (Driver.HUMAN,)
        self.driver = driver or self.drivers[0]
        if self.driver not in self.drivers:
            raise UserError(f"no controller for {world.task.name}: only --driver human is possible")
        self.paused = False
        self.speed = 1.0
        self.rewinding = False
        self.pins: dict[int, float] = {}
        self._beside = Beside(make_real)
        self._origin = _Origin(source)
        self._kept: tuple[tuple[Moment, ...], _Origin] | None = None
        self._script = Script(script)
        self._scripted: Moment | None = None  # the last one that the script has led to
        self._new_future = False
        self._new_seed: int | None = None
        self.strayed = False  # a recording that was driven again ended in another dream
        self.futures: Futures | None = None  # possible next seconds, while they are shown
        self.forked = False  # the dream waits until one of them is chosen
        self.history = History(self._beginning())

    # What the view reads -------------------------------------------------------------------

    @property
    def now(self) -> Moment:
        return self.history.now

    @property
    def step(self) -> int:
        """Steps of this dream so far."""
        return self.now.state.step

    @property
    def pictures_per_second(self) -> float:
        """Expected at the present speed; above 1 x each picture shows more steps."""
        return self.world.steps_per_second * min(self.speed, 1.0)

    @property
    def ended(self) -> bool:
        return self.now.ended

    @property
    def scripted(self) -> bool:
        """Whether actions of the script are left."""
        return self._script.next is not None

    @property
    def replaying(self) -> bool:
        """Whether the script leads on from the present, or has led to it."""
        return self.scripted or self.now is self._scripted

    @property
    def source(self) -> Source:
        """What the dream began from."""
        return self._origin.source

    @property
    def view(self) -> View:
        """What runs: the dream, the real environment or both."""
        return self._beside.view

    @property
    def kept(self) -> bool:
        """Whether a moment was kept to come back to."""
        return self._kept is not None

    def take_trouble(self) -> str:
        """What went wrong in the real environment since this was last asked; mostly nothing."""
        trouble, self._beside.trouble = self._beside.trouble, ""
        return trouble

    def frame(self) -> np.ndarray:
        """The present picture, uint8 [64, 64, 3]: dreamt, except in the real view."""
        if self.view is View.REAL and self.now.real is not None:
            return self.now.real.frame
        return self.world.frame(self.now.state)

    def expectation(self) -> dict[str, np.ndarray] | None:
        """M's mixture for the step to the present: weights, mean, std [Z, K]; None at the start."""
        recent = self.history.recent(2)
        if len(recent) < 2:
            return None
        return self.world.expectation(recent[0].state, recent[1].action)

    # What the loop calls -------------------------------------------------------------------

    def tick(self, hands: Hands = HANDS_OFF) -> bool:
        """Lets one step of the environment's clock go by; whether the dream moved on."""
        if self.rewinding:
            return self._go_back()
        if self.futures is not None:
            self._dream_futures()
        if self.forked or self.paused or self.ended:
            return False
        return self.advance(hands)

    def _dream_futures(self) -> None:
        assert self.futures is not None
        alone = self.forked or self.paused
        self.futures.grow(COUNT if alone else _PREVIEW_STEPS)
        if not alone and self.futures.shown_for_long and not self.ended:
            self.futures = self._futures_of(self.now)

    def advance(self, hands: Hands = HANDS_OFF) -> bool:
        """One step, paused or not; whether there was one to make.

        Where the dream was rewound it repeats what was, until someone does something new.
        """
        if self.ended:
            return False
        if driving.held_axes(self.world.task, hands).any():
            self._diverge()
        if self.history.has_future and not self._new_future:
            self._new_seed = None
            return self.history.move(1)
        self._new_future = False
        scripted = self.scripted
        self.history.append(self._next_moment(hands))
        if scripted:
            self._scripted = self.now
        if scripted and (self.ended or not self.scripted):
            self.strayed = self._script.strays(self.now.state.latent)
        return True

    def replay(self, recording: Recording) -> None:
        """Begins where a recording began and drives as it did, until someone takes over."""
        self._beside.view = View.DREAM
        self._begin(replace(self._origin, chance=0, recorded=recording.start))
        self._script = Script(recording.steps, recording.last_latent)

    def do(self, command: Command, hands: Hands = HANDS_OFF) -> None:
        """Carries out a command of the session; those of the window are not its business.

        Args:
          hands: where the person's hands are, for a command that drives.
        """
        if command is Command.STEP_FORWARD:
            self.step_forward(hands)
        elif command in ACTIONS:
            ACTIONS[command](self)

    def choose(self, index: int) -> None:
        """Goes on in one of the futures that are shown; it plays until someone acts.

        Who acts at once goes on with its chance.
        """
        chosen = None if self.futures is None else self.futures.futures[index]
        if chosen is None or not chosen.moments or not self._back_to_fork():
            return
        moments = chosen.moments
        self.pins = dict(moments[0].pins)
        self._drop_futures()
        self._diverge()
        self._new_future = False
        for moment in moments:
            self.history.append(moment)
        self.history.move(-len(moments))
        self._new_seed = chosen.seed
        self.paused = False

    def begin_from(self, source: Source) -> None:
        """Begins a dream from something else; only a real frame is where a real one begins."""
        if source.kind != "real":
            self._beside.view = View.DREAM
        self._begin(_Origin(source, self._origin.place + 1))

    def dream_alone(self) -> None:
        """Dreams on from here, whatever was looked at."""
        if self.view is not View.DREAM:
            self._beside.view = View.DREAM
            self._diverge()

    def close(self) -> None:
        """Ends the real environment, if there is one."""
        self._beside.close()

    def pin(self, dimension: int, value: float) -> None:
        """Sets a latent dimension now and holds it there from now on (not in the real view)."""
        if self.view is View.REAL:
            return
        self.pins[dimension] = float(np.float32(value))
        self._repaint()

    def unpin(self, dimension: int) -> None:
        """Lets a latent dimension go its own way again."""
        if self.pins.pop(dimension, None) is not None:
            self._diverge()
            self._renew_futures()

    # How it works --------------------------------------------------------------------------

    def _beginning(self) -> Moment:
        size, origin = self.world.task.action_size, self._origin
        stream = seeding.sequence(self.seed, Purpose.PLAYER, origin.place, origin.chance)
        seed = seeding.environment_seed(stream)
        real = self._beside.begin(seed)
        if real is not None:
            state = real.state
        elif origin.recorded is None:
            state = self.world.start(self.seed, origin.place, origin.chance, origin.source)
        elif origin.chance == 0:
            state = origin.recorded
        else:
            state = replace(origin.recorded, seed=seed, step=0)
        return Moment(
            state=state,
            real=real,
            from_real=real is not None,
            action=np.zeros(size, np.float32),
            by_human=np.zeros(size, bool),
            temperature=self.temperature,
        )

    def _next_moment(self, hands: Hands) -> Moment:
        self._follow_script()
        before = self.now
        wish = self.world.wish(before.state)
        drive = self._drive(hands, wish)
        drive = replace(drive, action=driving.clip(self.world.task, drive.action))
        real = self._beside.step(before, drive.action, self._past)
        if self.view is View.REAL and real is not None:
            return stepping.followed(before, real, drive, wish, self.temperature)
        if self._new_seed is not None:
            before = replace(before, state=replace(before.state, seed=self._new_seed))
            self._new_seed = None
        moment = stepping.dreamt(self.world, before, drive, wish, self.temperature, real)
        return stepping.pinned(moment, self.pins)

    def _past(self) -> list[np.ndarray]:
        """The actions that led to the present, since the real environment began."""
        return [m.action for m in self.history.moments if m.real is not None and m.real.step > 0]

    def _drive(self, hands: Hands, wish: np.ndarray | None) -> driving.Drive:
        task = self.world.task
        planned = self._script.next
        if planned is not None:
            self._script.advance()
            return driving.Drive(planned.action, planned.by_human)
        seconds = 1.0 / self.world.steps_per_second
        return driving.combine(task, self.driver, hands, wish, self.now.action, seconds)

    def _follow_script(self) -> None:
        """Takes over what the next planned step fixes beside the action."""
        planned = self._script.next
        if planned is not None and planned.temperature is not None:
            self.temperature = planned.temperature
            self._new_seed = planned.seed
            self.pins = dict(planned.pins)

    def _diverge(self) -> None:
        """Something new: neither the future that was rewound nor the script's goes on."""
        self._new_future = True
        self._script.drop()
        self._scripted = None
        if self.forked:
            self._drop_futures()

    def _repaint(self) -> None:
        self._diverge()
        self.history.replace_now(stepping.pinned(self.now, self.pins))
        self._renew_futures()

    # Views ---------------------------------------------------------------------------------

    def next_view(self) -> None:
        """Dream, real, both; raises UserError where there is nothing real."""
        self._beside.next_view()
        self._diverge()
        self._drop_futures()
        if self.now.real is None and self._beside.running:
            first = self._beginning()
            if first.real is not None:  # else nothing real could begin, and the dream goes on
                self._enter(first)

    def synchronise(self) -> None:
        """Dreams on from what is real; raises UserError where they do not run side by side."""
        if self.view is not View.BOTH or self.now.real is None:
            raise UserError("nothing real runs beside this dream")
        self._diverge()
        real = self.now.real.state
        now = replace(self.now, state=real, ended=False, pins=(), from_real=True)
        self.history.replace_now(now)

    def toggle_futures(self) -> None:
        """Shows what may come while the dream goes on, or no longer."""
        if self.futures is None:
            self.futures = self._futures_of(self.now)
        else:
            self._drop_futures()

    def fork(self) -> None:
        """Stops the dream where the futures begin, until one is chosen; or goes on as before."""
        if self.forked:
            self._drop_futures()
            return
        if self.futures is None or not self._back_to_fork():
            self.futures = self._futures_of(self.now)
        self.forked = self.futures is not None

    def _futures_of(self, moment: Moment) -> Futures | None:
        if self.view is not View.DREAM:
            raise UserError("futures are dreamt in the dream view alone")
        if moment.ended:
            return None
        return Futures(self.world, moment, self.driver, self.temperature, self.pins)

    def _renew_futures(self) -> None:
        """Those that are shown are of how things were a moment ago."""
        if self.futures is not None:
            self.futures = self._futures_of(self.now)

    def _back_to_fork(self) -> bool:
        """Goes to the moment where the futures begin; False if the dream has left it for good."""
        return self.futures is not None and self.history.go_to(self.futures.origin, _REMEMBERED)

    def _drop_futures(self) -> None:
        self.futures, self.forked = None, False

    # Beginnings, time and the rest -----------------------------------------------------------

    def _begin(self, origin: _Origin) -> None:
        self._origin = origin
        self._enter(self._beginning())

    def _enter(self, first: Moment) -> None:
        self._script.drop()
        self._new_future = False
        self._new_seed = None
        self._drop_futures()
        self.pins = {}
        self.history = History(first)

    def begin_again(self) -> None:
        """From the same start with another chance."""
        self._begin(replace(self._origin, chance=self._origin.chance + 1))

    def begin_same(self) -> None:
        """The same dream once more."""
        self._begin(self._origin)

    def step_forward(self, hands: Hands = HANDS_OFF) -> None:
        """One step, and stands still."""
        self._drop_futures()
        self.paused = True
        self.advance(hands)

    def step_back(self) -> None:
        """One step back, and stands still."""
        self.paused = True
        self._go_back()

    def _go_back(self) -> bool:
        self._drop_futures()
        self._new_seed = None
        return self.history.move(-1)

    def next_driver(self) -> None:
        """The next of those who can drive, without a reset."""
        after = self.drivers.index(self.driver) + 1
        self.driver = self.drivers[after % len(self.drivers)]
        self._diverge()
        self._renew_futures()

    def set_temperature(self, temperature: float) -> None:
        """Another temperature from now on."""
        if temperature != self.temperature:
            self._diverge()
            self.temperature = temperature
            self._renew_futures()

    def keep(self) -> None:
        """Keeps this moment, with its past, to come back to."""
        self._kept = self.history.moments, self._origin

    def go_back_to_kept(self) -> None:
        """Back to the moment that was kept, if one was."""
        if self._kept is not None:
            moments, self._origin = self._kept
            self.history = History.of(moments)
            if self.now.real is None:  # kept in the dream: nothing real goes on from there
                self._beside.view = View.DREAM
            self._drop_futures()
            self._diverge()
            self._new_seed = None
            self.pins = dict(self.now.pins)

    def free_latent(self) -> None:
        """Lets go of every latent dimension that is held."""
        if self.pins:
            self._diverge()
            self.pins = {}
            self._renew_futures()
