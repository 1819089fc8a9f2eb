"""`python -m player`: opens the window first, then loads."""

from __future__ import annotations

import os
import sys
import time

_STARTED = time.perf_counter()


def main() -> int:
    """Runs the player with the process's arguments; returns its exit status."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from player import play

    return play.main(sys.argv[1:], started=_STARTED)


if __name__ == "__main__":
    sys.exit(main())
