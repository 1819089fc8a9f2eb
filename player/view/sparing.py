"""What is dear to compute is computed for every second picture while the dream runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from player.history import Moment
from player.session import Session

T = TypeVar("T")


class Sparing(Generic[T]):
    """A value that belongs to a moment: 25 times a second are enough to look at it.

    Two of them with different `parity` never fall on the same picture. Where time stands still it
    is that of the present moment.
    """

    def __init__(self, parity: int) -> None:
        self._parity = parity
        self._moment: Moment | None = None
        self._value: T | None = None

    def of(self, session: Session, compute: Callable[[], T]) -> T:
        """The value for the present moment, or for the one before it."""
        now = session.now
        still = session.paused or session.forked or session.ended
        running = not still and now.state.step > 1 and self._moment is not None
        picture = now.state.step // max(1, round(session.speed))  # each is so many steps on
        if now is not self._moment and not (running and picture % 2 != self._parity):
            self._moment, self._value = now, compute()
        return self._value  # type: ignore[return-value]  # computed at the first call
