"""Losses and random numbers of a batch that is split evenly over the D devices of a strategy.

A model that takes its noise from `rows_of_batch` and its means from `mean_over_batch` learns the
same from a batch, up to rounding, whatever D is. On one device both are plain TensorFlow.

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
    total = tf.reduce_sum(weights)
    if count() > 1:
        context = tf.distribute.get_replica_context()
        total = context.all_reduce(tf.distribute.ReduceOp.SUM, total)
    return count() * tf.reduce_sum(values * weights) / tf.maximum(total, 1.0)
