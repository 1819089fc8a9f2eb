"""What a dream begins from: a word or a picture file becomes a source."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np

from player.world import NOISE, REAL, Source
from wm_tf.config import FRAME_SIZE
from wm_tf.errors import UserError

_LARGEST = 100_000_000  # bytes of a picture's file


def source_of(start: str) -> Source:
    """What a dream begins from, of --start.

    Raises:
      UserError: neither a known word nor a picture that can be read.
    """
    if start in ("real", "noise"):
        return REAL if start == "real" else NOISE
    try:
        return picture_source(start)
    except UserError:
        message = f"--start: expected real, noise or a picture file, got {start!r}"
        raise UserError(message) from None


def picture_source(path: str) -> Source:
    """The middle square of a picture file, made as small as a frame.

    Raises:
      UserError: it cannot be read.
    """
    import cv2

    picture = None
    # It has no pixels, or more than OpenCV or the memory takes.
    with contextlib.suppress(OSError, MemoryError, cv2.error):
        if Path(path).is_file() and os.path.getsize(path) <= _LARGEST:
            picture = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise UserError(f"{path}: not a picture that can be read")
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = picture[top : top + side, left : left + side, ::-1]  # OpenCV reads BGR
    small = cv2.resize(square, (FRAME_SIZE, FRAME_SIZE), interpolation=cv2.INTER_AREA)
    return Source("picture", np.ascontiguousarray(small))
