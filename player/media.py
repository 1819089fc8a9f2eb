"""GIFs and films of a drive: the dream with its instruments, at a fixed size."""

from __future__ import annotations

import io
import itertools
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pygame
from PIL import Image

from player.session import Session
from player.view.screen import Screen, Show
from wm_tf import storage
from wm_tf.errors import RunFailed

GIF_SIZE = (384, 288)
FILM_SIZE = (960, 720)
"""Pixels."""

_GIF_EVERY = 2  # steps per picture: 25 pictures a second where the dream has 50 steps
_GIF_MOST = 3000  # pictures: a longer drive has fewer of them a second
_GIF_COLOURS = 64


class Camera:
    """Draws a session, step by step, onto a surface of its own."""

    def __init__(self, task: str, size: tuple[int, int]) -> None:
        self._task = task
        self._screen = Screen(task)
        self._surface = pygame.Surface(size, 0, 32)

    def picture(self, session: Session, frame: np.ndarray, show: Show) -> bytes:
        """The drawn picture, as bytes RGB."""
        task = session.world.task.name
        if task != self._task:  # it has other instruments
            self._task, self._screen = task, Screen(task)
        self._screen.draw(self._surface, session, frame, show)
        return pygame.image.tobytes(self._surface, "RGB")


class Animation:
    """A drive on its way into a GIF."""

    def __init__(self, task: str, path: Path) -> None:
        self._camera = Camera(task, GIF_SIZE)
        self._path = path
        self._pictures: list[bytes] = []  # compressed: a drive of minutes has thousands
        self._steps = 0
        self._every = _GIF_EVERY
        self._rate = 50.0

    def add(self, session: Session, frame: np.ndarray) -> None:
        """Takes a picture, if it is time for one."""
        self._rate = session.world.steps_per_second
        if self._steps % self._every == 0:
            data = self._camera.picture(session, frame, Show(in_animation=True))
            self._pictures.append(zlib.compress(data, 1))
        self._steps += 1
        if len(self._pictures) == _GIF_MOST:
            self._pictures = self._pictures[::2]
            self._every *= 2

    def close(self) -> None:
        """Writes the file, if there was anything to see; raises RunFailed if it cannot."""
        if not self._pictures:
            return
        count = len(self._pictures)
        dozen = self._pictures[:: max(1, count // 12)][:12]
        palette = _common_palette([_picture(data) for data in dozen])
        # One palette and no dithering: nothing flickers, and flat areas stay small in the file.
        frames = (
            _picture(data).quantize(palette=palette, dither=Image.Dither.NONE)
            for data in self._pictures
        )
        buffer = io.BytesIO()
        next(frames).save(
            buffer,
            "GIF",
            save_all=True,
            append_images=frames,
            duration=_durations(count, self._every / self._rate),
            loop=0,
            optimize=False,
        )
        storage.write_bytes(self._path, buffer.getvalue())

    def discard(self) -> None:
        """Nothing is left over: the file is written at once."""


class Film:
    """A drive on its way into an MP4 (MPEG-4 part 2, which OpenCV's own encoder writes)."""

    def __init__(self, task: str, path: Path) -> None:
        self._camera = Camera(task, FILM_SIZE)
        self._path = path
        self._unfinished = path.with_name(f".{path.stem}.{os.getpid()}.mp4")
        self._writer: Any = None
        self._pictures = 0

    def add(self, session: Session, frame: np.ndarray) -> None:
        """Adds a picture; raises RunFailed if the file cannot be written."""
        import cv2

        if self._writer is None:
            code = cv2.VideoWriter.fourcc(*"mp4v")
            rate = session.world.steps_per_second
            self._writer = cv2.VideoWriter(str(self._unfinished), code, rate, FILM_SIZE)
            if not self._writer.isOpened():
                raise RunFailed(f"cannot write {self._path}")
        data = self._camera.picture(session, frame, Show())
        pixels = np.frombuffer(data, np.uint8).reshape(FILM_SIZE[1], FILM_SIZE[0], 3)
        self._writer.write(np.ascontiguousarray(pixels[:, :, ::-1]))
        self._pictures += 1

    def close(self) -> None:
        """Finishes the file, if there was anything to see; raises RunFailed if it cannot."""
        if self._writer is None:
            return
        self._writer.release()
        if _length(self._unfinished) != self._pictures:  # the encoder says nothing of a full disk
            raise RunFailed(f"cannot write {self._path}: not all of the film could be written")
        try:
            self._unfinished.replace(self._path)
        except OSError as error:
            raise RunFailed(f"cannot write {self._path}: {error.strerror}") from error

    def discard(self) -> None:
        """Removes the file as far as it was written, unless it is finished."""
        if self._writer is not None:
            self._writer.release()
            self._unfinished.unlink(missing_ok=True)


def _length(film: Path) -> int:
    """How many pictures a film has; 0 if it cannot be opened."""
    import cv2

    video = cv2.VideoCapture(str(film))
    pictures = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
    video.release()
    return pictures


def _durations(count: int, seconds: float) -> list[int]:
    """Milliseconds of each picture: whole hundredths of a second, right on average."""
    marks = [round(100 * seconds * index) for index in range(count + 1)]
    return [10 * (later - sooner) for sooner, later in itertools.pairwise(marks)]


def _picture(compressed: bytes) -> Image.Image:
    return Image.frombytes("RGB", GIF_SIZE, zlib.decompress(compressed))


def _common_palette(pictures: list[Image.Image]) -> Image.Image:
    """The colours that fit some pictures."""
    sheet = Image.new("RGB", (GIF_SIZE[0], GIF_SIZE[1] * len(pictures)))
    for index, picture in enumerate(pictures):
        sheet.paste(picture, (0, index * GIF_SIZE[1]))
    return sheet.quantize(_GIF_COLOURS, method=Image.Quantize.FASTOCTREE)
