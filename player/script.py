"""Steps that are already decided: a file of actions or a recording that is driven again."""

from __future__ import annotations

from collections.abc import Sequence

from player.recording import Planned


class Script:
    """A list of planned steps and how far it is driven."""

    def __init__(self, steps: Sequence[Planned] = ()) -> None:
        self._steps = list(steps)
        self._done = 0

    @property
    def next(self) -> Planned | None:
        """The step that comes next; None when all are driven."""
        return self._steps[self._done] if self._done < len(self._steps) else None

    def advance(self) -> None:
        """The next step was driven."""
        self._done += 1

    def drop(self) -> None:
        """Someone else drives from now on."""
        self._done = len(self._steps)
