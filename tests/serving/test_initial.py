"""initial_latents.npz: round trip and refusal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wm_tf.config import get_task
from wm_tf.errors import DamagedFile
from wm_tf.serving.initial import InitialLatents

TASK = get_task("car_racing")
LATENTS = np.arange(64, dtype=np.float32).reshape(2, 32)
STATES = np.linspace(-1, 1, 512, dtype=np.float32).reshape(2, 256)


@pytest.mark.parametrize("states", [{}, {"h": STATES, "c": -STATES}])
def test_round_trip(tmp_path: Path, states: dict[str, np.ndarray]) -> None:
    InitialLatents(LATENTS, -LATENTS, **states).write(tmp_path)
    read = InitialLatents.read(tmp_path, TASK)
    np.testing.assert_array_equal(read.mean, LATENTS)
    np.testing.assert_array_equal(read.log_variance, -LATENTS)
    assert (read.h is None) == (not states)
    for name, array in states.items():
        np.testing.assert_array_equal(getattr(read, name), array)


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (InitialLatents(LATENTS[:0], LATENTS[:0]), "expected at least one"),
        (InitialLatents(LATENTS, LATENTS[:1]), r"log_variance: expected \[2, 32\], got \[1, 32\]"),
        (InitialLatents(LATENTS, LATENTS, h=STATES), "both h and c or neither"),
        (InitialLatents(LATENTS * np.nan, LATENTS), "mean: expected finite"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, latents: InitialLatents, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        latents.check(TASK)
    latents.write(tmp_path)
    with pytest.raises(DamagedFile, match=message):
        InitialLatents.read(tmp_path, TASK)
