"""The window's content: the dream in its frame, status, instruments, overlays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pygame

from player.commands import BINDINGS, Binding, Command, keys_label
from player.driving import Driver
from player.futures import Futures
from player.real import drift
from player.session import Session, View
from player.view import palette
from player.view.instruments import Instruments, badge
from player.view.layout import Layout, arrange
from player.view.palette import Type
from player.view.panels import PLOT_MOMENTS, Panels, sections

_HEARTBEAT_MOMENTS = 70

_FIRST_COLUMN = ("Drive", "Time", "Begin")  # of the help overlay

_DRIVER_NAMES: Mapping[Driver, str] = {
    Driver.ASSIST: "together",
    Driver.HUMAN: "you drive",
    Driver.CONTROLLER: "controller drives",
}


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

    @property
    def panel(self) -> bool:
        return self.latent or self.mixture


class Screen:
    """Draws a session onto any surface."""

    def __init__(self, task: str, bindings: Sequence[Binding] = BINDINGS) -> None:
        self._bindings = bindings
        self.text = Type()
        self._instruments = Instruments(task, self.text)
        self._panels = Panels(self.text)
        self._veil: pygame.Surface | None = None

    def draw(
        self, surface: pygame.Surface, session: Session, frame: np.ndarray, show: Show
    ) -> Layout:
        """Draws everything; returns where it stands, for the mouse.

        Args:
          frame: the present picture, uint8 [64, 64, 3].
        """
        layout = arrange(surface.get_size(), show.hud, show.panel)
        surface.fill(palette.BACKGROUND)
        if session.futures is not None:
            self._futures(surface, layout, session.futures, show.smooth)
        elif session.view is View.BOTH and session.now.real is not None:
            self._both(surface, layout, session, frame, show.smooth)
        else:
            self._picture(surface, layout.picture, frame, show.smooth)
        if session.view is View.REAL:
            self._label(surface, layout.picture, "real, not dreamt", layout.unit)
        self._border(surface, layout, session)
        self._timeline(surface, layout, session)
        if show.hud:
            self._status(surface, layout, session, show)
            moments = session.history.recent(_HEARTBEAT_MOMENTS)
            self._instruments.draw(surface, layout.controls, moments, layout.unit)
        if layout.panel is not None and show.panel:
            self._inside(surface, layout.panel, layout.unit, session, show)
        self._notices(surface, layout, session, show)
        if show.help:
            self._help(surface)
        return layout

    # The dream -----------------------------------------------------------------------------

    def _picture(
        self, surface: pygame.Surface, rect: pygame.Rect, frame: np.ndarray, smooth: bool
    ) -> None:
        small = pygame.image.frombuffer(frame.tobytes(), (frame.shape[1], frame.shape[0]), "RGB")
        place = surface.subsurface(rect)  # scaled straight into it, without a copy
        scale = pygame.transform.smoothscale if smooth else pygame.transform.scale
        scale(small.convert(surface), rect.size, place)

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
        self._picture(surface, left, real.frame, smooth)
        self._picture(surface, right, frame, smooth)
        unit = layout.unit
        self._label(surface, left, "real, ended" if real.ended else "real", unit)
        self._label(surface, right, "dream", unit)
        if real.expected is not None:
            self._picture(surface, small, session.world.picture(real.expected), smooth)
        self._label(surface, small, "one step ahead", unit)
        moments = session.history.recent(PLOT_MOMENTS)
        values = [drift(m.real, m.state) for m in moments if m.real is not None]
        self._panels.drift(surface, plot, unit, values)

    def _futures(
        self, surface: pygame.Surface, layout: Layout, futures: Futures, smooth: bool
    ) -> None:
        """Four possible next seconds, playing as they are dreamt, again and again."""
        turn = pygame.time.get_ticks() // 25
        for index, place in enumerate(quarters(layout.picture)):
            frames = futures.futures[index].frames
            if frames:
                at = turn % len(frames) if futures.complete else len(frames) - 1
                self._picture(surface, place, frames[at], smooth)
            self._label(surface, place, f"{index + 1}", layout.unit * 1.3)

    def _label(self, surface: pygame.Surface, rect: pygame.Rect, name: str, unit: float) -> None:
        image = self.text.render(name, max(11.0, 15 * unit))
        plate = image.get_rect(topleft=rect.topleft).inflate(round(12 * unit), round(8 * unit))
        plate.topleft = rect.topleft
        pygame.draw.rect(surface, palette.BACKGROUND, plate)
        surface.blit(image, image.get_rect(center=plate.center))

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
        name = _DRIVER_NAMES[session.driver]
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
            self.text.draw(
                surface, "H: all keys", 16 * unit, rect.bottomleft, palette.FAINT, "bottomleft"
            )

    def _inside(
        self, surface: pygame.Surface, panel: pygame.Rect, unit: float, session: Session, show: Show
    ) -> None:
        parts = sections(panel, unit, show.latent, show.mixture)
        latent = session.now.state.latent[0]
        if parts.latent is not None:
            self._panels.latent(surface, parts.latent, unit, latent, session.pins)
        if parts.mixture is not None:
            expected = session.expectation()
            self._panels.mixture(surface, parts.mixture, unit, expected, latent)
        moments = session.history.recent(PLOT_MOMENTS)
        self._panels.plots(surface, parts.plots, unit, moments)

    def _key(self, command: Command) -> str:
        """The first key of a command."""
        binding = next(b for b in self._bindings if b.command is command)
        return keys_label(binding).split("  ")[0]

    def _notices(
        self, surface: pygame.Surface, layout: Layout, session: Session, show: Show
    ) -> None:
        picture, unit = layout.picture, max(layout.unit, 0.6)
        if session.ended and not session.rewinding:
            keys = self._key(Command.BEGIN_AGAIN), self._key(Command.REWIND)
            lines = ("The dream has ended.", f"{keys[0]} begins again, {keys[1]} goes back")
            self._plate(surface, picture.center, lines, unit)
        elif session.rewinding:
            self._plate(surface, picture.center, ("rewinding",), unit)
        elif session.paused:
            line = f"paused: {self._key(Command.PAUSE)} goes on"
            self._plate(surface, picture.center, (line,), unit)
        if show.message:
            at = (picture.centerx, picture.bottom - 34 * unit)
            self._plate(surface, at, (show.message,), unit * 0.8)
        if show.recording:
            centre = (picture.right - 18 * unit, picture.top + 18 * unit)
            pygame.draw.aacircle(surface, palette.WARNING, centre, 8 * unit)
            beside = (centre[0] - 14 * unit, centre[1])
            self.text.draw(surface, "recording", 15 * unit, beside, palette.TEXT, "midright")

    def _plate(
        self, surface: pygame.Surface, centre: tuple[float, float], lines: tuple[str, ...],
        unit: float,
    ) -> None:  # fmt: skip
        images = [
            self.text.render(line, (22 if index == 0 else 16) * unit)
            for index, line in enumerate(lines)
        ]
        gap = round(8 * unit)
        width = max(image.get_width() for image in images) + 4 * gap
        height = sum(image.get_height() for image in images) + gap * (len(images) + 1)
        plate = pygame.Rect(0, 0, width, height)
        plate.center = (round(centre[0]), round(centre[1]))
        pygame.draw.rect(surface, palette.PANEL, plate, border_radius=gap)
        y = plate.top + gap
        for image in images:
            surface.blit(image, image.get_rect(midtop=(plate.centerx, y)))
            y += image.get_height() + gap

    # Help ----------------------------------------------------------------------------------

    def _help(self, surface: pygame.Surface) -> None:
        """Every key on one overlay, from the one table."""
        width, height = surface.get_size()
        self._dim(surface)
        columns = _help_columns(self._bindings)
        rows = max(len(column) for column in columns)
        unit = min(height / (rows + 2), width / (21.5 * len(columns)))
        for index, column in enumerate(columns):
            left = width * (index + 0.5) / len(columns) - 10.4 * unit
            top = (height - rows * unit) / 2
            for row, (keys, what) in enumerate(column):
                y = top + row * unit
                heading = not what
                colour = palette.CONTROLLER if heading else palette.HUMAN
                self.text.draw(surface, keys, (0.85 if heading else 0.72) * unit, (left, y), colour)
                self.text.draw(surface, what, 0.72 * unit, (left + 6.2 * unit, y))

    def _dim(self, surface: pygame.Surface) -> None:
        if self._veil is None or self._veil.get_size() != surface.get_size():
            self._veil = pygame.Surface(surface.get_size())
            self._veil.fill(palette.BACKGROUND)
            self._veil.set_alpha(235)
        surface.blit(self._veil, (0, 0))


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
        lines.append(("slow machine", f"{show.frames_per_second / rate:.0%}", palette.WARNING))
    return lines


def _help_columns(bindings: Sequence[Binding]) -> list[list[tuple[str, str]]]:
    """Two columns of (keys, what they do); headings have nothing beside them."""
    columns: list[list[tuple[str, str]]] = [[], []]
    groups = list(dict.fromkeys(binding.group for binding in bindings))
    for group in groups:
        column = columns[0] if group in _FIRST_COLUMN else columns[1]
        if column:
            column.append(("", ""))
        column.append((group, ""))
        column += [(keys_label(b), b.text) for b in bindings if b.group == group]
    return columns
