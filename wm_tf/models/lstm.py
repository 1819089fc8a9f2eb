"""The LSTM of M: one step, and a sequence of steps with its gradient written out.

TensorFlow's gradient of a loop keeps every intermediate result of every step and adds up the
kernel's gradient step by step. Here the loop forwards keeps h and c alone; backwards the gates of
all steps come from one matrix product, the kernel's gradient from another, and the loop holds what
truly goes from step to step: one product and a few multiplications.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def cell(gates: Any, c: Any) -> tuple[Any, Any]:
    """(h_{t+1}, c_{t+1}) from the gates' values [B, 4 H] and c_t [B, H]."""
    i, f, g, o = tf.split(gates, 4, -1)
    c = tf.sigmoid(f + 1.0) * c + tf.sigmoid(i) * tf.tanh(g)
    return tf.sigmoid(o) * tf.tanh(c), c


def product(x: Any, kernel: Any, dtype: str) -> tf.Tensor:
    """x [..., N] times kernel [N, M], computed in a type and returned in that of x."""
    return tf.cast(tf.tensordot(tf.cast(x, dtype), tf.cast(kernel, dtype), 1), x.dtype)


def unroll(projected: Any, kernel: Any, h: Any, c: Any, dtype: str) -> tuple[Any, Any]:
    """All steps of a sequence.

    Args:
      projected: what the inputs add to the gates, [T, B, 4 H].
      kernel: of h, [H, 4 H].
      h, c: the state before the first step, [B, H].
      dtype: of the matrix products alone.

    Returns:
      h and c after each step, [T, B, H].
    """

    @tf.custom_gradient
    def steps(projected: Any, kernel: Any, h: Any, c: Any) -> Any:
        low = tf.cast(kernel, dtype)
        hs, cs = tf.scan(
            lambda state, x: cell(x + product(state[0], low, dtype), state[1]), projected, (h, c)
        )

        def gradient(dhs: Any, dcs: Any) -> tuple[Any, Any, Any, Any]:
            h_before, c_before = tf.concat([h[None], hs[:-1]], 0), tf.concat([c[None], cs[:-1]], 0)
            gates = projected + product(h_before, kernel, dtype)
            dgates, dh, dc = _backwards(gates, tf.transpose(low), c_before, cs, dhs, dcs, dtype)
            rows = tf.reshape(h_before, [-1, kernel.shape[0]])
            columns = tf.reshape(dgates, [-1, kernel.shape[1]])
            return dgates, product(tf.transpose(rows), columns, dtype), dh, dc

        return (hs, cs), gradient

    return steps(projected, tf.convert_to_tensor(kernel), h, c)


def _backwards(
    gates: Any, transposed: Any, c_before: Any, c_after: Any, dhs: Any, dcs: Any, dtype: str
) -> tuple[Any, Any, Any]:
    """Gradients of the gates' values [T, B, 4 H] and of the first h and c, [B, H]."""
    i, f, g, o = tf.split(gates, 4, -1)
    i, f, g, o = tf.sigmoid(i), tf.sigmoid(f + 1.0), tf.tanh(g), tf.sigmoid(o)
    seen = tf.tanh(c_after)
    # Of h by c, and of c (for o: of h) by the gates' values.
    c_seen = o * (1.0 - tf.square(seen))
    slopes = tf.concat(
        [g * i * (1.0 - i), c_before * f * (1.0 - f), i * (1.0 - tf.square(g)), seen * o * (1 - o)],
        -1,
    )

    def step(state: Any, t: Any) -> Any:
        _, dh, dc = state
        slope, forget, by_c, dh_t, dc_t = t
        dh += dh_t
        dc += dc_t + dh * by_c
        dgates = tf.concat([dc, dc, dc, dh], -1) * slope
        return dgates, product(dgates, transposed, dtype), dc * forget

    zeros = tf.zeros_like(dhs[0])
    dgates, dh, dc = tf.scan(
        step,
        (slopes, f, c_seen, dhs, dcs),
        (tf.zeros_like(gates[0]), zeros, zeros),
        reverse=True,
    )
    return dgates, dh[0], dc[0]
