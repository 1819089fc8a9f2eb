"""Instruments: what was applied, in the colour of who did it, and the controller's wish as a ghost.

car_racing has a steering wheel and two pedals; take_cover a track from left to right and a
heartbeat that quickens with the probability of the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pygame

from player.history import Moment
from player.view import palette
from player.view.palette import Colour, Type

FULL_LOCK = 110.0  # degrees that the wheel turns at steer = 1
_TURNED_WHEELS = 150  # kept, of 160 kB each in a window of 960x720
_BEAT = ((0.0, 0.0), (0.3, 0.0), (0.36, 0.18), (0.42, 0.0), (0.46, -0.15), (0.5, 1.0),
         (0.55, -0.4), (0.6, 0.0), (0.75, 0.22), (0.85, 0.0), (1.0, 0.0))  # fmt: skip
_FLAT = 20  # moments of the line that are flat when the player is dead


class Instruments:
    """Draws the controls of a task into a rectangle."""

    def __init__(self, task: str, text: Type) -> None:
        self._task = task
        self._text = text
        self._wheels: dict[tuple[int, Colour], pygame.Surface] = {}
        self._turned: dict[tuple[int, Colour, int], pygame.Surface] = {}

    def draw(
        self, surface: pygame.Surface, rect: pygame.Rect, moments: Sequence[Moment], unit: float
    ) -> None:
        """Draws the controls of the last of `moments`, which are the most recent ones."""
        if rect.height < 40 or rect.width < 40:
            return
        if self._task == "car_racing":
            self._car(surface, rect, moments[-1], unit)
        else:
            self._dodger(surface, rect, moments, unit)

    # car_racing ----------------------------------------------------------------------------

    def _car(self, surface: pygame.Surface, rect: pygame.Rect, now: Moment, unit: float) -> None:
        pedals = round(rect.height * 0.36)
        room = pygame.Rect(rect.left, rect.top, rect.width, rect.height - pedals)
        self._wheel(surface, room, now, unit)
        bars = pygame.Rect(rect.left, room.bottom, rect.width, pedals)
        for index, (name, place) in enumerate((("brake", 2), ("gas", 1))):
            bar = pygame.Rect(0, 0, round(rect.width * 0.34), round(pedals - 34 * unit))
            bar.midtop = (round(rect.left + rect.width * (0.25 + 0.5 * index)), bars.top + 4)
            self._pedal(surface, bar, name, now, place, unit)

    def _wheel(self, surface: pygame.Surface, room: pygame.Rect, now: Moment, unit: float) -> None:
        radius = round(min(room.width, room.height) / 2 - 16 * unit)
        if radius < 12:
            return
        colour = palette.who(bool(now.by_human[0]))
        image = self._turned_wheel(radius, colour, round(float(now.action[0]) * FULL_LOCK))
        surface.blit(image, image.get_rect(center=room.center))
        if now.wish is not None:
            angle = math.radians(float(now.wish[0]) * FULL_LOCK - 90)
            reach = radius + 9 * unit
            x = room.centerx + reach * math.cos(angle)
            y = room.centery + reach * math.sin(angle)
            diamond(surface, (x, y), 7 * unit, palette.CONTROLLER)

    def _turned_wheel(self, radius: int, colour: Colour, degrees: int) -> pygame.Surface:
        """The wheel turned by whole degrees to the right, each turned once."""
        key = (radius, colour, degrees)
        if key not in self._turned:
            if len(self._turned) >= _TURNED_WHEELS:
                self._turned.clear()
            still = self._wheel_image(radius, colour)
            self._turned[key] = pygame.transform.rotozoom(still, -degrees, 1.0)
        return self._turned[key]

    def _wheel_image(self, radius: int, colour: Colour) -> pygame.Surface:
        """The wheel at rest, drawn large once and made small smoothly."""
        key = (radius, colour)
        if key not in self._wheels:
            size, centre = 8 * radius, 4 * radius
            image = pygame.Surface((size, size), pygame.SRCALPHA)
            middle = (centre, centre)
            for angle in (-4, 184, 90):
                tip = _polar(middle, 3.6 * radius, angle)
                pygame.draw.line(image, palette.FAINT, middle, tip, round(0.62 * radius))
            pygame.draw.circle(image, palette.FAINT, middle, round(0.95 * radius))
            pygame.draw.circle(image, palette.TRACK, middle, round(0.55 * radius))
            pygame.draw.circle(image, colour, middle, round(3.96 * radius), round(0.62 * radius))
            mark = [_polar(middle, r * radius, a) for r in (3.4, 3.96) for a in (-96, -84)]
            pygame.draw.polygon(image, palette.TEXT, [mark[0], mark[1], mark[3], mark[2]])
            if len(self._wheels) > 8:  # a window being resized
                self._wheels.clear()
            self._wheels[key] = pygame.transform.smoothscale(image, (2 * radius, 2 * radius))
        return self._wheels[key]

    def _pedal(
        self,
        surface: pygame.Surface,
        bar: pygame.Rect,
        name: str,
        now: Moment,
        place: int,
        unit: float,
    ) -> None:
        radius = max(2, round(5 * unit))
        pygame.draw.rect(surface, palette.TRACK, bar, border_radius=radius)
        value = min(max(float(now.action[place]), 0.0), 1.0)
        filled = pygame.Rect(bar.left, 0, bar.width, round(bar.height * value))
        filled.bottom = bar.bottom
        colour = palette.who(bool(now.by_human[place]))
        if filled.height > 1:
            pygame.draw.rect(surface, colour, filled, border_radius=radius)
        if now.wish is not None:
            wish = min(max(float(now.wish[place]), 0.0), 1.0)
            y = bar.bottom - wish * bar.height
            pygame.draw.line(
                surface, palette.CONTROLLER, (bar.left, y), (bar.right, y), max(1, round(2 * unit))
            )
            diamond(surface, (bar.right + 5 * unit, y), 6 * unit, palette.CONTROLLER)
        place_of_name = (bar.centerx, bar.bottom + 6 * unit)
        self._text.draw(surface, name, 15 * unit, place_of_name, palette.FAINT, "midtop")

    # take_cover ----------------------------------------------------------------------------

    def _dodger(
        self, surface: pygame.Surface, rect: pygame.Rect, moments: Sequence[Moment], unit: float
    ) -> None:
        now = moments[-1]
        track = pygame.Rect(rect.left, rect.top, rect.width, round(rect.height * 0.4))
        self._sides(surface, track, now, unit)
        heart = pygame.Rect(rect.left, track.bottom, rect.width, rect.height - track.height)
        self._heartbeat(surface, heart, moments, unit)

    def _sides(self, surface: pygame.Surface, rect: pygame.Rect, now: Moment, unit: float) -> None:
        value = float(now.action[0])
        third = rect.width / 3
        chosen = 0 if value < -1 / 3 else 2 if value > 1 / 3 else 1
        colour = palette.who(bool(now.by_human[0]))
        size = min(third, rect.height * 0.7) * 0.38
        for index in range(3):
            centre = (rect.left + third * (index + 0.5), rect.top + rect.height * 0.42)
            fill = colour if index == chosen else palette.TRACK
            if index == 1:
                pygame.draw.rect(surface, fill, _square(centre, size * 0.55), border_radius=3)
            else:
                arrow(surface, centre, size, -1 if index == 0 else 1, fill)
        if now.wish is not None:
            x = rect.left + (float(np.clip(now.wish[0], -1, 1)) + 1) / 2 * rect.width
            y = rect.top + rect.height * 0.92
            pygame.draw.line(surface, palette.TRACK, (rect.left, y), (rect.right, y), 2)
            diamond(surface, (x, y), 7 * unit, palette.CONTROLLER)

    def _heartbeat(
        self, surface: pygame.Surface, rect: pygame.Rect, moments: Sequence[Moment], unit: float
    ) -> None:
        points = heartbeat([m.state.step for m in moments], [m.danger for m in moments])
        if _life(moments[-1]) == "dead":
            points[-_FLAT:] = 0.0
        x = np.linspace(rect.right - rect.width * len(points) / 70, rect.right, len(points))
        y = rect.centery - points * rect.height * 0.32
        danger = moments[-1].done_probability > 0.3 or _life(moments[-1]) == "dead"
        colour = palette.WARNING if danger else palette.GOOD
        if len(points) > 1:
            line = [p for p in zip(x, y, strict=True) if p[0] >= rect.left]
            pygame.draw.lines(surface, colour, False, line, max(2, round(2.5 * unit)))
        seconds = f"{_life(moments[-1])}, {moments[-1].state.step} tics"
        at = (rect.centerx, rect.bottom - 16 * unit)
        self._text.draw(surface, seconds, 15 * unit, at, palette.FAINT, "midtop")


def heartbeat(step: Sequence[int], danger: Sequence[float]) -> np.ndarray:
    """A pulse curve of some moments, in about [-0.4, 1], which is faster in danger.

    Args:
      step: the number of each.
      danger: the sum of the probabilities of an end up to each.
    """
    phase = (0.03 * np.asarray(step) + 0.09 * np.asarray(danger)) % 1.0  # of beats
    x, y = zip(*_BEAT, strict=True)
    return np.interp(phase, x, y)


def _life(now: Moment) -> str:
    """How the player is, in a word; who has lived until the time was up is not dead."""
    if not now.ended:
        return "alive"
    real = now.real if now.from_real else None
    return "dead" if real is None or real.terminated else "survived"


def badge(
    surface: pygame.Surface, centre: tuple[float, float], size: float, by_human: np.ndarray
) -> None:
    """Who drives, by colour and shape: a circle, a diamond, or the one inside the other."""
    if not by_human.all():
        diamond(surface, centre, size, palette.CONTROLLER)
    if by_human.any():
        radius = size * (0.85 if by_human.all() else 0.5)
        if not by_human.all():
            pygame.draw.aacircle(surface, palette.BACKGROUND, centre, radius * 1.3)
        pygame.draw.aacircle(surface, palette.HUMAN, centre, radius)


def diamond(
    surface: pygame.Surface, centre: tuple[float, float], size: float, colour: Colour
) -> None:
    """The controller's sign."""
    x, y = centre
    corners = [(x, y - size), (x + size, y), (x, y + size), (x - size, y)]
    pygame.draw.polygon(surface, colour, corners)
    pygame.draw.aalines(surface, colour, True, corners)


def arrow(
    surface: pygame.Surface, centre: tuple[float, float], size: float, way: int, colour: Colour
) -> None:
    """A triangle that points left (way -1) or right (1)."""
    x, y = centre
    corners = [(x + way * size, y), (x - way * size, y - size), (x - way * size, y + size)]
    pygame.draw.polygon(surface, colour, corners)
    pygame.draw.aalines(surface, colour, True, corners)


def _polar(centre: tuple[float, float], radius: float, degrees: float) -> tuple[float, float]:
    angle = math.radians(degrees)
    return centre[0] + radius * math.cos(angle), centre[1] + radius * math.sin(angle)


def _square(centre: tuple[float, float], half: float) -> pygame.Rect:
    rect = pygame.Rect(0, 0, round(2 * half), round(2 * half))
    rect.center = (round(centre[0]), round(centre[1]))
    return rect
