"""`python -m wm_tf`."""

import sys

from wm_tf.cli import main

if __name__ == "__main__":
    sys.exit(main())
