"""Four possible next seconds: the same moment dreamt on with four other chances."""

from __future__ import annotations

from collections.abc import Mapping
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
FRAME_EVERY = 2
"""Steps per decoded picture: 25 pictures a second are enough for a thumbnail."""


@dataclass
class Future:
    """One of them, as far as it is dreamt."""

    seed: int
    moments: list[Moment] = field(default_factory=list)
    frames: list[np.ndarray] = field(default_factory=list)  # uint8 [64, 64, 3], every second moment


class Futures:
    """Dreamt a few steps at a time, so that the window stays alive."""

    def __init__(
        self,
        world: World,
        now: Moment,
        driver: Driver,
        temperature: float,
        pins: Mapping[int, float],
    ) -> None:
        """From `now` on; a person's hands stay as they are, the controller drives on.

        Args:
          pins: the latents that are held, by dimension.
        """
        self._world = world
        self._driver = driver
        self._temperature = temperature
        self._pins = dict(pins)
        self._length = round(SECONDS * world.steps_per_second)
        self._turn = 0
        stream = np.random.SeedSequence([now.state.seed, now.state.step])
        seeds = stream.generate_state(COUNT) % (2**31 - 1) + 1
        self.futures = [Future(int(seed)) for seed in seeds]
        self.origin = now  # the moment from which they begin
        self.age = 0  # calls of `grow` since they are complete

    @property
    def complete(self) -> bool:
        return all(self._finished(future) for future in self.futures)

    @property
    def shown_for_long(self) -> bool:
        """Whether they have played to their end once more since they are complete."""
        return self.age > self._length

    def grow(self, steps: int) -> None:
        """Dreams so many steps more, each in the next future."""
        if self.complete:
            self.age += 1
            return
        for _ in range(steps):
            future = self.futures[self._turn % COUNT]
            self._turn += 1
            if not self._finished(future):
                self._grow(future)

    def picture(self, index: int) -> np.ndarray | None:
        """What a future shows now: its last picture while it grows, then it plays in a loop."""
        frames = self.futures[index].frames
        if not frames:
            return None
        return frames[self.age // FRAME_EVERY % len(frames) if self.complete else -1]

    def _finished(self, future: Future) -> bool:
        moments = future.moments
        return len(moments) >= self._length or bool(moments and moments[-1].ended)

    def _grow(self, future: Future) -> None:
        shown = (len(future.moments) + 1) % FRAME_EVERY == 0
        future.moments.append(self._next(future, shown))
        if shown or self._finished(future):
            future.frames.append(self._world.frame(future.moments[-1].state))

    def _next(self, future: Future, shown: bool) -> Moment:
        before = future.moments[-1] if future.moments else self.origin
        if before.state.seed != future.seed:
            before = replace(before, state=replace(before.state, seed=future.seed))
        wish = self._world.wish(before.state)
        if wish is None or self._driver is Driver.HUMAN:
            drive = Drive(self.origin.action, np.ones(self.origin.action.shape, bool))
        else:
            drive = Drive(wish, np.zeros(wish.shape, bool))
        moment = stepping.dreamt(self._world, before, drive, wish, self._temperature, shown=shown)
        return stepping.pinned(moment, self._pins)
