"""M against the same model of Keras's own layers and TensorFlow Probability's mixture."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from wm_tf.bench.compare import Comparison, Goal, Side, close, compare, rate
from wm_tf.bench.models import repeated
from wm_tf.config import TASKS, MemoryConfig, Task
from wm_tf.models import Memory, mixture
from wm_tf.precision import Arithmetic, fast_dtypes
from wm_tf.seeding import Purpose, generator
from wm_tf.training.memory import make_memory

BATCHES = 4

TOLERANCE: dict[Arithmetic, float] = {"float32": 1e-3, "bfloat16": 2e-2}
"""Relative, of a loss."""


class PlainMemory(keras.Model):
    """M of `keras.layers.LSTM` and Dense; takes the same batches as `wm_tf.models.Memory`."""

    def __init__(self, task: Task, config: MemoryConfig) -> None:
        super().__init__()
        self._parts = (3, task.latent_size, task.mixtures)
        self._done_weight = config.done_positive_weight
        self.lstm = keras.layers.LSTM(task.hidden_size, return_sequences=True)
        self.output_layer = keras.layers.Dense(3 * task.latent_size * task.mixtures + 2)

    def call(self, inputs: dict[str, Any]) -> Any:
        return self.output_layer(self.lstm(tf.concat([inputs["latent"], inputs["action"]], -1)))

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, *_: Any) -> Any:
        """The loss of `Memory`, of which the mixture is TensorFlow Probability's."""
        shape = tf.concat([tf.shape(y_pred)[:-1], self._parts], 0)
        mixtures = tf.unstack(tf.reshape(y_pred[..., :-2], shape), axis=-3)
        log_prob = mixture.distribution(*mixtures).log_prob(y["next_latent"])
        reward, done_logit = y_pred[..., -2], y_pred[..., -1]
        done_loss = tf.nn.weighted_cross_entropy_with_logits(
            y["done"], done_logit, self._done_weight
        )
        return (
            _mean(-tf.reduce_mean(log_prob, -1), y["latent_mask"])
            + _mean(tf.square(y["reward"] - reward), y["mask"])
            + _mean(done_loss, y["mask"])
        )

    def take_weights(self, memory: Memory) -> None:
        """Sets the weights to those of M, whose forget gates have their bias of 1 in the cell."""
        inputs = memory.latent_size + memory.action_size
        kernel, bias = memory.kernel.numpy(), memory.bias.numpy().copy()
        bias[memory.hidden_size : 2 * memory.hidden_size] += 1.0
        self.lstm.set_weights([kernel[:inputs], kernel[inputs:], bias])
        self.output_layer.set_weights([memory.output_kernel.numpy(), memory.output_bias.numpy()])


def training() -> list[Comparison]:
    """Training steps of both tasks; the peer computes in float32."""
    return [_training(task, dtype) for task in TASKS.values() for dtype in fast_dtypes()]


def _training(task: Task, dtype: Arithmetic) -> Comparison:
    config = MemoryConfig(dropout=0.0, precision=dtype)  # Keras's LSTM has no such dropout
    ours, plain = make_memory(task, config, 1), PlainMemory(task, config)
    batch = sequences(task, config, config.batch_size)
    batches = repeated(batch, BATCHES)
    plain(batch[0])  # makes the weights
    plain.take_weights(ours)
    steps = BATCHES * config.batch_size * config.sequence_length
    optimizer = keras.optimizers.Adam(config.learning_rate, global_clipnorm=config.gradient_clip)
    plain.compile(optimizer, jit_compile=False)

    def side(name: str, model: keras.Model) -> Side:
        def train() -> float:
            return model.fit(batches, verbose=0, shuffle=False).history["loss"][-1]

        return Side(name, rate(steps, train), train)

    return compare(
        f"M: training, {task.name}, {dtype}",
        "steps/s",
        side("ours", ours),
        side("keras.layers.LSTM and Dense, TFP's log_prob, float32", plain),
        agree=close(TOLERANCE[dtype]),
        goal=Goal(2),
    )


def sequences(
    task: Task, config: MemoryConfig, count: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(inputs, targets) of that many sequences as `Memory` takes them; an end is rare."""
    random = generator(0, Purpose.BENCHMARK)
    length = config.sequence_length
    latents = random.normal(size=(count, length + 1, task.latent_size)).astype(np.float32)
    actions = random.uniform(-1, 1, (count, length, task.action_size)).astype(np.float32)
    ones = np.ones((count, length), np.float32)
    targets = {
        "next_latent": latents[:, 1:],
        "reward": random.normal(size=ones.shape).astype(np.float32),
        "done": (random.random(ones.shape) < 0.002).astype(np.float32),
        "mask": ones,
        "latent_mask": ones,
    }
    return {"latent": latents[:, :-1], "action": actions}, targets


def _mean(values: Any, mask: Any) -> Any:
    return tf.reduce_sum(values * mask) / tf.reduce_sum(mask)
