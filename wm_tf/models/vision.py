"""V: the paper's convolutional variational autoencoder (Ha & Schmidhuber 2018, appendix A.1).

    frame [B, 64, 64, 3] -> mean, log_variance [B, Z] -> latent ~ N(mean, exp(log_variance))
    latent [B, Z] -> frame [B, 64, 64, 3] in [0, 1]

The loss of a frame is its squared error summed over pixels and channels, plus its KL divergence
from N(0, I), which is not pushed below ``kl_tolerance * Z`` nats. 4,348,547 parameters at Z = 32.

Not of the paper: with an ``emphasis`` the error of what stands out counts more. A fireball of a few
pixels decides a game of take_cover and is a tenth of a frame's squared error; walls are the rest.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from wm_tf.config import FRAME_SIZE
from wm_tf.models import devices

_ENCODER_CHANNELS = (32, 64, 128, 256)
_DECODER_CHANNELS_AND_KERNELS = ((128, 5), (64, 5), (32, 6), (3, 6))
_DECODER_WIDTH = 1024
_SMALLEST_FOR_PHASES = 20
"""Height or width from which a transposed convolution gains by being computed in phases."""


@keras.saving.register_keras_serializable("wm_tf")
class PatchConv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` without padding, for outputs of few pixels: one product of patches.

    On V's last layer, 2 x 2 pixels of 256 channels, it takes 0.4 times as long on a CPU.
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        (rows, columns), (down, right) = self.kernel_size, self.strides
        _, height, width, _ = self.compute_output_shape(inputs.shape)
        patches = [
            tf.slice(inputs, [0, top, left, 0], [-1, rows, columns, -1])  # its gradient is fast
            for top in range(0, height * down, down)
            for left in range(0, width * right, right)
        ]
        size = rows * columns * inputs.shape[-1]
        stacked = tf.stack([tf.reshape(patch, [-1, size]) for patch in patches], 1)
        product = tf.matmul(tf.reshape(stacked, [-1, size]), tf.reshape(kernel, [size, -1]))
        return tf.reshape(product, [-1, height, width, self.filters])


@keras.saving.register_keras_serializable("wm_tf")
class SubpixelConv2DTranspose(keras.layers.Layer):
    """`keras.layers.Conv2DTranspose` with stride 2 and no padding, computed faster on a CPU.

    Output pixel 2 i + p of phase p in {0, 1} depends on the kernel's taps p, p + 2, p + 4 alone, so
    the layer is one ordinary convolution of ceil(k / 2) taps that gives the four phases as
    channels, and a rearrangement of depth to space: three times as fast for large images of few
    channels. On small images the padding costs more than it gains, and TensorFlow's own transposed
    convolution is used; an input of one pixel is one matrix product.
    Weights have the names and shapes of Conv2DTranspose: kernel [k, k, filters, C], bias [filters].
    """

    def __init__(self, filters: int, kernel_size: int, activation: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: tuple[int, ...]) -> None:
        size = self.kernel_size
        self.kernel = self.add_weight(
            name="kernel",
            shape=(size, size, self.filters, input_shape[-1]),
            initializer="glorot_uniform",
        )
        self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")

    def call(self, inputs: Any) -> Any:
        kernel = tf.cast(self.kernel, self.compute_dtype)
        height, width = inputs.shape[1:3]
        if height * width == 1:
            output = self._from_one_pixel(inputs, kernel)
        elif min(height, width) < _SMALLEST_FOR_PHASES:
            shape = [tf.shape(inputs)[0], *_output_size(inputs, self.kernel_size), self.filters]
            output = tf.nn.conv2d_transpose(inputs, kernel, shape, 2, "VALID")
        else:
            output = convolve_phases(inputs, phase_kernel(kernel), self.kernel_size)
        return self.activation(output + tf.cast(self.bias, self.compute_dtype))

    def _from_one_pixel(self, inputs: Any, kernel: Any) -> Any:
        size, filters = self.kernel_size, self.filters
        flat = tf.reshape(kernel, [size * size * filters, inputs.shape[-1]])
        product = tf.matmul(inputs[:, 0, 0], flat, transpose_b=True)
        return tf.reshape(product, [-1, size, size, filters])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "activation": keras.activations.serialize(self.activation),
        }


def phase_kernel(kernel: Any) -> tf.Tensor:
    """Conv2DTranspose's kernel [k, k, F, C] as that of its phases, [t, t, C, 4 F], t = ceil(k / 2).

    Output pixel 2 i + p depends on the taps p, p + 2, p + 4 of phase p; a convolution reads them
    backwards.
    """
    size, _, filters, channels = kernel.shape
    taps = (size + 1) // 2
    padding = [0, 2 * taps - size]
    padded = tf.pad(kernel, [padding, padding, [0, 0], [0, 0]])
    phases = tf.reshape(padded, [taps, 2, taps, 2, filters, channels])[::-1, :, ::-1]
    phases = tf.transpose(phases, [0, 2, 5, 1, 3, 4])
    return tf.reshape(phases, [taps, taps, channels, 4 * filters])


def convolve_phases(pixels: Any, kernel: Any, size: int) -> tf.Tensor:
    """The transposed convolution of stride 2, no padding and kernel size `size`, without bias.

    Args:
      pixels: [B, H, W, C].
      kernel: from `phase_kernel`.
      size: of the transposed convolution's kernel.

    Returns:
      [B, 2 (H - 1) + size, 2 (W - 1) + size, F].
    """
    margin = [kernel.shape[0] - 1] * 2
    padded = tf.pad(pixels, [[0, 0], margin, margin, [0, 0]])
    output = tf.nn.depth_to_space(tf.nn.conv2d(padded, kernel, 1, "VALID"), 2)
    height, width = _output_size(pixels, size)
    return output[:, :height, :width]


def _output_size(pixels: Any, size: int) -> tuple[int, int]:
    height, width = (2 * (side - 1) + size for side in pixels.shape[1:3])
    return height, width


@keras.saving.register_keras_serializable("wm_tf")
class Vision(keras.Model):
    """The variational autoencoder; `fit` takes batches of frames, uint8 [B, 64, 64, 3].

    Args:
      latent_size: Z.
      kl_tolerance: free nats per latent dimension.
      emphasis: a pixel's squared error counts 1 + emphasis * d times in the loss, where d is the
        mean over its channels of the squared difference from the batch's mean frame.
      seed: of the latent samples drawn in training.
    """

    def __init__(
        self,
        latent_size: int = 32,
        kl_tolerance: float = 0.5,
        emphasis: float = 0.0,
        seed: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.latent_size = latent_size
        self.kl_tolerance = kl_tolerance
        self.emphasis = emphasis
        self.seed = seed
        policy = self.dtype_policy
        self.encoder = keras.Sequential(
            [
                keras.Input((FRAME_SIZE, FRAME_SIZE, 3)),
                *(
                    keras.layers.Conv2D(channels, 4, 2, activation="relu", dtype=policy)
                    for channels in _ENCODER_CHANNELS[:-1]
                ),
                self.last_convolution(_ENCODER_CHANNELS[-1]),
                keras.layers.Flatten(dtype=policy),
            ],
            name="encoder",
        )
        # Moments, latent and frame are float32 whatever the convolutions compute in.
        self.mean_head = keras.layers.Dense(latent_size, name="mean", dtype="float32")
        self.log_variance_head = keras.layers.Dense(
            latent_size, name="log_variance", dtype="float32"
        )
        last = len(_DECODER_CHANNELS_AND_KERNELS) - 1
        self.decoder = keras.Sequential(
            [
                keras.Input((latent_size,)),
                keras.layers.Dense(_DECODER_WIDTH, dtype=policy),
                keras.layers.Reshape((1, 1, _DECODER_WIDTH), dtype=policy),
                *(
                    self.transposed_convolution(
                        channels, size, "linear" if index == last else "relu"
                    )
                    for index, (channels, size) in enumerate(_DECODER_CHANNELS_AND_KERNELS)
                ),
                keras.layers.Activation("sigmoid", dtype="float32"),
            ],
            name="decoder",
        )
        self.mean_head.build((None, self.encoder.output_shape[-1]))
        self.log_variance_head.build((None, self.encoder.output_shape[-1]))
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.reconstruction_metric = keras.metrics.Mean(name="reconstruction")
        self.kl_metric = keras.metrics.Mean(name="kl")
        self.built = True

    def last_convolution(self, channels: int) -> keras.layers.Layer:
        """The encoder's last one: kernel 4, stride 2, no padding."""
        return PatchConv2D(channels, 4, 2, activation="relu", dtype=self.dtype_policy)

    def transposed_convolution(
        self, channels: int, size: int, activation: str
    ) -> keras.layers.Layer:
        """A layer of the decoder: stride 2, no padding."""
        return SubpixelConv2DTranspose(channels, size, activation, dtype=self.dtype_policy)

    def encode(self, frame: Any) -> tuple[Any, Any]:
        """Frames, uint8 [B, 64, 64, 3], to the latent's (mean, log_variance), each [B, Z]."""
        pixels = tf.cast(frame, self.compute_dtype) / 255.0
        features = tf.cast(self.encoder(pixels), tf.float32)
        return self.mean_head(features), self.log_variance_head(features)

    def decode(self, latent: Any) -> Any:
        """Latents [B, Z] to frames, float32 [B, 64, 64, 3] in [0, 1]."""
        return self.decoder(latent)

    def call(self, frame: Any, training: bool = False) -> dict[str, Any]:
        """Encodes, samples a latent (its mean when not training) and decodes it.

        Returns:
          ``mean``, ``log_variance``, ``latent`` [B, Z] and ``frame`` [B, 64, 64, 3].
        """
        mean, log_variance = self.encode(frame)
        latent = mean
        if training:
            normal = devices.rows_of_batch(self._normal, tf.shape(mean)[0])
            latent = mean + tf.exp(0.5 * log_variance) * normal
        return {
            "mean": mean,
            "log_variance": log_variance,
            "latent": latent,
            "frame": self.decode(latent),
        }

    def _normal(self, rows: Any) -> Any:
        return keras.random.normal([rows, self.latent_size], seed=self.seed_generator)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The batch's mean of squared error plus KL divergence; `y` and weights are not used."""
        target = tf.cast(x, tf.float32) / 255.0
        squares = tf.square(target - y_pred["frame"])
        squared_error = tf.reduce_sum(squares, [1, 2, 3])
        kl = kl_divergence(y_pred["mean"], y_pred["log_variance"])
        self.reconstruction_metric.update_state(squared_error)
        self.kl_metric.update_state(kl)
        loss = squared_error + tf.maximum(kl, self.kl_tolerance * self.latent_size)
        if self.emphasis:
            difference = tf.square(target - devices.mean_row(target))
            standing_out = tf.reduce_mean(difference, -1, keepdims=True)
            loss += self.emphasis * tf.reduce_sum(standing_out * squares, [1, 2, 3])
        return tf.reduce_mean(loss) / devices.count()

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "latent_size": self.latent_size,
            "kl_tolerance": self.kl_tolerance,
            "emphasis": self.emphasis,
            "seed": self.seed,
        }


def kl_divergence(mean: Any, log_variance: Any) -> Any:
    """KL(N(mean, exp(log_variance)) || N(0, I)) in nats: [..., Z] to [...]."""
    return -0.5 * tf.reduce_sum(1.0 + log_variance - tf.square(mean) - tf.exp(log_variance), -1)
