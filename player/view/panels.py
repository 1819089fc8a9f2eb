"""Inside the model: the latent vector, the mixture that M expected, and live plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pygame

from player.history import Moment
from player.view import palette
from player.view.palette import Colour, Type
from player.view.picture import draw_frame, draw_label

LATENT_RANGE = 3.0
"""A latent's bar reaches from minus to plus this; V's prior has standard deviation 1."""

PLOT_MOMENTS = 200
_OTHERS = (76, 84, 98)  # components that were not chosen
_COLUMNS = 16


def sections(panel: pygame.Rect, unit: float, parts: Sequence[str]) -> dict[str, pygame.Rect]:
    """Divides the panel among its open parts, by name; "plots" is always at the bottom."""
    room = panel.inflate(-2 * round(12 * unit), -2 * round(12 * unit))
    height = round(room.height * 0.26)
    rest = room.height - height
    places = {"plots": pygame.Rect(room.left, room.bottom - height, room.width, height)}
    for index, name in enumerate(parts):
        top, bottom = (round(rest * i / len(parts)) for i in (index, index + 1))
        places[name] = pygame.Rect(room.left, room.top + top, room.width, bottom - top)
    return places


def thumbnails(section: pygame.Rect, unit: float) -> list[pygame.Rect]:
    """Four squares below the section's heading, in one row or in two, as large as fits."""
    gap = max(2, round(4 * unit))
    heading = round(44 * unit)
    across = {
        count: min(section.width // count, (section.height - heading) // (4 // count)) - gap
        for count in (4, 2)
    }
    count = max(across, key=lambda c: across[c])
    side = max(4, across[count])
    return [
        pygame.Rect(
            section.left + (index % count) * (side + gap),
            section.top + heading + (index // count) * (side + gap),
            side,
            side,
        )
        for index in range(4)
    ]


def cells(section: pygame.Rect, unit: float, count: int) -> list[pygame.Rect]:
    """One rectangle per latent dimension, in rows of 16, below the section's heading."""
    heading = round(44 * unit)
    rows = -(-count // _COLUMNS)
    height = (section.height - heading) / rows
    width = section.width / _COLUMNS
    return [
        pygame.Rect(
            round(section.left + (index % _COLUMNS) * width),
            round(section.top + heading + (index // _COLUMNS) * height),
            max(1, round(width) - 2),
            max(1, round(height - 6 * unit)),
        )
        for index in range(count)
    ]


def value_at(cell: pygame.Rect, y: float) -> float:
    """The latent value at a height in its cell, within the range."""
    value = (cell.centery - y) / (cell.height / 2) * LATENT_RANGE
    return float(np.clip(value, -LATENT_RANGE, LATENT_RANGE))


def _height(cell: pygame.Rect, value: float) -> float:
    share = min(max(value / LATENT_RANGE, -1.0), 1.0)
    return cell.centery - share * cell.height / 2


class Panels:
    """Draws the sections."""

    def __init__(self, text: Type) -> None:
        self._text = text

    def latent(
        self,
        surface: pygame.Surface,
        section: pygame.Rect,
        unit: float,
        latent: np.ndarray,
        pins: Mapping[int, float],
    ) -> None:
        """A bar per dimension of the latent [Z]; those held by hand are orange and squared off."""
        hint = "drag holds, right click frees"
        self._heading(surface, section, unit, "latent vector z", hint)
        for index, cell in enumerate(cells(section, unit, len(latent))):
            pygame.draw.rect(surface, palette.PANEL, cell)
            y = _height(cell, float(latent[index]))
            held = index in pins
            bar = pygame.Rect(cell.left, round(min(y, cell.centery)), cell.width, 0)
            bar.height = max(2, round(abs(y - cell.centery)))
            pygame.draw.rect(surface, palette.HUMAN if held else palette.CONTROLLER, bar)
            if held:
                pygame.draw.rect(surface, palette.HUMAN, cell, max(1, round(unit)))

    def mixture(
        self,
        surface: pygame.Surface,
        section: pygame.Rect,
        unit: float,
        expected: Mapping[str, np.ndarray] | None,
        latent: np.ndarray,
    ) -> None:
        """Per dimension the components that M expected, and where the dream went.

        A component is as wide as its weight and reaches from mean - std to mean + std; the one
        that was chosen is blue, and the dot on it is what was drawn.

        Args:
          expected: weights, mean and std, each [Z, K], for the step to `latent`; None before
            the first step.
          latent: what was drawn from it, [Z].
        """
        hint = "width: weight, blue: chosen"
        self._heading(surface, section, unit, "what M expected", hint)
        if expected is None:
            return
        places = cells(section, unit, len(latent))
        for cell in places:
            surface.fill(palette.PANEL, cell)
        bars = mixture_bars(places, expected)  # [Z, K, 4]
        chosen = responsible(expected, latent)
        for bar in bars.reshape(-1, 4).tolist():
            surface.fill(_OTHERS, bar)
        dot = max(2, round(2.5 * unit))
        drawn = bars[np.arange(len(latent)), chosen].tolist()
        for cell, bar, value in zip(places, drawn, latent.tolist(), strict=True):
            surface.fill(palette.CONTROLLER, bar)
            x, y = bar[0] + bar[2] // 2, round(_height(cell, value))
            surface.fill(palette.TEXT, (x - dot, y - dot, 2 * dot, 2 * dot))

    def futures(
        self,
        surface: pygame.Surface,
        section: pygame.Rect,
        unit: float,
        pictures: Sequence[np.ndarray | None],
    ) -> None:
        """Four possible next seconds, uint8 [64, 64, 3] each, None before the first step."""
        hint = "a click goes on in one"
        self._heading(surface, section, unit, "four possible next seconds", hint)
        places = thumbnails(section, unit)
        for index, (place, picture) in enumerate(zip(places, pictures, strict=True)):
            if picture is None:
                surface.fill(palette.PANEL, place)
            else:
                draw_frame(surface, place, picture, smooth=False)
            draw_label(surface, self._text, place, f"{index + 1}", unit * 0.8)

    def plots(
        self, surface: pygame.Surface, section: pygame.Rect, unit: float, moments: Sequence[Moment]
    ) -> None:
        """P(end), reward and return over the last moments."""
        series = (
            ("P(end)", [m.done_probability for m in moments], (0.0, 1.0), palette.WARNING),
            ("reward", [m.reward for m in moments], None, palette.GOOD),
            ("return", [m.total for m in moments], None, palette.TEXT),
        )
        height = section.height / len(series)
        for index, (name, values, limits, colour) in enumerate(series):
            row = pygame.Rect(
                section.left, round(section.top + index * height), section.width, round(height - 4)
            )
            self._plot(surface, row, unit, name, values, limits, colour)

    def drift(
        self,
        surface: pygame.Surface,
        rect: pygame.Rect,
        unit: float,
        values: Sequence[float],
        hint: str,
    ) -> None:
        """How far the dream's latent is from the real one, over the last moments."""
        pygame.draw.rect(surface, palette.PANEL, rect)
        margin = round(10 * unit)
        at = (rect.left + margin, rect.top + margin)
        name = "dream to real"
        room = rect.width - 2 * margin - 44 * unit
        self._text.draw(surface, name, self._text.fitting(name, 14 * unit, room), at)
        now = f"{values[-1]:.2f}" if values else ""
        right = (rect.right - margin, rect.top + margin)
        self._text.draw(surface, now, 20 * unit, right, palette.WARNING, "topright")
        below = (rect.left + margin, rect.top + margin + 22 * unit)
        size = self._text.fitting(hint, 13 * unit, rect.width - 2 * margin)
        self._text.draw(surface, hint, size, below, palette.FAINT)
        area = rect.inflate(-2 * margin, -2 * margin)
        area.height -= round(44 * unit)
        area.bottom = rect.bottom - margin
        if len(values) > 1 and area.height > 8:
            x = np.linspace(area.right - area.width * len(values) / PLOT_MOMENTS, area.right,
                            len(values))  # fmt: skip
            y = area.bottom - np.asarray(values) / max(1.5, *values) * area.height
            points = list(zip(x.tolist(), y.tolist(), strict=True))
            pygame.draw.lines(surface, palette.WARNING, False, points, max(1, round(2 * unit)))

    def _plot(
        self,
        surface: pygame.Surface,
        row: pygame.Rect,
        unit: float,
        name: str,
        values: Sequence[float],
        limits: tuple[float, float] | None,
        colour: Colour,
    ) -> None:
        label = round(64 * unit)
        at = (row.left, row.centery - 2 * unit)
        self._text.draw(surface, name, 14 * unit, at, palette.FAINT, "bottomleft")
        if values:
            at = (row.left, row.centery + 2 * unit)
            self._text.draw(surface, _short(values[-1]), 14 * unit, at, colour)
        area = pygame.Rect(row.left + label, row.top, row.width - label, row.height)
        pygame.draw.rect(surface, palette.PANEL, area)
        low, high = limits or (min(values), max(values))
        if high - low < 1e-6:
            low, high = low - 1.0, high + 1.0
        x = np.linspace(area.right - area.width * len(values) / PLOT_MOMENTS, area.right - 2,
                        len(values))  # fmt: skip
        y = area.bottom - 2 - (np.asarray(values) - low) / (high - low) * (area.height - 4)
        if len(values) > 1:
            points = list(zip(x.tolist(), y.tolist(), strict=True))
            pygame.draw.lines(surface, colour, False, points, max(1, round(1.5 * unit)))

    def _heading(
        self, surface: pygame.Surface, section: pygame.Rect, unit: float, name: str, hint: str
    ) -> None:
        self._text.draw(surface, name, 16 * unit, section.topleft)
        size = self._text.fitting(hint, max(11.0, 14 * unit), section.width)
        below = (section.left, section.top + 22 * unit)
        self._text.draw(surface, hint, size, below, palette.FAINT)


def responsible(expected: Mapping[str, np.ndarray], latent: np.ndarray) -> np.ndarray:
    """The component [Z] that most probably gave each value of the latent [Z]."""
    z_score = (latent[:, None] - expected["mean"]) / expected["std"]
    with np.errstate(divide="ignore"):  # a weight may be 0
        score = np.log(expected["weights"]) - np.log(expected["std"]) - 0.5 * z_score**2
    return score.argmax(axis=1)


def mixture_bars(places: Sequence[pygame.Rect], expected: Mapping[str, np.ndarray]) -> np.ndarray:
    """Rectangles of all components, [Z, K, 4] int: left, top, width, height in pixels.

    One expression for all of them: there are up to 320, twenty-five times a second.
    """
    weights, mean, std = expected["weights"], expected["mean"], expected["std"]
    left, width, centre, height = np.array(
        [(cell.left, cell.width, cell.centery, cell.height) for cell in places]
    ).T[..., None]
    scale = height / 2 / LATENT_RANGE
    top = centre - np.clip(mean + std, -LATENT_RANGE, LATENT_RANGE) * scale
    bottom = centre - np.clip(mean - std, -LATENT_RANGE, LATENT_RANGE) * scale
    right = np.round(left + np.cumsum(weights, axis=1) * width)
    across = np.diff(right, axis=1, prepend=left)
    x = right - across
    across = np.where(across > 2, across - 1, across)  # a gap where there is room for it
    bars = np.stack([x, top, across, np.maximum(bottom - top, 2)], axis=-1)
    return bars.round().astype(int)


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}"
