"""`python -m wm_tf`."""

import contextlib
import os
import sys

from wm_tf.cli import INTERRUPTED, main

if __name__ == "__main__":
    status = main()
    if status == INTERRUPTED:
        # At once: a native call may still run in a thread, for which the interpreter would wait.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, AttributeError):  # full, left by its reader, or None
                stream.flush()
        os._exit(status)
    sys.exit(status)
