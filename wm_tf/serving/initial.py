"""initial_latents.npz: the real moments at which dreams start.

V's (mean, log_variance) of the first frames of real episodes, sampled from when used. Optionally
later moments, which need the state of M that led to them: then `h` and `c` are there, zero for the
rows that are an episode's first frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wm_tf import storage
from wm_tf.config import Task
from wm_tf.errors import DamagedFile

FILE_NAME = "initial_latents.npz"


@dataclass(frozen=True)
class InitialLatents:
    """Moments to start a dream from: N of them."""

    mean: np.ndarray  # float32 [N, Z]
    log_variance: np.ndarray  # float32 [N, Z]
    h: np.ndarray | None = None  # float32 [N, H]
    c: np.ndarray | None = None  # float32 [N, H]

    def __len__(self) -> int:
        return len(self.mean)

    def check(self, task: Task) -> None:
        """Raises ValueError unless the arrays have the shapes of `task` and are finite."""
        rows = len(self.mean)
        if rows == 0:
            raise ValueError("initial latents: expected at least one, got none")
        if (self.h is None) != (self.c is None):
            raise ValueError("initial latents: expected both h and c or neither")
        sizes = {
            "mean": task.latent_size,
            "log_variance": task.latent_size,
            "h": task.hidden_size,
            "c": task.hidden_size,
        }
        for name, size in sizes.items():
            array = getattr(self, name)
            if array is None:
                continue
            if array.shape != (rows, size):
                raise ValueError(f"{name}: expected [{rows}, {size}], got {list(array.shape)}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name}: expected finite values")
        if len(self.beginnings(task)) == 0:
            raise ValueError("initial latents: expected an episode's first frame, got none")

    @property
    def later(self) -> np.ndarray:
        """Which are moments on the way, with a state of M; bool [N]."""
        if self.h is None:
            return np.zeros(len(self), bool)
        return np.abs(self.h).max(axis=1) > 0.0

    def beginnings(self, task: Task) -> InitialLatents:
        """Where dreams that are played begin: where survival counts, only at first frames.

        Elsewhere at all moments. (An evolution's dreams begin at all moments of either task.)
        """
        if not task.mortal:
            return self
        return InitialLatents(self.mean[~self.later], self.log_variance[~self.later])

    def on_the_way(self) -> InitialLatents:
        """The later moments alone; there may be none."""
        h, c = (None if part is None else part[self.later] for part in (self.h, self.c))
        return InitialLatents(self.mean[self.later], self.log_variance[self.later], h, c)

    def sample(
        self, generator: np.random.Generator, rows: int, hidden_size: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Start states drawn with replacement: latent [B, Z], h and c [B, H]."""
        chosen = generator.integers(len(self), size=rows)
        normal = generator.standard_normal((rows, self.mean.shape[1]), np.float32)
        latent = self.mean[chosen] + np.exp(0.5 * self.log_variance[chosen]) * normal
        zero = np.zeros((rows, hidden_size), np.float32)
        h = zero if self.h is None else self.h[chosen]
        c = zero if self.c is None else self.c[chosen]
        return latent, h, c

    def write(self, folder: Path) -> None:
        """Writes the file into a task's folder."""
        arrays = {"mean": self.mean, "log_variance": self.log_variance, "h": self.h, "c": self.c}
        storage.write_npz(
            folder / FILE_NAME,
            {name: array.astype(np.float32) for name, array in arrays.items() if array is not None},
        )

    @classmethod
    def read(cls, folder: Path, task: Task) -> InitialLatents:
        """Reads the file of a task's folder.

        Raises:
          DamagedFile: it is missing, altered or not of this task.
        """
        arrays, _ = storage.read_npz(folder / FILE_NAME)
        try:
            latents = cls(**arrays)
            latents.check(task)
        except (TypeError, ValueError) as error:
            raise DamagedFile(f"{folder / FILE_NAME}: {error}") from None
        return latents
