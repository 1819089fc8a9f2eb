"""Four possible next seconds: the same moment dreamt on with four other chances."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from player import stepping
from player.driving import Drive, Driver
from player.history import Moment

if TYPE_CHECKING:
    from player.world import World

COUNT = 4
SECONDS = 1.0


@dataclass
class Future:
    """One of them, as far as it is dreamt."""

    seed: int
    moments: list[Moment] = field(default_factory=list)
    frames: list[np.ndarray] = field(default_factory=list)  # uint8 [64, 64, 3] of each moment


class Futures:
    """Dreamt a step at a time, so that the window stays alive."""

    def __init__(self, world: World, now: Moment, driver: Driver, temperature: float) -> None:
        """From `now` on; a person's hands stay as they are, the controller drives on."""
        self._world = world
        self._now = now
        self._driver = driver
        self._temperature = temperature
        self._length = round(SECONDS * world.steps_per_second)
        stream = np.random.SeedSequence([now.state.seed, now.state.step])
        seeds = stream.generate_state(COUNT) % (2**31 - 1) + 1
        self.futures = [Future(int(seed)) for seed in seeds]

    @property
    def complete(self) -> bool:
        return all(self._finished(future) for future in self.futures)

    def grow(self) -> None:
        """One step more in each."""
        for future in self.futures:
            if not self._finished(future):
                moment = self._next(future)
                future.moments.append(moment)
                future.frames.append(self._world.frame(moment.state))

    def _finished(self, future: Future) -> bool:
        moments = future.moments
        return len(moments) >= self._length or bool(moments and moments[-1].ended)

    def _next(self, future: Future) -> Moment:
        before = future.moments[-1] if future.moments else self._now
        before = replace(before, state=replace(before.state, seed=future.seed))
        wish = self._world.wish(before.state)
        if wish is None or self._driver is Driver.HUMAN:
            drive = Drive(self._now.action, np.ones(self._now.action.shape, bool))
        else:
            drive = Drive(wish, np.zeros(wish.shape, bool))
        return stepping.dreamt(self._world, before, drive, wish, self._temperature)
