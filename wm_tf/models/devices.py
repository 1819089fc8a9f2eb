"""Losses and random numbers of a batch that is split evenly over the D devices of a strategy.

A model that takes its noise from `rows_of_batch` and its means from `mean_over_batch` and
`mean_row` learns the same from a batch, up to rounding, whatever D is. On one device all of them
are plain TensorFlow.

Keras adds up what the devices' losses give, so that a loss is to be divided by `count()`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def count() -> int:
    """D, the devices that share the present batch."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def rows_of_batch(draw: Callable[[Any], tf.Tensor], rows: Any) -> tf.Tensor:
    """This device's rows of `draw(number of rows of the whole batch)`; it holds `rows` of them."""
    if count() == 1:
        return draw(rows)
    first = tf.distribute.get_replica_context().replica_id_in_sync_group * rows
    return draw(rows * count())[first : first + rows]


def mean_over_batch(values: Any, weights: Any) -> tf.Tensor:
    """A value for each device, whose mean over the devices is the batch's weighted mean."""
    total = _sum_over_devices(tf.reduce_sum(weights))
    return count() * tf.reduce_sum(values * weights) / tf.maximum(total, 1.0)


def mean_row(rows: Any) -> tf.Tensor:
    """The mean of the whole batch's rows, of which this device holds `rows`: [B, ...] to [...]."""
    return _sum_over_devices(tf.reduce_mean(rows, 0)) / count()


def _sum_over_devices(value: tf.Tensor) -> tf.Tensor:
    if count() == 1:
        return value
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)
