"""From one moment to the next: dreamt, or following what is real. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from player.driving import Drive
from player.history import Moment

if TYPE_CHECKING:
    from player.real import RealMoment
    from player.world import World


def dreamt(
    world: World,
    before: Moment,
    drive: Drive,
    wish: np.ndarray | None,
    temperature: float,
    real: RealMoment | None = None,
    shown: bool = True,
) -> Moment:
    """The dream's next moment.

    Args:
      drive: the action, within its ranges, and who drove.
      wish: what the controller wanted.
      real: the real environment's moment after the same action, where it runs too.
      shown: whether its picture will be asked for.
    """
    outcome = world.step(before.state, drive.action, temperature, shown)
    return Moment(
        state=outcome.state,
        action=drive.action,
        by_human=drive.by_human,
        wish=wish,
        temperature=temperature,
        reward=outcome.reward,
        total=before.total + outcome.reward,
        done_probability=outcome.done_probability,
        danger=before.danger + outcome.done_probability,
        ended=outcome.ended,
        real=real,
    )


def followed(
    before: Moment, real: RealMoment, drive: Drive, wish: np.ndarray | None, temperature: float
) -> Moment:
    """A moment of the real view: its state is what V and M make of the real frames."""
    reward = 0.0 if real is before.real else real.reward  # an episode that had ended gives no more
    return Moment(
        state=real.state,
        action=drive.action,
        by_human=drive.by_human,
        wish=wish,
        temperature=temperature,
        reward=reward,
        total=before.total + reward,
        done_probability=real.done_probability,
        danger=before.danger + real.done_probability,
        ended=real.ended,
        real=real,
        from_real=True,
    )


def pinned(moment: Moment, pins: Mapping[int, float]) -> Moment:
    """`moment` with more of its latent's dimensions set by hand.

    One that was let go again has its value still, up to the next step.
    """
    if not pins:
        return moment
    pins = {**dict(moment.pins), **pins}
    latent = moment.state.latent.copy()
    for dimension, value in pins.items():
        latent[0, dimension] = value
    state = replace(moment.state, latent=latent)
    return replace(moment, state=state, pins=tuple(sorted(pins.items())))
