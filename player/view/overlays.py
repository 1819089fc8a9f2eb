"""What lies over the picture: notices, messages and the help with every key."""

from __future__ import annotations

from collections.abc import Sequence

import pygame

from player.commands import Binding, keys_label
from player.view import palette
from player.view.palette import Type

_FIRST_COLUMN = ("Drive", "Time", "Begin")


def plate(
    surface: pygame.Surface,
    text: Type,
    centre: tuple[float, float],
    lines: Sequence[str],
    unit: float,
    room: float,
) -> None:
    """Lines on a plate, the first of them larger, no wider than `room`."""
    sizes = [(22 if index == 0 else 16) * unit for index in range(len(lines))]
    gap = round(8 * unit)
    images = [
        text.render(line, text.fitting(line, size, room - 4 * gap))
        for line, size in zip(lines, sizes, strict=True)
    ]
    width = max(image.get_width() for image in images) + 4 * gap
    height = sum(image.get_height() for image in images) + gap * (len(images) + 1)
    rect = pygame.Rect(0, 0, width, height)
    rect.center = (round(centre[0]), round(centre[1]))
    pygame.draw.rect(surface, palette.PANEL, rect, border_radius=gap)
    y = rect.top + gap
    for image in images:
        surface.blit(image, image.get_rect(midtop=(rect.centerx, y)))
        y += image.get_height() + gap


class Help:
    """Every key on one overlay, from the one table."""

    def __init__(self, bindings: Sequence[Binding], text: Type) -> None:
        self._columns = _columns(bindings)
        self._text = text
        self._veil: pygame.Surface | None = None

    def draw(self, surface: pygame.Surface) -> None:
        """Draws it over everything."""
        width, height = surface.get_size()
        self._dim(surface)
        rows = max(len(column) for column in self._columns)
        unit = min(height / (rows + 2), width / (18.4 * len(self._columns)))
        for index, column in enumerate(self._columns):
            left = width * (index + 0.5) / len(self._columns) - 8.8 * unit
            top = (height - rows * unit) / 2
            for row, (keys, what) in enumerate(column):
                y = top + row * unit
                heading = not what
                colour = palette.CONTROLLER if heading else palette.HUMAN
                size = (0.85 if heading else 0.72) * unit
                self._text.draw(surface, keys, size, (left, y), colour)
                self._text.draw(surface, what, 0.72 * unit, (left + 5.4 * unit, y))

    def _dim(self, surface: pygame.Surface) -> None:
        if self._veil is None or self._veil.get_size() != surface.get_size():
            self._veil = pygame.Surface(surface.get_size())
            self._veil.fill(palette.BACKGROUND)
            self._veil.set_alpha(244)
        surface.blit(self._veil, (0, 0))


def _columns(bindings: Sequence[Binding]) -> list[list[tuple[str, str]]]:
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
