"""The window itself: opening it, full screen and back."""

from __future__ import annotations

import os
import sys
import warnings

import pygame

from player.gamepads import open_gamepads
from player.view import palette

SIZE = (960, 720)


def surface() -> pygame.Surface:
    """What is shown."""
    shown = pygame.display.get_surface()
    if shown is None:
        raise RuntimeError("the window is not open")
    return shown


def open_window() -> None:
    """Opens the window. Raises pygame.error if it cannot, or nobody would see it."""
    if sys.platform.startswith("linux"):
        # Without this SDL shows even a plain surface through OpenGL, Mesa's drivers load LLVM,
        # and the import of TensorFlow, which has an LLVM of its own, ends in a segmentation fault.
        os.environ.setdefault("SDL_FRAMEBUFFER_ACCELERATION", "0")
    pygame.display.init()
    driver = pygame.display.get_driver()
    # SDL takes them where no display answers, and the player would run on unseen.
    if driver in ("offscreen", "dummy") and driver not in os.environ.get("SDL_VIDEODRIVER", ""):
        raise pygame.error("no display can be reached")
    pygame.font.init()
    pygame.display.set_caption("World Models")
    pygame.display.set_icon(_icon())
    desktop = pygame.display.get_desktop_sizes()
    width, height = SIZE
    if desktop and driver != "dummy":  # a small screen gets a small window
        width, height = min(width, desktop[0][0]), min(height, desktop[0][1])
    try:
        pygame.display.set_mode((width, height), pygame.RESIZABLE)
    except pygame.error:  # a display that knows OpenGL alone (Wayland without X)
        os.environ.pop("SDL_FRAMEBUFFER_ACCELERATION", None)
        pygame.display.quit()
        pygame.display.init()
        pygame.display.set_mode((width, height), pygame.RESIZABLE)
    open_gamepads()
    pygame.key.set_repeat()  # none: a held key is one press


def _icon() -> pygame.Surface:
    """The sign of driving together: a person's circle in the controller's diamond."""
    icon = pygame.Surface((64, 64), pygame.SRCALPHA)
    pygame.draw.polygon(icon, palette.CONTROLLER, [(32, 1), (63, 32), (32, 63), (1, 32)])
    pygame.draw.aacircle(icon, palette.BACKGROUND, (32, 32), 21)
    pygame.draw.aacircle(icon, palette.HUMAN, (32, 32), 16)
    return icon


def greet() -> None:
    """The first picture, before there is anything to choose."""
    shown = surface()
    shown.fill(palette.BACKGROUND)
    size = 58 * min(shown.get_width() / 960, shown.get_height() / 720)
    palette.Type().draw(shown, "World Models", size, shown.get_rect().center, anchor="center")
    pygame.display.flip()
    pygame.event.pump()  # the window manager sees that it lives


class FullScreen:
    """Full screen and back to the window as it was."""

    _PATIENCE = 50  # turns

    def __init__(self) -> None:
        self._size: tuple[int, int] | None = None  # of the window to come back to
        self._wanted: tuple[int, int] | None = None  # while the window manager makes it so
        self._turns = 0

    def toggle(self) -> None:
        """The one or the other."""
        if self._size is None:
            self._size, self._wanted = surface().get_size(), None
            pygame.display.set_mode((0, 0), pygame.FULLSCREEN)
        else:
            self._wanted, self._size = self._size, None
            self._turns = 0
            self._shrink(self._wanted)

    def turn(self) -> None:
        """To be called each turn of the loop.

        A window manager takes the window out of full screen in its own time, and forgets a size
        that was asked for before that: it is asked for again.
        """
        if self._wanted is None:
            return
        self._turns += 1
        if self._turns % 10 == 0 and pygame.display.get_window_size() != self._wanted:
            self._shrink(self._wanted)
        if self._turns >= self._PATIENCE:
            self._wanted = None

    @staticmethod
    def _shrink(size: tuple[int, int]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # "forcibly resized by the OS"
            pygame.display.set_mode(size, pygame.RESIZABLE)
