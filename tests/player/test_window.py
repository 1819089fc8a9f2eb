"""A real window, where there is an X server to open it on (Xvfb is enough)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

import pygame
import pytest

from player import window

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

_FULL = """
import time
from player import window
import pygame
window.open_window()
full = window.FullScreen()
def turns(count):
    for _ in range(count):
        pygame.event.get()
        full.turn()
        pygame.display.flip()
        time.sleep(0.02)
turns(20)
full.toggle()
turns(20)
assert pygame.display.get_surface().get_size() == (1280, 800), pygame.display.get_window_size()
full.toggle()
turns(60)
assert pygame.display.get_surface().get_size() == (960, 720), pygame.display.get_window_size()
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
    subprocess.run(
        [sys.executable, "-c", _CODE], check=True, timeout=60, env=_environment(x_server)
    )


def test_full_screen_and_back_to_the_same_window(x_server):
    """With a window manager, which takes its time; without one SDL does it all."""
    manager = None
    if shutil.which("openbox"):
        manager = subprocess.Popen(
            ["openbox"], env=_environment(x_server),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(1.5)  # SDL waits for ever if the manager takes over while a window opens
    try:
        subprocess.run(
            [sys.executable, "-c", _FULL], check=True, timeout=60, env=_environment(x_server)
        )
    finally:
        if manager is not None:
            manager.terminate()
            manager.wait(timeout=10)


def test_the_window_opens_before_anything_else_is_imported(x_server, tmp_path):
    code = """
import sys
from player.__main__ import _open_at_once
_open_at_once(["car_racing"])
import pygame
assert pygame.display.get_surface().get_size() == (960, 720)
assert pygame.surfarray.array3d(pygame.display.get_surface()).any()
heavy = {"gymnasium", "tensorflow", "tyro", "wm_tf"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=_environment(x_server))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux's displays")
def test_a_display_that_does_not_answer_is_no_display(monkeypatch, tmp_path):
    """SDL would draw unseen, and the player would run until it is killed."""
    for name in ("SDL_VIDEODRIVER", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISPLAY", ":97")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))  # nor is there a Wayland of that name
    pygame.display.quit()
    try:
        with pytest.raises(pygame.error, match="no display can be reached"):
            window.open_window()
    finally:
        pygame.quit()
