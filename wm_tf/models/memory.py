"""M: the paper's mixture-density LSTM with heads for the reward and the end of an episode.

With x = [z_t, a_t] and the state (h_t, c_t), which is zero at an episode's start, a step is two
matrix products:

    i, f, g, o = [x, h_t] W + b                       each [B, H]
    c_{t+1} = sigmoid(f + 1) c_t + sigmoid(i) tanh(g)
    h_{t+1} = sigmoid(o) tanh(c_{t+1})
    logits, mean, log_std, reward, done_logit = h_{t+1} V + d

From h_{t+1} it predicts z_{t+1} (a mixture of K Gaussians for each latent dimension), the reward
r_t of the action a_t, and whether the episode terminated with a_t, or how likely it was to, where
that is known (Ha & Schmidhuber 2018, appendix A.2; the forget gate's bias of 1 is Jozefowicz et al.
2015).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from wm_tf.models import devices, lstm, mixture

_SMALLEST_FOR_BFLOAT16 = 512
"""Hidden units from which training computes the LSTM's products of h in bfloat16, if it shall. With
fewer they gain more from being compiled by XLA, in float32, with what is between them (on an EPYC
of Zen 4, where 512 units are as fast either way)."""


class MemoryStep(NamedTuple):
    """What M returns for one step, or for a sequence with an axis of time after the batch."""

    logits: Any  # [B, Z, K]
    mean: Any  # [B, Z, K]
    log_std: Any  # [B, Z, K]
    reward: Any  # [B]
    done_logit: Any  # [B]
    h: Any  # [B, H]
    c: Any  # [B, H]


@keras.saving.register_keras_serializable("wm_tf")
class Memory(keras.Model):
    """The mixture-density LSTM.

    `fit` takes pairs (inputs, targets) of dictionaries over sequences of T steps:

    * inputs: ``latent`` [B, T, Z], ``action`` [B, T, A]
    * targets: ``next_latent`` [B, T, Z], ``reward`` [B, T], ``done`` [B, T] (0 to 1), ``mask`` [B,
      T] (1 where there is a step) and ``latent_mask`` [B, T] (1 where its next latent is known);
      float32.

    Args:
      latent_size, action_size, hidden_size, mixtures: Z, A, H, K.
      dropout: share of the LSTM's outputs hidden from the heads in training, one mask for each
        sequence.
      reward_weight, done_weight: of the heads' losses beside the mixture's.
      done_positive_weight: of the ends within the end head's loss, by their probabilities.
      seed: of the dropout masks.
    """

    def __init__(
        self,
        latent_size: int,
        action_size: int,
        hidden_size: int,
        mixtures: int = 5,
        dropout: float = 0.0,
        reward_weight: float = 1.0,
        done_weight: float = 1.0,
        done_positive_weight: float = 10.0,
        seed: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.latent_size = latent_size
        self.action_size = action_size
        self.hidden_size = hidden_size
        self.mixtures = mixtures
        self.dropout = dropout
        self.reward_weight = reward_weight
        self.done_weight = done_weight
        self.done_positive_weight = done_positive_weight
        self.seed = seed
        self._inputs = latent_size + action_size
        gates, outputs = 4 * hidden_size, 3 * latent_size * mixtures + 2
        self.kernel = self._weight(
            "kernel", (self._inputs + hidden_size, gates), self._initial_kernel
        )
        self.bias = self._weight("bias", (gates,), "zeros")
        self.output_kernel = self._weight("output_kernel", (hidden_size, outputs))
        self.output_bias = self._weight("output_bias", (outputs,), "zeros")
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.head_metrics = {
            name: keras.metrics.Mean(name=name) for name in ("nll", "reward_error", "done_loss")
        }
        self.built = True

    def _weight(
        self, name: str, shape: tuple[int, ...], initializer: Any = "glorot_uniform"
    ) -> keras.Variable:
        # Float32 wherever it is read: the products alone are computed in the policy's type.
        return self.add_weight(name=name, shape=shape, initializer=initializer, autocast=False)

    def _initial_kernel(self, shape: tuple[int, int], dtype: Any = None) -> Any:
        """Glorot for the rows of x, orthogonal for those of h, as Keras's LSTM starts."""
        inputs = keras.initializers.GlorotUniform()((self._inputs, shape[1]), dtype)
        state = keras.initializers.Orthogonal()((self.hidden_size, shape[1]), dtype)
        return tf.concat([inputs, state], 0)

    def _product(self, x: Any, kernel: Any) -> tf.Tensor:
        return lstm.product(x, kernel, self.compute_dtype)

    def initial_state(self, batch: int) -> tuple[tf.Tensor, tf.Tensor]:
        """(h, c) at an episode's start: zeros [B, H]."""
        zeros = tf.zeros([batch, self.hidden_size])
        return zeros, zeros

    def step(self, latent: Any, action: Any, h: Any, c: Any, mask: Any = None) -> MemoryStep:
        """One step: latent [B, Z], action [B, A], h and c [B, H]; `mask` as in `heads`."""
        inputs = tf.concat([latent, action, h], -1)
        h, c = lstm.cell(self._product(inputs, self.kernel) + self.bias, c)
        return MemoryStep(*self.heads(h, mask), h, c)

    def unroll(
        self,
        latent: Any,
        action: Any,
        h: Any = None,
        c: Any = None,
        mask: Any = None,
        xla: bool = False,
    ) -> MemoryStep:
        """`step` over a sequence: latent [B, T, Z], action [B, T, A], from the state (h, c).

        `xla` as in `lstm.unroll`, for sequences of one shape.

        Returns:
          Everything with an axis [B, T, ...], h and c included.
        """
        if h is None:
            h, c = self.initial_state(tf.shape(latent)[0])
        inputs = tf.transpose(tf.concat([latent, action], -1), [1, 0, 2])  # [T, B, Z + A]
        states = lstm.unroll(inputs, self.kernel, self.bias, h, c, self.compute_dtype, xla)
        h, c = (tf.transpose(state, [1, 0, 2]) for state in states)
        return MemoryStep(*self.heads(h, mask), h, c)

    def heads(self, h: Any, mask: Any = None) -> tuple[Any, Any, Any, Any, Any]:
        """(logits, mean, log_std, reward, done_logit) from h [B, ..., H].

        `mask`, from `dropout_mask`, hides outputs of the LSTM from the heads.
        """
        if mask is not None:
            h = h * mask
        output = tf.nn.bias_add(self._product(h, self.output_kernel), self.output_bias)
        parts = [self.latent_size, self.mixtures]
        # Slices would have gradients of the output's size, each, to be added up.
        *of_mixture, reward, done_logit = tf.split(output, [math.prod(parts)] * 3 + [1, 1], -1)
        shape = tf.concat([tf.shape(h)[:-1], parts], 0)
        logits, mean, log_std = (
            tf.ensure_shape(tf.reshape(part, shape), [*h.shape[:-1], *parts]) for part in of_mixture
        )
        return logits, mean, log_std, reward[..., 0], done_logit[..., 0]

    def dropout_mask(self, batch: Any) -> tf.Tensor:
        """A training mask [B, 1, H], the same at all times: 0 or 1 / (1 - dropout)."""

        def draw(rows: Any) -> tf.Tensor:
            return keras.random.uniform([rows, 1, self.hidden_size], seed=self.seed_generator)

        kept = devices.rows_of_batch(draw, batch) >= self.dropout
        return tf.cast(kept, tf.float32) / (1.0 - self.dropout)

    def call(self, inputs: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Predictions for sequences, from the zero state: the fields of `MemoryStep` by name."""
        latent, action = inputs["latent"], inputs["action"]
        mask = self.dropout_mask(tf.shape(latent)[0]) if training and self.dropout else None
        small = self.hidden_size < _SMALLEST_FOR_BFLOAT16
        xla = training and (small or self.compute_dtype == "float32")
        return self.unroll(latent, action, mask=mask, xla=xla)._asdict()

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """NLL per latent dimension + weighted losses of reward and end, over the unmasked steps."""
        mask, latent_mask = y["mask"], y["latent_mask"]
        log_prob = mixture.log_prob(
            y["next_latent"], y_pred["logits"], y_pred["mean"], y_pred["log_std"]
        )
        nll = devices.mean_over_batch(-tf.reduce_mean(log_prob, -1), latent_mask)
        reward_error = devices.mean_over_batch(tf.square(y["reward"] - y_pred["reward"]), mask)
        cross_entropy = tf.nn.weighted_cross_entropy_with_logits(
            y["done"], y_pred["done_logit"], self.done_positive_weight
        )
        done_loss = devices.mean_over_batch(cross_entropy, mask)
        for name, value in (("nll", nll), ("reward_error", reward_error), ("done_loss", done_loss)):
            self.head_metrics[name].update_state(value)
        loss = nll + self.reward_weight * reward_error + self.done_weight * done_loss
        return loss / devices.count()

    def get_config(self) -> dict[str, Any]:
        names = (
            "latent_size", "action_size", "hidden_size", "mixtures", "dropout", "reward_weight",
            "done_weight", "done_positive_weight", "seed",
        )  # fmt: skip
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
