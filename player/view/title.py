"""The title screen: what one is looking at, and the choice of task, driver and start.

While the models load, a latent vector looks for a dream; then the dream itself is shown, driven
by whoever can, and waits for a person.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pygame

from player.choice import Choice, Drivers, rows
from player.commands import Binding, Command, keys_of
from player.driving import Driver
from player.view import palette
from player.view.instruments import badge
from player.view.palette import Type
from player.view.picture import draw_frame

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
_COMMANDS = {
    "dream of": (Command.TITLE,),
    "driver": (Command.NEXT_DRIVER,),
    "start": (Command.BEGIN_ELSEWHERE, Command.BEGIN_IN_NOISE),
}
_BARS = 32

Target = tuple[pygame.Rect, Choice | None]
"""Where one can click: the choice that it makes, None to begin."""


class Title:
    """The first screen."""

    def __init__(self, bindings: Sequence[Binding]) -> None:
        self._bindings = bindings
        self._text = Type()

    def draw(
        self,
        surface: pygame.Surface,
        choice: Choice,
        drivers: Drivers,
        seconds: float,
        frame: np.ndarray | None,
        message: str = "",
    ) -> list[Target]:
        """Draws it, `seconds` after the start; returns where one can click.

        Args:
          frame: the dream, uint8 [64, 64, 3]; None while the models load.
        """
        width, height = surface.get_size()
        surface.fill(palette.BACKGROUND)
        unit = min(width / 960, height / 720)
        page = pygame.Rect(0, 0, round(960 * unit), round(720 * unit))
        page.center = (width // 2, height // 2)
        left, right = page.left + 60 * unit, page.right - 60 * unit
        self._text.draw(surface, "World Models", 58 * unit, (left, page.top + 52 * unit))
        y = page.top + 130 * unit
        for sentence in _SENTENCES[choice.task]:
            size = self._text.fitting(sentence, 23 * unit, right - left)
            self._text.draw(surface, sentence, size, (left, y), palette.FAINT)
            y += 32 * unit
        dream = pygame.Rect(0, 0, round(384 * unit), round(384 * unit))
        dream.topright = (round(right), round(page.top + 232 * unit))
        self._dream(surface, dream, unit, choice, seconds, frame)
        targets = self._rows(surface, left, page.top + 232 * unit, unit, choice, drivers)
        targets.append(self._begin(surface, left, dream.bottom, unit, seconds, frame is not None))
        hint = "   ".join(
            f"{keys_of(self._bindings, command)} {what}"
            for command, what in ((Command.HELP, "every key"), (Command.QUIT, "quit"))
        )
        foot = (left, page.bottom - 52 * unit)
        if message:
            size = self._text.fitting(message, 17 * unit, right - left)
            self._text.draw(surface, message, size, foot, palette.WARNING)
        else:
            self._text.draw(surface, hint, 17 * unit, foot, palette.FAINT)
        return targets

    def _rows(
        self,
        surface: pygame.Surface,
        left: float,
        y: float,
        unit: float,
        choice: Choice,
        drivers: Drivers,
    ) -> list[Target]:
        """The choices: chosen values are bright and have the sign of who drives."""
        targets: list[Target] = []
        for name, values in rows(choice, drivers):
            key = "  ".join(keys_of(self._bindings, command) for command in _COMMANDS[name])
            label = self._text.draw(surface, name, 17 * unit, (left, y), palette.FAINT)
            beside = (label.right + 10 * unit, y)
            self._text.draw(surface, key, 17 * unit, beside, palette.HUMAN)
            x = left
            for value, made in values:
                colour = palette.TEXT if made == choice else palette.FAINT
                place = (x, y + 27 * unit)
                rect = self._text.draw(surface, value, 23 * unit, place, colour)
                if made == choice:
                    line = pygame.Rect(rect.left, rect.bottom + 3 * unit, rect.width, 0)
                    line.height = max(2, round(3 * unit))
                    pygame.draw.rect(surface, _colour_of(choice.driver), line)
                targets.append((rect.inflate(16 * unit, 12 * unit), made))
                x = rect.right + 24 * unit
            y += 92 * unit
        return targets

    def _begin(
        self,
        surface: pygame.Surface,
        left: float,
        bottom: int,
        unit: float,
        seconds: float,
        ready: bool,
    ) -> Target:
        button = pygame.Rect(round(left), 0, round(330 * unit), round(64 * unit))
        button.bottom = bottom
        radius = round(8 * unit)
        pygame.draw.rect(surface, palette.PANEL, button, border_radius=radius)
        if not ready:
            widest = self._text.render("loading the dream...", 22 * unit).get_width()
            words = "loading the dream" + "." * (1 + int(seconds * 2) % 3)
            place = (button.centerx - widest / 2, button.centery)
            self._text.draw(surface, words, 22 * unit, place, anchor="midleft")
            return pygame.Rect(0, 0, 0, 0), None
        pygame.draw.rect(surface, palette.HUMAN, button, max(2, round(2 * unit)), radius)
        words = f"{keys_of(self._bindings, Command.BEGIN)} or an arrow key: drive"
        size = self._text.fitting(words, 22 * unit, button.width - 24 * unit)
        self._text.draw(surface, words, size, button.center, anchor="center")
        return button, None

    def _dream(
        self,
        surface: pygame.Surface,
        rect: pygame.Rect,
        unit: float,
        choice: Choice,
        seconds: float,
        frame: np.ndarray | None,
    ) -> None:
        border = max(3, round(6 * unit))
        colour = _colour_of(choice.driver)
        pygame.draw.rect(surface, colour, rect.inflate(2 * border, 2 * border), border)
        if frame is None:
            pygame.draw.rect(surface, palette.PANEL, rect)
            self._wave(surface, rect.inflate(-rect.width // 6, -rect.height // 2), seconds)
        else:
            draw_frame(surface, rect, frame, smooth=False)
        plate = pygame.Rect(0, 0, round(34 * unit), round(34 * unit))
        plate.topleft = rect.topleft
        pygame.draw.rect(surface, palette.BACKGROUND, plate)
        human = {Driver.HUMAN: (True, True), Driver.ASSIST: (True, False)}
        by_human = np.array(human.get(choice.driver, (False, False)))
        badge(surface, plate.center, 11 * unit, by_human)

    def _wave(self, surface: pygame.Surface, rect: pygame.Rect, seconds: float) -> None:
        """A latent vector that is looking for a dream."""
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


def _colour_of(driver: Driver) -> palette.Colour:
    return palette.who(driver is Driver.HUMAN)
