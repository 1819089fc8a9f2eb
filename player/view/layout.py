"""Where things stand in a window of any size."""

from __future__ import annotations

from dataclasses import dataclass

import pygame

FRAME = 64  # pixels of a dream's frame


@dataclass(frozen=True)
class Layout:
    """Rectangles of the window, and the unit that sizes grow with."""

    picture: pygame.Rect  # the dream, a multiple of 64 pixels where it can be
    border: int  # width of the frame around it
    status: pygame.Rect  # words and numbers
    controls: pygame.Rect  # wheel and pedals
    panel: pygame.Rect | None  # inside the model
    unit: float  # 1 in a window 720 pixels high


def arrange(size: tuple[int, int], hud: bool = True, panel: bool = False) -> Layout:
    """The layout of a window.

    Args:
      size: of the window, pixels.
      hud: whether there are instruments.
      panel: whether the inside of the model is shown.
    """
    width, height = size
    if not hud:
        return _bare(width, height)
    if width >= 1.15 * height:
        return _wide(width, height, panel)
    return _tall(width, height, panel)


def _bare(width: int, height: int) -> Layout:
    picture, border = _picture(pygame.Rect(0, 0, width, height))
    empty = pygame.Rect(0, 0, 0, 0)
    return Layout(picture, border, empty, empty, None, height / 720)


def _wide(width: int, height: int, panel: bool) -> Layout:
    column = round(min(max(width - height, 0.30 * height), 0.42 * height))
    inside = round(min(max(width - height - column, 0.42 * height), 0.8 * height)) if panel else 0
    side = min(height, width - column - inside)
    left = (width - column - inside - side) // 2
    picture, border = _picture(pygame.Rect(left + inside, 0, side, height))
    right = pygame.Rect(left + inside + side, 0, column, height)
    unit = column / 240
    split = round(height * 0.55)
    status = pygame.Rect(right.left, 0, column, split)
    controls = pygame.Rect(right.left, split, column, height - split)
    rect = pygame.Rect(left, 0, inside, height) if panel else None
    return Layout(picture, border, _inset(status, unit), _inset(controls, unit), rect, unit)


def _tall(width: int, height: int, panel: bool) -> Layout:
    side = min(width, round(height * (0.45 if panel else 0.66)))
    picture, border = _picture(pygame.Rect(0, 0, width, side))
    strip = round((height - side) * (0.5 if panel else 1.0))
    half = width // 2
    unit = min(half / 240, strip / 330)
    status = pygame.Rect(0, side, half, strip)
    controls = pygame.Rect(half, side, width - half, strip)
    rect = pygame.Rect(0, side + strip, width, height - side - strip) if panel else None
    return Layout(picture, border, _inset(status, unit), _inset(controls, unit), rect, unit)


def _inset(rect: pygame.Rect, unit: float) -> pygame.Rect:
    margin = round(12 * unit)
    return rect.inflate(-2 * margin, -2 * margin)


def _picture(room: pygame.Rect) -> tuple[pygame.Rect, int]:
    """A square for the dream in a room, with the border around it."""
    side = min(room.size)
    border = max(3, side // 120)
    whole = (side - 2 * border) // FRAME * FRAME
    # Crisp where a multiple of 64 fills the room well, else as large as fits.
    edge = whole if whole >= 0.8 * side else max(8, side - 2 * border)
    picture = pygame.Rect(0, 0, edge, edge)
    picture.center = room.center
    return picture, border
