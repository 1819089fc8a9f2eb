"""How TensorFlow and Keras are started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from wm_tf.runtime import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    np.ones(5_000_000, np.uint8) + np.ones(5_000_000, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(setting: str) -> int:
    command = [sys.executable, "-c", PROGRAM, setting]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_freed_memory_is_kept() -> None:
    """Used again, instead of being cleared anew by the system."""
    assert page_faults("keep") < page_faults("return") / 5


def test_the_networks_do_not_depend_on_the_users_settings_of_keras(tmp_path: Path) -> None:
    settings = {
        "backend": "jax",
        "floatx": "float64",
        "image_data_format": "channels_first",
        "epsilon": 1e-7,
    }
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    program = """
import numpy as np
from wm_tf.models import Memory, Vision

vision = Vision(32)
latent, _ = vision.encode(np.zeros((2, 64, 64, 3), np.uint8))
frame = vision.decode(latent)
print(latent.dtype.name, frame.dtype.name, frame.shape)
"""
    environment = {**os.environ, "KERAS_HOME": str(tmp_path), "KERAS_BACKEND": "torch"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.stdout == "float32 float32 (2, 64, 64, 3)\n", done.stderr
