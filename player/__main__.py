"""`python -m player`: opens the window first, then imports, then loads."""

from __future__ import annotations

import os
import sys
import time

_STARTED = time.perf_counter()
_WITHOUT_WINDOW = frozenset({"--headless", "--help", "-h"})


def main() -> int:
    """Runs the player with the process's arguments; returns its exit status."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # A sum depends on how many threads share it: a recording is driven again with as many.
    os.environ.update(OMP_NUM_THREADS="1", TF_NUM_INTRAOP_THREADS="1")
    _open_at_once(sys.argv[1:])
    from player import play

    return play.main(sys.argv[1:], started=_STARTED)


def _open_at_once(arguments: list[str]) -> None:
    """Opens the window before anything else is imported, unless none is asked for.

    If the options turn out to be wrong, it closes again.
    """
    shown = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    if not shown and sys.platform.startswith("linux"):
        return
    if _WITHOUT_WINDOW.intersection(arguments):
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
