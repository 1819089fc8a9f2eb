"""What each command of the key table does to a session; those of the window are not here.

Nor is the one that drives, a step forward: it depends on a person's hands, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from player import scales
from player.commands import Command
from player.world import NOISE, REAL

if TYPE_CHECKING:
    from player.session import Session


def _pause(session: Session) -> None:
    session.paused = not session.paused and not session.ended  # which stands still by itself


def _slower(session: Session) -> None:
    session.speed = scales.below(scales.SPEEDS, session.speed)


def _faster(session: Session) -> None:
    session.speed = scales.above(scales.SPEEDS, session.speed)


def _cooler(session: Session) -> None:
    session.set_temperature(scales.below(scales.TEMPERATURES, session.temperature))


def _warmer(session: Session) -> None:
    session.set_temperature(scales.above(scales.TEMPERATURES, session.temperature))


ACTIONS: Mapping[Command, Callable[[Session], None]] = {
    Command.NEXT_DRIVER: lambda session: session.next_driver(),
    Command.PAUSE: _pause,
    Command.STEP_BACK: lambda session: session.step_back(),
    Command.SLOWER: _slower,
    Command.FASTER: _faster,
    Command.SAVE_STATE: lambda session: session.keep(),
    Command.LOAD_STATE: lambda session: session.go_back_to_kept(),
    Command.BEGIN_AGAIN: lambda session: session.begin_again(),
    Command.BEGIN_SAME: lambda session: session.begin_same(),
    Command.BEGIN_ELSEWHERE: lambda session: session.begin_from(REAL),
    Command.BEGIN_IN_NOISE: lambda session: session.begin_from(NOISE),
    Command.NEXT_VIEW: lambda session: session.next_view(),
    Command.SYNCHRONISE: lambda session: session.synchronise(),
    Command.FUTURES: lambda session: session.toggle_futures(),
    Command.FORK: lambda session: session.fork(),
    Command.FUTURE_1: lambda session: session.choose(0),
    Command.FUTURE_2: lambda session: session.choose(1),
    Command.FUTURE_3: lambda session: session.choose(2),
    Command.FUTURE_4: lambda session: session.choose(3),
    Command.COOLER: _cooler,
    Command.WARMER: _warmer,
    Command.FREE_LATENT: lambda session: session.free_latent(),
}
