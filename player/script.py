"""Steps that are already decided: a file of actions or a recording that is driven again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from player.recording import Planned, latent_digest


class Script:
    """A list of planned steps and how far it is driven."""

    def __init__(self, steps: Sequence[Planned] = (), last_latent: str | None = None) -> None:
        """`last_latent`: the digest of the latent in which they ended; None where none is known."""
        self._steps = list(steps)
        self._last_latent = last_latent
        self._done = 0

    @property
    def next(self) -> Planned | None:
        """The step that comes next; None when all are driven."""
        return self._steps[self._done] if self._done < len(self._steps) else None

    def advance(self) -> None:
        """The next step was driven."""
        self._done += 1

    def strays(self, latent: np.ndarray) -> bool:
        """Whether the steps have led to another latent [1, Z] than they did at first."""
        return self._last_latent not in (None, latent_digest(latent))

    def drop(self) -> None:
        """Someone else drives from now on."""
        self._done = len(self._steps)
