"""The window's content: the dream in its frame, status, instruments, overlays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pygame

from player.commands import BINDINGS, Binding, Command, keys_of
from player.driving import Driver
from player.futures import COUNT, Futures
from player.session import Session, View
from player.view import palette
from player.view.instruments import Instruments, badge
from player.view.layout import Layout, arrange
from player.view.overlays import Help, plate
from player.view.palette import Type
from player.view.panels import PLOT_MOMENTS, Panels, sections, thumbnails
from player.view.picture import draw_frame, draw_label
from player.view.sparing import Sparing

_HEARTBEAT_MOMENTS = 70


@dataclass
class Show:
    """What of the window is on: not part of the session, for it changes no dream."""

    hud: bool = True
    help: bool = False
    smooth: bool = False
    latent: bool = False
    mixture: bool = False
    message: str = ""
    recording: bool = False
    frames_per_second: float = 0.0
    slow: bool = False  # the machine does not keep up
    in_animation: bool = False  # small: the return and the instruments alone

    def parts(self, session: Session) -> list[str]:
        """The parts of the panel that are open, from the top."""
        thumbnails = session.futures is not None and not session.forked
        parts = {"latent": self.latent, "mixture": self.mixture, "futures": thumbnails}
        return [name for name, there in parts.items() if there]


class Screen:
    """Draws a session onto any surface."""

    def __init__(self, task: str, bindings: Sequence[Binding] = BINDINGS) -> None:
        self._bindings = bindings
        self.text = Type()
        self._instruments = Instruments(task, self.text)
        self._panels = Panels(self.text)
        self._help = Help(bindings, self.text)
        self._one_step_ahead: Sparing[np.ndarray | None] = Sparing(0)
        self._mixture: Sparing[tuple[Any, np.ndarray]] = Sparing(1)

    def draw(
        self, surface: pygame.Surface, session: Session, frame: np.ndarray, show: Show
    ) -> Layout:
        """Draws everything; returns where it stands, for the mouse.

        Args:
          frame: the present picture, uint8 [64, 64, 3].
        """
        parts = show.parts(session)
        layout = arrange(surface.get_size(), show.hud, bool(parts))
        surface.fill(palette.BACKGROUND)
        if session.forked and session.futures is not None:
            self._futures(surface, layout, session.futures, show.smooth)
        elif session.view is View.BOTH and session.now.real is not None:
            self._both(surface, layout, session, frame, show.smooth)
        else:
            draw_frame(surface, layout.picture, frame, show.smooth)
        if session.view is View.REAL:
            draw_label(surface, self.text, layout.picture, "real, not dreamt", layout.unit)
        self._border(surface, layout, session)
        self._timeline(surface, layout, session)
        if show.hud:
            self._status(surface, layout, session, show)
            moments = session.history.recent(_HEARTBEAT_MOMENTS)
            self._instruments.draw(surface, layout.controls, moments, layout.unit)
        if layout.panel is not None:
            self._inside(surface, layout.panel, layout.unit, session, parts)
        self._notices(surface, layout, session, show)
        if show.help:
            self._help.draw(surface)
        return layout

    # The dream -----------------------------------------------------------------------------

    def _both(
        self,
        surface: pygame.Surface,
        layout: Layout,
        session: Session,
        frame: np.ndarray,
        smooth: bool,
    ) -> None:
        """Real beside dream; below, what M expected one step ahead, and how far they drifted."""
        real = session.now.real
        assert real is not None
        left, right, small, plot = both_places(layout.picture)
        draw_frame(surface, left, real.frame, smooth)
        draw_frame(surface, right, frame, smooth)
        unit = layout.unit
        draw_label(surface, self.text, left, "real, ended" if real.ended else "real", unit)
        draw_label(surface, self.text, right, "dream", unit)
        expected = self._one_step_ahead.of(session, lambda: _picture_of_expected(session))
        if expected is not None:
            draw_frame(surface, small, expected, smooth)
        draw_label(surface, self.text, small, "one step ahead", unit)
        moments = session.history.recent(PLOT_MOMENTS)
        values = [m.drift for m in moments if m.real is not None]
        hint = f"{self._key(Command.SYNCHRONISE)}: dream on from what is real"
        self._panels.drift(surface, plot, unit, values, hint)

    def _futures(
        self, surface: pygame.Surface, layout: Layout, futures: Futures, smooth: bool
    ) -> None:
        """Four possible next seconds, playing as they are dreamt, again and again."""
        for index, place in enumerate(quarters(layout.picture)):
            picture = futures.picture(index)
            if picture is not None:
                draw_frame(surface, place, picture, smooth)
            draw_label(surface, self.text, place, f"{index + 1}", layout.unit * 1.3)

    def _border(self, surface: pygame.Surface, layout: Layout, session: Session) -> None:
        by_human = _present_owner(session)
        rect = layout.picture.inflate(2 * layout.border, 2 * layout.border)
        wheel, pedals = palette.who(bool(by_human[0])), palette.who(bool(by_human[-1]))
        pygame.draw.rect(surface, wheel, rect, layout.border)
        if wheel != pedals:  # the wheel has the sides, the pedals top and bottom
            for y in (rect.top, rect.bottom - layout.border):
                pygame.draw.rect(surface, pedals, (rect.left, y, rect.width, layout.border))

    def _timeline(self, surface: pygame.Surface, layout: Layout, session: Session) -> None:
        """Where in its past the dream is, once it was rewound."""
        history = session.history
        if not (history.has_future or session.rewinding):
            return
        bar = pygame.Rect(layout.picture.left, 0, layout.picture.width, max(4, layout.border))
        bar.bottom = layout.picture.bottom
        pygame.draw.rect(surface, palette.TRACK, bar)
        bar.width = round(bar.width * history.place / max(1, history.last_place))
        pygame.draw.rect(surface, palette.TEXT, bar)

    # Words and numbers ---------------------------------------------------------------------

    def _status(
        self, surface: pygame.Surface, layout: Layout, session: Session, show: Show
    ) -> None:
        rect, unit = layout.status, layout.unit
        size = 15 * unit
        badge(surface, (rect.left + size, rect.top + size), size * 0.95, _present_owner(session))
        width = rect.width - 2.6 * size
        name = who_drives(session)
        fit = self.text.fitting(name, 21 * unit, width)
        place = (rect.left + 2.6 * size, rect.top + size)
        self.text.draw(surface, name, fit, place, anchor="midleft")
        y = rect.top + 3.2 * size
        self.text.draw(surface, "return", 14 * unit, (rect.left, y), palette.FAINT)
        total = f"{session.now.total:.0f}"
        self.text.draw(surface, total, 44 * unit, (rect.left, y + 16 * unit))
        if show.in_animation:
            return
        y += 74 * unit
        for label, value, colour in _lines(session, show):
            if y + 22 * unit > rect.bottom:
                break
            self.text.draw(surface, label, 17.5 * unit, (rect.left, y), palette.FAINT)
            self.text.draw(surface, value, 17.5 * unit, (rect.right, y), colour, "topright")
            y += 26 * unit
        if y + 40 * unit < rect.bottom:
            hint = f"{self._key(Command.HELP)}: all keys"
            self.text.draw(surface, hint, 16 * unit, rect.bottomleft, palette.FAINT, "bottomleft")

    def _inside(
        self,
        surface: pygame.Surface,
        panel: pygame.Rect,
        unit: float,
        session: Session,
        open_parts: Sequence[str],
    ) -> None:
        parts = sections(panel, unit, open_parts)
        latent = session.now.state.latent[0]
        if "latent" in parts:
            self._panels.latent(surface, parts["latent"], unit, latent, session.pins)
        if "mixture" in parts:
            known = self._mixture.of(session, lambda: (session.expectation(), latent))
            self._panels.mixture(surface, parts["mixture"], unit, *known)
        if "futures" in parts and session.futures is not None:
            pictures = [session.futures.picture(index) for index in range(COUNT)]
            self._panels.futures(surface, parts["futures"], unit, pictures)
        moments = session.history.recent(PLOT_MOMENTS)
        self._panels.plots(surface, parts["plots"], unit, moments)

    def _key(self, command: Command) -> str:
        return keys_of(self._bindings, command)

    def _notices(
        self, surface: pygame.Surface, layout: Layout, session: Session, show: Show
    ) -> None:
        picture, unit = layout.picture, max(layout.unit, 0.6)
        if session.ended and not session.rewinding:
            keys = self._key(Command.BEGIN_AGAIN), self._key(Command.REWIND)
            ended = "real game" if session.now.from_real else "dream"
            lines = [f"The {ended} has ended.", f"{keys[0]} begins again, {keys[1]} goes back"]
            plate(surface, self.text, picture.center, lines, unit, picture.width)
        elif session.rewinding:
            plate(surface, self.text, picture.center, ["rewinding"], unit, picture.width)
        elif session.forked:
            line = f"click one, or {self._key(Command.FORK)} goes on as before"
            above = (picture.centerx, picture.centery - 18 * unit)  # the numbers of the lower two
            plate(surface, self.text, above, [line], unit * 0.75, picture.width)
        elif session.paused:
            line = f"paused: {self._key(Command.PAUSE)} goes on"
            plate(surface, self.text, picture.center, [line], unit, picture.width)
        if show.message:
            at = (picture.centerx, picture.bottom - 34 * unit)
            plate(surface, self.text, at, [show.message], unit * 0.8, picture.width)
        if show.recording:
            centre = (picture.right - 18 * unit, picture.top + 18 * unit)
            pygame.draw.aacircle(surface, palette.WARNING, centre, 8 * unit)
            beside = (centre[0] - 14 * unit, centre[1])
            self.text.draw(surface, "recording", 15 * unit, beside, palette.TEXT, "midright")


def _picture_of_expected(session: Session) -> np.ndarray | None:
    """What M expected of the present real frame, decoded."""
    real = session.now.real
    if real is None or real.expected is None:
        return None
    return session.world.picture(real.expected)


def both_places(picture: pygame.Rect) -> tuple[pygame.Rect, ...]:
    """Where real, dream, expectation and drift stand in the picture."""
    gap = max(2, picture.width // 80)
    half = (picture.width - gap) // 2
    left = pygame.Rect(picture.left, picture.top, half, half)
    right = pygame.Rect(picture.right - half, picture.top, half, half)
    rest = picture.height - half - gap
    side = min(rest, half)
    small = pygame.Rect(picture.left, picture.bottom - rest, side, side)
    plot = pygame.Rect(small.right + gap, small.top, picture.right - small.right - gap, side)
    return left, right, small, plot


def quarters(picture: pygame.Rect) -> list[pygame.Rect]:
    """Where the four futures stand."""
    gap = max(2, picture.width // 80)
    half = (picture.width - gap) // 2
    lefts, tops = (picture.left, picture.right - half), (picture.top, picture.bottom - half)
    return [pygame.Rect(left, top, half, half) for top in tops for left in lefts]


def futures_places(layout: Layout, session: Session, show: Show) -> list[pygame.Rect]:
    """Where the four futures stand: on the picture, or as thumbnails in the panel."""
    if session.forked:
        return quarters(layout.picture)
    if layout.panel is None:
        return []
    return thumbnails(sections(layout.panel, layout.unit, show.parts(session))["futures"],
                      layout.unit)  # fmt: skip


def who_drives(session: Session) -> str:
    """In words, what the badge says by colour and shape."""
    by_human = _present_owner(session)
    if session.driver is Driver.HUMAN:
        if by_human.all() or not session.replaying:
            return "you drive"
        if not by_human.any():
            return "controller drives"
    if session.driver is Driver.CONTROLLER:
        return "you, while held" if by_human.any() else "controller drives"
    if by_human.all():
        return "together: you drive"
    if by_human.any():
        return "together: you steer" if by_human[0] else "together: your pedals"
    return "together: controller"


def _present_owner(session: Session) -> np.ndarray:
    """Who drove last; before the first step, who will."""
    if session.step == 0:
        human = session.driver is Driver.HUMAN
        return np.full(session.now.by_human.shape, human)
    return session.now.by_human


def _lines(session: Session, show: Show) -> list[tuple[str, str, palette.Colour]]:
    rate = session.world.steps_per_second
    now = session.now
    lines = [
        ("step", f"{session.step}", palette.TEXT),
        ("reward", f"{now.reward:+.2f}", palette.TEXT),
        ("temperature", f"{session.temperature:.2f}", palette.TEXT),
        ("frames/s", f"{show.frames_per_second:.0f}", palette.TEXT),
    ]
    if session.speed != 1.0:
        lines.append(("speed", f"{session.speed:g} x", palette.HUMAN))
    if session.history.has_future:
        behind = (session.history.last_place - session.history.place) / rate
        lines.append(("in the past", f"{behind:.1f} s", palette.HUMAN))
    if session.pins:
        lines.append(("latents held", f"{len(session.pins)}", palette.HUMAN))
    if show.slow:
        reached = show.frames_per_second / session.pictures_per_second
        lines.append(("slow machine", f"{reached:.0%}", palette.WARNING))
    return lines
