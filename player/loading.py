"""Loads the models in the background, so that the window stays alive meanwhile."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

from player.world import World


class Loading:
    """A world that is on its way."""

    def __init__(self, load: Callable[[], World]) -> None:
        self._load = load
        self._world: World | None = None
        self._error: BaseException | None = None
        # A daemon: who quits while TensorFlow is being imported does not wait for it.
        self._thread = threading.Thread(target=self._run, name="loading", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def result(self) -> World:
        """The world, waiting for it; raises what loading raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._world is not None
        return self._world

    def _run(self) -> None:
        gc.disable()  # it would look at the million objects of TensorFlow's import many times
        try:
            self._world = self._load()
        except BaseException as error:  # it is raised again in the thread that asks
            self._error = error
        finally:
            gc.enable()
