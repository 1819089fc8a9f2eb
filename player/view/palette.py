"""Colours (after Okabe and Ito: told apart by colour-blind people too) and text."""

from __future__ import annotations

import pygame

BACKGROUND = (14, 17, 22)
PANEL = (24, 28, 36)
TRACK = (46, 52, 64)
FAINT = (128, 138, 154)
TEXT = (226, 231, 239)
HUMAN = (240, 165, 30)
CONTROLLER = (86, 180, 233)
WARNING = (236, 110, 60)
GOOD = (60, 190, 140)

Colour = tuple[int, int, int]


def who(by_human: bool) -> Colour:
    """The colour of who drives an axis."""
    return HUMAN if by_human else CONTROLLER


class Type:
    """Text in pygame's own font, each string rendered once."""

    _LIMIT = 600  # cached strings; numbers that change all the time would fill the memory

    def __init__(self) -> None:
        self._fonts: dict[int, pygame.font.Font] = {}
        self._cache: dict[tuple[str, int, Colour], pygame.Surface] = {}

    def render(self, text: str, size: float, colour: Colour = TEXT) -> pygame.Surface:
        """The text, `size` pixels high."""
        key = (text, max(8, round(size)), colour)
        if key not in self._cache:
            if len(self._cache) >= self._LIMIT:
                self._cache.clear()
            # Drawn at twice the size and halved: the letters of small text stand evenly.
            large = self._font(2 * key[1]).render(text, True, colour)
            size_of_text = (round(large.get_width() / 2), round(large.get_height() / 2))
            self._cache[key] = pygame.transform.smoothscale(large, size_of_text)
        return self._cache[key]

    def draw(
        self,
        surface: pygame.Surface,
        text: str,
        size: float,
        place: tuple[float, float],
        colour: Colour = TEXT,
        anchor: str = "topleft",
    ) -> pygame.Rect:
        """Draws text with that corner (or "center", "midtop", …) at a place."""
        image = self.render(text, size, colour)
        rect = image.get_rect(**{anchor: (round(place[0]), round(place[1]))})
        surface.blit(image, rect)
        return rect

    def fitting(self, text: str, size: float, width: float) -> float:
        """The largest size, at most `size`, at which the text is no wider than `width`."""
        wide = self.render(text, size).get_width()
        return size if wide <= width else max(8.0, size * width / wide)

    def _font(self, size: int) -> pygame.font.Font:
        if size not in self._fonts:
            self._fonts[size] = pygame.font.Font(None, round(size * 1.35))
        return self._fonts[size]
