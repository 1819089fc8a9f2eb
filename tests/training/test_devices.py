"""Several devices train as one does, up to rounding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wm_tf.errors import UserError
from wm_tf.training.devices import strategy

# Both in a process of its own: TensorFlow is told of its logical devices before it starts.
_TRAINING = """
import sys
from pathlib import Path
import numpy as np, tensorflow as tf
from wm_tf.config import MemoryConfig, VisionConfig, get_task
from wm_tf.data.episodes import Episode, write_episode
from wm_tf.data.latents import from_episode, write_latents
from wm_tf.training.devices import strategy
from wm_tf.training.fit import Places
from wm_tf.training.memory import make_memory, train_memory
from wm_tf.training.vision import make_vision, train_vision

folder, devices = Path(sys.argv[1]), int(sys.argv[2])
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

task = get_task("car_racing")
random = np.random.default_rng(1)
frames = random.integers(0, 256, (13, 64, 64, 3), np.uint8)
actions = random.uniform(-1, 1, (12, 3)).astype(np.float32)
rewards = random.normal(size=12).astype(np.float32)
episode = Episode(frames, actions, rewards, True, False, False, 1, "random")
moments = random.normal(size=(2, 13, 32)).astype(np.float32)
write_episode(folder / "frames.npz", episode, task)
write_latents(folder / "latents.npz", from_episode(episode, *moments, ""), task)

def train(make, train, config, data, epochs):
    with strategy(devices, config.batch_size).scope():
        model = make(task, config, 3)
    places = Places(folder / f"{make.__name__}.npz", folder / make.__name__)
    for last in range(1, epochs + 1):  # as if it were interrupted after every epoch
        train(model, [folder / data], task, config, places, seed=3, epochs=last)

# Uneven: a batch's masks are not shared evenly, and its gradient is longer than the clip.
memory = MemoryConfig(sequence_length=3, batch_size=4, dropout=0.2, gradient_clip=0.5)
vision = VisionConfig(batch_size=4, emphasis=40.0, precision="float32")
train(make_memory, train_memory, memory, "latents.npz", 2)
train(make_vision, train_vision, vision, "frames.npz", 1)
"""


def test_two_devices_train_as_one(tmp_path: Path) -> None:
    """A sum in another order differs in its last bits, by some 1e-7 of it. Adam divides a gradient
    by its size, so a weight whose gradient is nothing but such a difference may move by a whole
    learning rate, but all others move alike. Wrong noise, means or clipping move them apart."""
    processes = []
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        folder.mkdir()
        command = [sys.executable, "-c", _TRAINING, str(folder), str(devices)]
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL))
    assert [process.wait() for process in processes] == [0, 0]
    for name, rate in (("make_memory", 1e-3), ("make_vision", 1e-4)):
        one, two = (np.load(tmp_path / str(devices) / f"{name}.npz") for devices in (1, 2))
        assert one.files == two.files
        for key in one.files:
            if key.startswith("weight"):
                difference = np.abs(one[key] - two[key])
                assert difference.mean() < 0.01 * rate, key


def test_devices_that_are_not_there_are_refused() -> None:
    with pytest.raises(UserError, match=r"--devices: expected 1 to 1 .*, got 3"):
        strategy(3, 12)
    with pytest.raises(UserError, match="got 0"):
        strategy(0, 12)
