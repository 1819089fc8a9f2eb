"""Starts TensorFlow and Keras: without the lines that C++ libraries print, at their fastest, and as
the networks need them whatever a user's settings ask for in other programs.

oneDNN's kernels are TensorFlow's choice on some processors only; they are faster on others too (V's
training 1.5 times, M's 1.3 times, on one with AVX2).

glibc gives large blocks of memory back to the system at once, and the system clears every page
that it hands out again. TensorFlow frees and takes its activations at every step; kept, they make
V's training on one thread twice as fast.
"""

from __future__ import annotations

import ctypes
import os
import sys

_KEPT_BYTES = 2**29
"""Free memory at the heap's top that is kept, and blocks that are taken from the heap."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def import_tensorflow() -> None:
    """Imports TensorFlow and starts its runtime; what that prints to stderr is dropped.

    An import that fails still raises. Later messages are shown as usual.
    """
    if "tensorflow" in sys.modules:
        return
    keep_freed_memory()
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        import tensorflow as tf

        tf.config.list_logical_devices()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def settle_keras() -> None:
    """Imports Keras on TensorFlow, with float32 and channels last: the networks are so."""
    os.environ["KERAS_BACKEND"] = "tensorflow"  # means nothing to a Keras that is there already
    import keras

    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")


def keep_freed_memory() -> bool:
    """Has this process keep memory that it frees, for its next use; whether that can be set."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    # Older ones do not take large blocks from the heap; trimming it less would then be worse.
    return bool(mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES) and mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES))
