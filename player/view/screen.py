"""The window's content: the dream in its frame, status, instruments, overlays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pygame

from player.commands import BINDINGS, Command, keys_label
from player.driving import Driver
from player.session import Session
from player.view import palette
from player.view.instruments import Instruments, badge
from player.view.layout import Layout, arrange
from player.view.palette import Type
from player.view.panels import PLOT_MOMENTS, Panels, sections

_HEARTBEAT_MOMENTS = 70

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

    def __init__(self, task: str) -> None:
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
        self._picture(surface, layout, frame, show.smooth)
        self._border(surface, layout, session)
        self._timeline(surface, layout, session)
        if show.hud:
            self._status(surface, layout, session, show)
            moments = session.history.recent(_HEARTBEAT_MOMENTS)
            self._instruments.draw(surface, layout.controls, moments, layout.unit)
        if layout.panel is not None and show.panel:
            self._inside(surface, layout, session, show)
        self._notices(surface, layout, session, show)
        if show.help:
            self._help(surface)
        return layout

    # The dream -----------------------------------------------------------------------------

    def _picture(
        self, surface: pygame.Surface, layout: Layout, frame: np.ndarray, smooth: bool
    ) -> None:
        small = pygame.image.frombuffer(frame.tobytes(), (frame.shape[1], frame.shape[0]), "RGB")
        place = surface.subsurface(layout.picture)  # scaled straight into it, without a copy
        scale = pygame.transform.smoothscale if smooth else pygame.transform.scale
        scale(small.convert(surface), layout.picture.size, place)

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
            self.text.draw(surface, label, 16 * unit, (rect.left, y), palette.FAINT)
            self.text.draw(surface, value, 16 * unit, (rect.right, y), colour, "topright")
            y += 24 * unit
        if y + 40 * unit < rect.bottom:
            self.text.draw(
                surface, "H: all keys", 14 * unit, rect.bottomleft, palette.FAINT, "bottomleft"
            )

    def _inside(
        self, surface: pygame.Surface, layout: Layout, session: Session, show: Show
    ) -> None:
        parts = sections(layout.panel, layout.unit, show.latent, show.mixture)
        latent = session.now.state.latent[0]
        if parts.latent is not None:
            self._panels.latent(surface, parts.latent, layout.unit, latent, session.pins)
        if parts.mixture is not None:
            expected = session.expectation()
            self._panels.mixture(surface, parts.mixture, layout.unit, expected, latent)
        moments = session.history.recent(PLOT_MOMENTS)
        self._panels.plots(surface, parts.plots, layout.unit, moments)

    def _notices(
        self, surface: pygame.Surface, layout: Layout, session: Session, show: Show
    ) -> None:
        picture, unit = layout.picture, max(layout.unit, 0.6)
        if session.ended and not session.rewinding:
            keys = _key(Command.BEGIN_AGAIN), _key(Command.REWIND)
            lines = ("The dream has ended.", f"{keys[0]} begins again, {keys[1]} goes back")
            self._plate(surface, picture.center, lines, unit)
        elif session.rewinding:
            self._plate(surface, picture.center, ("rewinding",), unit)
        elif session.paused:
            self._plate(surface, picture.center, (f"paused: {_key(Command.PAUSE)} goes on",), unit)
        if show.message:
            at = (picture.centerx, picture.bottom - 34 * unit)
            self._plate(surface, at, (show.message,), unit * 0.8)
        if show.recording:
            centre = (picture.left + 18 * unit, picture.top + 18 * unit)
            pygame.draw.aacircle(surface, palette.WARNING, centre, 8 * unit)
            beside = (centre[0] + 14 * unit, centre[1])
            self.text.draw(surface, "recording", 15 * unit, beside, palette.TEXT, "midleft")

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
        groups: dict[str, list[tuple[str, str]]] = {}
        for binding in BINDINGS:
            groups.setdefault(binding.group, []).append((keys_label(binding), binding.text))
        rows = len(BINDINGS) + 1.6 * len(groups)
        unit = min(height / (rows + 3), width / 34)
        left, y = width / 2 - 16 * unit, (height - (rows + 1) * unit) / 2
        for name, lines in groups.items():
            self.text.draw(surface, name, 0.85 * unit, (left, y), palette.CONTROLLER)
            y += 1.1 * unit
            for keys, what in lines:
                self.text.draw(surface, keys, 0.72 * unit, (left, y), palette.HUMAN)
                self.text.draw(surface, what, 0.72 * unit, (left + 10 * unit, y))
                y += unit
            y += 0.5 * unit

    def _dim(self, surface: pygame.Surface) -> None:
        if self._veil is None or self._veil.get_size() != surface.get_size():
            self._veil = pygame.Surface(surface.get_size())
            self._veil.fill(palette.BACKGROUND)
            self._veil.set_alpha(235)
        surface.blit(self._veil, (0, 0))


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


def _key(command: Command) -> str:
    return next(keys_label(b).split("  ")[0] for b in BINDINGS if b.command is command)
