"""The LSTM of M: one step, and a sequence of steps with its gradient written out.

TensorFlow's gradient of a loop keeps every intermediate result of every step and adds up the
kernel's gradient step by step. Here the loop forwards keeps h, c and the gates, from which all that
the way back needs follows without a product; the gradients of kernel and bias are one product each
over all steps, and the loop backwards holds what truly goes from step to step: one product and a
few multiplications.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def cell(gates: Any, c: Any) -> tuple[Any, Any]:
    """(h_{t+1}, c_{t+1}) from the gates' values [B, 4 H] and c_t [B, H]."""
    h, c, *_ = _open_cell(gates, c)
    return h, c


def _open_cell(gates: Any, c: Any) -> tuple[Any, ...]:
    """(h_{t+1}, c_{t+1}) and what the gates i, f, g, o are open, all [B, H]."""
    i, f, g, o = tf.split(gates, 4, -1)
    i, f, g, o = tf.sigmoid(i), tf.sigmoid(f + 1.0), tf.tanh(g), tf.sigmoid(o)
    c = f * c + i * g
    return o * tf.tanh(c), c, i, f, g, o


def product(x: Any, kernel: Any, dtype: str) -> tf.Tensor:
    """x [..., N] times kernel [N, M], computed in a type and returned in that of x."""
    return tf.cast(tf.tensordot(tf.cast(x, dtype), tf.cast(kernel, dtype), 1), x.dtype)


def unroll(
    inputs: Any, kernel: Any, bias: Any, h: Any, c: Any, dtype: str, xla: bool = False
) -> tuple[Any, Any]:
    """All steps of a sequence.

    Args:
      inputs: [T, B, N].
      kernel: of inputs and h, [N + H, 4 H].
      bias: [4 H].
      h, c: the state before the first step, [B, H].
      dtype: of the matrix products alone.
      xla: compile both loops with it, once for each shape. Their own products, of h, are then of
        h's type: XLA does not know a CPU's bfloat16 ones.

    Returns:
      h and c after each step, [T, B, H].
    """
    forwards = _xla_forwards if xla else _forwards
    backwards = _xla_backwards if xla else _backwards
    inner = h.dtype.name if xla else dtype
    rows, columns = kernel.shape

    @tf.custom_gradient
    def steps(*given: Any) -> Any:
        # Called eagerly, a tape would differentiate what is done here, too.
        inputs, kernel, bias, h, c = map(tf.stop_gradient, given)
        of_inputs, of_h = tf.split(kernel, [rows - h.shape[-1], h.shape[-1]])
        low = tf.cast(of_h, inner)
        hs, cs, *gates = forwards(product(inputs, of_inputs, dtype) + bias, low, h, c, inner)

        def gradient(dhs: Any, dcs: Any) -> tuple[Any, Any, Any, Any, Any]:
            h_before, c_before = tf.concat([h[None], hs[:-1]], 0), tf.concat([c[None], cs[:-1]], 0)
            dgates, dh, dc = backwards(gates, tf.transpose(low), c_before, cs, dhs, dcs, inner)
            flat = tf.reshape(dgates, [-1, columns])
            seen = tf.reshape(tf.concat([inputs, h_before], -1), [-1, rows])
            dkernel = product(tf.transpose(seen), flat, dtype)
            dbias = (tf.ones([1, tf.shape(flat)[0]], flat.dtype) @ flat)[0]  # faster than a sum
            return product(dgates, tf.transpose(of_inputs), dtype), dkernel, dbias, dh, dc

        return (hs, cs), gradient

    return steps(inputs, tf.convert_to_tensor(kernel), tf.convert_to_tensor(bias), h, c)


def _forwards(projected: Any, kernel: Any, h: Any, c: Any, dtype: str) -> Any:
    """h, c and what the gates i, f, g and o were open after each step, [T, B, H] each."""
    return tf.scan(
        lambda state, x: _open_cell(x + product(state[0], kernel, dtype), state[1]),
        projected,
        (h, c, *[tf.zeros_like(h)] * 4),
    )


def _backwards(
    gates: Any, transposed: Any, c_before: Any, c_after: Any, dhs: Any, dcs: Any, dtype: str
) -> tuple[Any, Any, Any]:
    """Gradients of the gates' values [T, B, 4 H] and of the first h and c, [B, H].

    `gates` is what i, f, g and o were open, [T, B, H] each.
    """

    def step(state: Any, t: Any) -> Any:
        _, dh, dc = state
        i, f, g, o, before, after, dh_t, dc_t = t
        seen = tf.tanh(after)
        dh += dh_t
        dc += dc_t + dh * o * (1.0 - tf.square(seen))
        dgates = tf.concat(
            [
                dc * g * i * (1.0 - i),
                dc * before * f * (1.0 - f),
                dc * i * (1.0 - tf.square(g)),
                dh * seen * o * (1.0 - o),
            ],
            -1,
        )
        return dgates, product(dgates, transposed, dtype), dc * f

    zeros = tf.zeros_like(dhs[0])
    dgates, dh, dc = tf.scan(
        step,
        (*gates, c_before, c_after, dhs, dcs),
        (tf.concat([zeros] * 4, -1), zeros, zeros),
        reverse=True,
    )
    return dgates, dh[0], dc[0]


_xla_forwards = tf.function(_forwards, jit_compile=True, autograph=False)
_xla_backwards = tf.function(_backwards, jit_compile=True, autograph=False)
