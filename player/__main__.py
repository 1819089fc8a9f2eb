"""`python -m player`: opens the window first, then imports, then loads."""

from __future__ import annotations

import os
import sys
import time

_STARTED = time.perf_counter()


def main() -> int:
    """Runs the player with the process's arguments; returns its exit status."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    _open_at_once(sys.argv[1:])
    from player import play

    return play.main(sys.argv[1:], started=_STARTED)


def _open_at_once(arguments: list[str]) -> None:
    """Opens the window before anything else is imported, where nothing can be wrong but the task.

    With options, they are read first: they may be wrong, or ask for no window.
    """
    shown = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    if not shown and sys.platform.startswith("linux"):
        return
    if arguments not in ([], ["car_racing"], ["take_cover"]):
        return
    import pygame

    from player import window

    try:
        window.open_window()
    except pygame.error:
        pygame.display.quit()  # `play` tries again and says what is wrong
    else:
        window.greet()


if __name__ == "__main__":
    sys.exit(main())
