"""What one chooses on the title screen: the task, who drives and where the dream begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from player.driving import Driver
from player.world import NOISE, REAL, Source

_T = TypeVar("_T")

Drivers = Mapping[str, Sequence[Driver]]
"""The tasks whose models are here, and who can drive in each."""


@dataclass(frozen=True)
class Choice:
    """A task, a driver and a start."""

    task: str
    driver: Driver
    source: Source = REAL


def with_task(choice: Choice, task: str, drivers: Drivers) -> Choice:
    """Another task; its first driver where the present one cannot drive there."""
    possible = drivers[task]
    driver = choice.driver if choice.driver in possible else possible[0]
    return replace(choice, task=task, driver=driver)


def next_task(choice: Choice, drivers: Drivers) -> Choice:
    """The task after the chosen one, of those that are here."""
    return with_task(choice, _after(list(drivers), choice.task), drivers)


def next_driver(choice: Choice, drivers: Drivers) -> Choice:
    """The driver after the chosen one."""
    return replace(choice, driver=_after(list(drivers[choice.task]), choice.driver))


Row = tuple[str, Sequence[tuple[str, Choice]]]
"""A line of the title screen: what is chosen, and each value with the choice that it makes."""

DRIVER_NAMES = {
    Driver.ASSIST: "together",
    Driver.HUMAN: "you",
    Driver.CONTROLLER: "controller",
}


def rows(choice: Choice, drivers: Drivers) -> list[Row]:
    """Everything that can be chosen."""
    sources = [("real frame", REAL), ("noise", NOISE)]
    if choice.source.kind == "picture":
        sources.append(("your picture", choice.source))
    tasks = [(task.replace("_", " "), with_task(choice, task, drivers)) for task in drivers]
    who = [(DRIVER_NAMES[d], replace(choice, driver=d)) for d in drivers[choice.task]]
    starts = [(name, replace(choice, source=source)) for name, source in sources]
    return [("dream of", tasks), ("driver", who), ("start", starts)]


def _after(values: Sequence[_T], value: _T) -> _T:
    return values[(values.index(value) + 1) % len(values)] if value in values else values[0]
