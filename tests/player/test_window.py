"""A real window, where there is an X server to open it on (Xvfb is enough)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

_CODE = """
import os, sys
from player import window
window.open_window()
maps = open("/proc/self/maps").read()
assert "libLLVM" not in maps, "a driver with its own LLVM makes TensorFlow's import crash"
import pygame
assert pygame.display.get_driver() == "x11"
pygame.display.flip()
"""


@pytest.fixture
def x_server() -> Iterator[str]:
    """A display of our own."""
    if not (sys.platform.startswith("linux") and shutil.which("Xvfb")):
        pytest.skip("needs Xvfb")
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x800x24", "-nolisten", "tcp"],
        pass_fds=[write], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(write)
    with os.fdopen(read) as pipe:
        number = pipe.readline().strip()
    yield f":{number}"
    server.terminate()
    server.wait(timeout=10)


def _environment(display: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SDL_")}
    return kept | {"DISPLAY": display}


def test_the_window_loads_no_graphics_driver_that_clashes_with_tensorflow(x_server):
    subprocess.run([sys.executable, "-c", _CODE], check=True, env=_environment(x_server))
