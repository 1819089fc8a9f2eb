"""What runs: the dream, the real environment, or both side by side."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence

import numpy as np

from player.history import Moment
from player.real import RealMoment, RealWorld
from wm_tf.errors import RunFailed, UserError


class View(enum.Enum):
    """What runs."""

    DREAM = "dream"
    REAL = "real"  # the dream follows the real frames, step by step
    BOTH = "both"  # from the same moment, under the same actions


class Beside:
    """The view, and the real environment once it was wanted."""

    def __init__(self, make: Callable[[], RealWorld] | None) -> None:
        self.view = View.DREAM
        self.trouble = ""  # what ended the real environment, for the loop to say
        self._make = make
        self._world: RealWorld | None = None

    @property
    def running(self) -> bool:
        """Whether something real runs."""
        return self.view is not View.DREAM and self._world is not None

    def next_view(self) -> None:
        """Dream, real, both, and again.

        Raises:
          UserError: there is no real environment here; the view stays the dream.
          RunFailed: it cannot be made; likewise.
        """
        views = list(View)
        view = views[(views.index(self.view) + 1) % len(views)]
        if view is not View.DREAM and self._world is None:
            if self._make is None:
                raise UserError("there is no real environment here")
            self._world = self._make()
        self.view = view

    def begin(self, seed: int) -> RealMoment | None:
        """The first moment of the real episode of that seed, if something real runs."""
        if not self.running or self._world is None:
            return None
        try:
            return self._world.begin(seed)
        except (UserError, RunFailed) as error:
            self._lose(error)
            return None

    def step(
        self, before: Moment, action: np.ndarray, past: Callable[[], Sequence[np.ndarray]]
    ) -> RealMoment | None:
        """The real moment after `action`; see `RealWorld.step`."""
        if not self.running or self._world is None or before.real is None:
            return None
        try:
            return self._world.step(before.real, action, past)
        except RunFailed as error:
            self._lose(error)
            return None

    def _lose(self, error: Exception) -> None:
        """The dream goes on alone; wanted again, the environment is reset."""
        self.view = View.DREAM
        self.trouble = str(error)

    def close(self) -> None:
        """Ends the real environment, if there is one."""
        if self._world is not None:
            self._world.close()
