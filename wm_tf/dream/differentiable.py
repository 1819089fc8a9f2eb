"""The dream as a differentiable function of its actions.

With the noise held fixed, a step's sample is mean_k + sqrt(tau) std_k normal in every latent
dimension (Kingma & Welling 2014), so that rewards have gradients with respect to whatever the
actions depend on: the actions themselves, a controller's parameters, a plan.

    vision, memory, controller = load_keras("saved_models", "car_racing")
    start = Dream(load("saved_models", "car_racing")).initial(np.random.default_rng(1), batch=8)
    with tf.GradientTape() as tape:
        dreamt = rollout(memory, start, controller.act, steps=50)
        value = tf.reduce_mean(tf.reduce_sum(dreamt.reward, -1))
    gradient = tape.gradient(value, controller.parameters)

Which component k is chosen is not differentiable: the gradient takes it for given. It is exact up
to the next change of a component, and knows nothing of what lies behind that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from wm_tf.dream.world import DreamState, checked_temperature
from wm_tf.models import Memory, mixture

Policy = Callable[[Any, Any, Any], Any]
"""From latent [B, Z] and M's state h, c [B, H] to actions [B, A], such as `Controller.act`."""


class DreamRollout(NamedTuple):
    """T steps of B dreams, which go on whether or not they would have ended."""

    reward: tf.Tensor  # of each action, [B, T]
    done_probability: tf.Tensor  # as the end head was trained, [B, T]
    action: tf.Tensor  # [B, T, A]
    latent: tf.Tensor  # what each action led to, [B, T, Z]


def rollout(
    memory: Memory,
    start: DreamState,
    actions: Any | Policy,
    *,
    steps: int | None = None,
    temperature: float = 1.0,
) -> DreamRollout:
    """Dreams on from `start`, as `Dream.step` does with the same seed; see the module's docstring.

    Args:
      memory: M, from `wm_tf.serving.load.load_keras`.
      start: B rows, from `Dream.initial`; it fixes the noise of every step.
      actions: [B, T, A] in the task's ranges, or a policy that chooses them.
      steps: T, for a policy.
      temperature: greater than 0.

    Raises:
      ValueError: actions of another shape, or a policy without a number of steps.
    """
    dtype = memory.variable_dtype
    latent, h, c = (tf.convert_to_tensor(part, dtype) for part in (start.latent, start.h, start.c))
    tau = tf.constant(checked_temperature(temperature), dtype)
    choose, steps = _policy(actions, steps, [latent.shape[0], memory.action_size], dtype)

    def step(before: tuple[Any, ...], t: Any) -> tuple[Any, ...]:
        latent, h, c, *_ = before
        action = choose(t, latent, h, c)
        result = memory.step(latent, action, h, c)
        noise = mixture.noise(tf.stack([start.seed, start.step + t]), tf.shape(latent))
        uniform, normal = (tf.cast(part, dtype) for part in noise)
        latent = mixture.sample(result.logits, result.mean, result.log_std, tau, uniform, normal)
        done_probability = tf.sigmoid(result.done_logit)
        return latent, result.h, result.c, action, result.reward, done_probability

    nothing = tf.zeros_like(latent[:, 0])  # [B]
    no_action = tf.zeros([latent.shape[0], memory.action_size], dtype)
    dreamt = tf.scan(step, tf.range(steps), (latent, h, c, no_action, nothing, nothing))
    latents, _, _, chosen, reward, done_probability = dreamt  # [T, B, ...] each
    return DreamRollout(
        reward=tf.transpose(reward),
        done_probability=tf.transpose(done_probability),
        action=tf.transpose(chosen, [1, 0, 2]),
        latent=tf.transpose(latents, [1, 0, 2]),
    )


def _policy(
    actions: Any | Policy, steps: int | None, shape: list[int], dtype: str
) -> tuple[Callable[..., Any], int]:
    """(actions [B, A] as a function of t, latent, h and c; T), for actions of `shape` [B, A]."""
    if callable(actions):
        if steps is None or steps < 1:
            raise ValueError(f"steps: expected at least 1 for a policy, got {steps}")
        return lambda t, latent, h, c: actions(latent, h, c), steps
    plan = tf.convert_to_tensor(actions, dtype)
    if plan.shape.rank != 3 or [plan.shape[0], plan.shape[2]] != shape:
        rows, size = shape
        raise ValueError(f"actions: expected [{rows}, T, {size}], got {plan.shape.as_list()}")
    return lambda t, latent, h, c: plan[:, t], plan.shape[1]
