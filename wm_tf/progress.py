"""Progress of long work: a bar on a terminal, plain lines elsewhere.

Both go to stderr, so that what a command prints on stdout stays clean. On a terminal it is a bar
with the rate and the time left; in a log file it is a line at the start, then one every ten
seconds at most, and one at the end.
"""

from __future__ import annotations

import contextlib
import sys
import time
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

LINE_SECONDS = 10.0
"""The least time between two lines of a log file."""
_BAR_SECONDS = 0.1


class Progress:
    """Shows how far some work is.

        with Progress("collect", total=160, unit="episodes") as progress:
            for episode in episodes:
                progress.advance(steps_per_second=rate)

    Args:
      name: what is being done.
      total: how many units there are to do; None if that is not known.
      unit: what is counted.
      done: how many units were finished by an earlier run; they do not count for the rate.
      stream: where to show it; None: stderr.
    """

    def __init__(
        self,
        name: str,
        total: int | None = None,
        unit: str = "steps",
        *,
        done: int = 0,
        stream: TextIO | None = None,
    ) -> None:
        self._name = name
        self._total = total
        self._unit = unit
        self._before = done
        self._done = done
        self._figures: dict[str, float] = {}
        self._last_line = ""
        self._stream = sys.stderr if stream is None else stream
        self._bar = _bar(self._stream) if self._stream.isatty() else None

    def __enter__(self) -> Progress:
        self._start = time.monotonic()
        if self._bar is not None:
            self._task = self._bar.add_task(self._name, total=self._total, state="")
        self._show()
        if self._bar is not None:
            self._bar.start()
        return self

    def advance(self, count: int = 1, /, **figures: float) -> None:
        """Counts `count` units as done; the figures are shown until others replace them."""
        self._done += count
        self._figures.update(figures)
        interval = LINE_SECONDS if self._bar is None else _BAR_SECONDS
        if time.monotonic() - self._last_shown >= interval:
            self._show()

    def expect(self, total: int) -> None:
        """There are so many units to do in all."""
        self._total = total
        if self._bar is not None:
            self._bar.update(self._task, total=total)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What ended the work is what counts, not that nobody reads about it any more.
        with contextlib.nullcontext() if kind is None else contextlib.suppress(OSError):
            self._show("" if kind is None else " (stopped)")
        if self._bar is not None:
            self._bar.stop()

    def _show(self, end: str = "") -> None:
        state = self._state() + end
        self._last_shown = time.monotonic()
        if self._bar is None:
            if state != self._last_line:  # as the end's may be
                print(f"{self._name}: {state}", file=self._stream, flush=True)
            self._last_line = state
        else:
            self._bar.update(self._task, completed=self._done, state=state)

    def _state(self) -> str:
        """For example ``40/160 episodes, 1.3/s, 1:32 left, reward 12.5``."""
        total = "" if self._total is None else f"/{self._total}"
        parts = [f"{self._done}{total} {self._unit}"]
        seconds = time.monotonic() - self._start
        new = self._done - self._before
        if new > 0 and seconds > 0:
            parts.append(_rate(new / seconds))
            if self._total is not None and self._done < self._total:
                parts.append(f"{clock((self._total - self._done) * seconds / new)} left")
            else:
                parts.append(clock(seconds))
        parts += [f"{name.replace('_', ' ')} {value:.4g}" for name, value in self._figures.items()]
        return ", ".join(parts)


def clock(seconds: float) -> str:
    """Seconds as ``1:02:03`` or ``2:03``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _rate(per_second: float) -> str:
    if per_second >= 1:
        return f"{per_second:,.0f}/s" if per_second >= 100 else f"{per_second:.1f}/s"
    return f"{per_second * 60:.1f}/min" if per_second >= 1 / 60 else f"{per_second * 3600:.1f}/h"


def _bar(stream: TextIO) -> Bar:
    return Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[state]}", markup=False),
        console=Console(file=stream),
        refresh_per_second=4,
        # What a command prints meanwhile goes above the bar; a file or pipe gets it as it is.
        redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        redirect_stderr=False,
    )
