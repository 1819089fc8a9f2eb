"""Training on several GPUs of one machine: every batch is split evenly over them.

The models see to it that they learn the same, up to rounding, whatever the number of devices
(`wm_tf.models.devices`), so a training may be gone on with on another number.
"""

from __future__ import annotations

import tensorflow as tf

from wm_tf.errors import UserError


def strategy(devices: int, batch_size: int) -> tf.distribute.Strategy:
    """In whose scope a model is to be made for training on so many devices.

    Args:
      devices: GPUs; where there is none, TensorFlow's logical CPUs.
      batch_size: of the training, a multiple of `devices`.

    Raises:
      UserError: there are not so many devices, or the batch cannot be split evenly.
    """
    if devices == 1:
        return tf.distribute.get_strategy()
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    there = [device.name for device in tf.config.list_logical_devices(kind)]
    if not 1 <= devices <= len(there):
        raise UserError(f"--devices: expected 1 to {len(there)} ({kind} here), got {devices}")
    if batch_size % devices:
        raise UserError(f"--batch-size: expected a multiple of {devices} devices, got {batch_size}")
    # Collectives between CPUs of one process meet those of an earlier model and end both.
    sums = tf.distribute.ReductionToOneDevice() if kind == "CPU" else None
    return tf.distribute.MirroredStrategy(there[:devices], sums)
