"""Frames on the window: scaled up, crisp or smooth."""

from __future__ import annotations

import numpy as np
import pygame

from player.view import palette
from player.view.palette import Type


def draw_frame(surface: pygame.Surface, rect: pygame.Rect, frame: np.ndarray, smooth: bool) -> None:
    """Scales a frame, uint8 [64, 64, 3], into a rectangle, as far as that is on the surface."""
    rect = rect.clip(surface.get_rect())
    if not rect:
        return
    small = pygame.image.frombuffer(frame.tobytes(), (frame.shape[1], frame.shape[0]), "RGB")
    place = surface.subsurface(rect)  # scaled straight into it, without a copy
    scale = pygame.transform.smoothscale if smooth else pygame.transform.scale
    scale(small.convert(surface), rect.size, place)


def draw_label(
    surface: pygame.Surface, text: Type, rect: pygame.Rect, name: str, unit: float
) -> None:
    """A name in the upper left corner of a picture."""
    image = text.render(name, max(11.0, 15 * unit))
    plate = image.get_rect(topleft=rect.topleft).inflate(round(12 * unit), round(8 * unit))
    plate.topleft = rect.topleft
    pygame.draw.rect(surface, palette.BACKGROUND, plate)
    surface.blit(image, image.get_rect(center=plate.center))
