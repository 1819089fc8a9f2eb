"""What is shown while the models load: what one is about to see, and that something happens."""

from __future__ import annotations

import math

import pygame

from player.view import palette
from player.view.palette import Type

_SENTENCES = {
    "car_racing": (
        "A neural network watched a racing car and learnt what comes next.",
        "There is no game here: it dreams every frame, and you steer the dream.",
    ),
    "take_cover": (
        "A neural network watched Doom's monsters throw fireballs and learnt what comes next.",
        "There is no game here: it dreams every frame, and you dodge in the dream.",
    ),
}
_BARS = 32


class Title:
    """The first screen."""

    def __init__(self, task: str) -> None:
        self._task = task
        self._text = Type()

    def draw(self, surface: pygame.Surface, seconds: float) -> None:
        """Draws it, `seconds` after the start."""
        width, height = surface.get_size()
        surface.fill(palette.BACKGROUND)
        unit = min(width / 960, height / 720)
        centre = width / 2
        y = height * 0.2
        self._text.draw(surface, "World Models", 54 * unit, (centre, y), anchor="midtop")
        y += 84 * unit
        for sentence in _SENTENCES[self._task]:
            size = self._text.fitting(sentence, 22 * unit, width * 0.92)
            self._text.draw(surface, sentence, size, (centre, y), palette.FAINT, "midtop")
            y += 34 * unit
        self._wave(surface, pygame.Rect(0, 0, round(480 * unit), round(110 * unit)), seconds, y)
        loading = "loading the dream" + "." * (1 + int(seconds * 2) % 3)
        widest = self._text.render("loading the dream...", 20 * unit).get_width()
        place = (centre - widest / 2, height * 0.74)
        self._text.draw(surface, loading, 20 * unit, place)
        hint = "arrow keys or WASD drive     H shows every key     Esc quits"
        size = self._text.fitting(hint, 17 * unit, width * 0.92)
        self._text.draw(surface, hint, size, (centre, height * 0.84), palette.FAINT, "midtop")

    def _wave(self, surface: pygame.Surface, rect: pygame.Rect, seconds: float, y: float) -> None:
        """A latent vector that is looking for a dream."""
        rect.midtop = (surface.get_width() // 2, round(y + (surface.get_height() * 0.74 - y) * 0.2))
        step = rect.width / _BARS
        for index in range(_BARS):
            value = math.sin(seconds * 2.1 + index * 0.55) * math.cos(seconds * 0.8 - index * 0.21)
            height = max(2, round(abs(value) * rect.height / 2))
            bar = pygame.Rect(0, 0, max(2, round(step * 0.6)), height)
            x = round(rect.left + (index + 0.5) * step)
            if value > 0:
                bar.midbottom = (x, rect.centery)
            else:
                bar.midtop = (x, rect.centery)
            colour = palette.CONTROLLER if value > 0 else palette.HUMAN
            pygame.draw.rect(surface, colour, bar, border_radius=2)
