"""Gradients through the dream against finite differences, and the dream against M's steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from wm_tf.config import get_task
from wm_tf.dream import rollout
from wm_tf.dream.world import Dream, DreamState
from wm_tf.errors import UserError
from wm_tf.models import Memory, controller
from wm_tf.serving.load import Models

Z, A, H, K = 4, 3, 6, 3
ROWS, STEPS = 2, 6
TASK = replace(get_task("car_racing"), latent_size=Z, hidden_size=H, mixtures=K)


@pytest.fixture(scope="module")
def memory() -> Memory:
    """A small M in float64, whose every output depends strongly on every input."""
    model = Memory(Z, A, H, K, dtype="float64")
    generator = np.random.default_rng(1)
    model.set_weights([generator.normal(0.0, 0.6, weight.shape) for weight in model.weights[:4]])
    return model


def start(seed: int = 3, rows: int = ROWS) -> DreamState:
    generator = np.random.default_rng(2)
    latent, h, c = (generator.normal(0.0, 0.5, (rows, size)) for size in (Z, H, H))
    return DreamState(latent, h, c, seed=seed, step=5)


def plan() -> np.ndarray:
    return np.random.default_rng(4).uniform(0.1, 0.9, (ROWS, STEPS, A))


def parameters() -> np.ndarray:
    return np.random.default_rng(5).normal(0.0, 0.5, TASK.controller_parameters)


def test_a_memory_trained_in_bfloat16_dreams_in_float32() -> None:
    exact, trained = Memory(Z, A, H, K), Memory(Z, A, H, K, dtype="mixed_bfloat16")
    trained.set_weights(exact.get_weights())
    state = start()
    parts = {name: getattr(state, name).astype(np.float32) for name in ("latent", "h", "c")}
    first = replace(state, **parts)
    actions = plan().astype(np.float32)
    dreamt = rollout(trained, first, actions)
    assert dreamt.latent.dtype == dreamt.reward.dtype == tf.float32
    np.testing.assert_allclose(dreamt.reward, rollout(exact, first, actions).reward, atol=0.1)


def discounted(reward: Any) -> tf.Tensor:
    """A value in which every row and step has another weight."""
    weights = np.random.default_rng(6).uniform(0.5, 1.5, (ROWS, STEPS))
    return tf.reduce_sum(reward * weights)


def value_of_actions(memory: Memory, actions: Any) -> tf.Tensor:
    return discounted(rollout(memory, start(), actions, temperature=1.3).reward)


def value_of_controller(memory: Memory, flat: Any) -> tf.Tensor:
    def act(latent: Any, h: Any, c: Any) -> tf.Tensor:
        return controller.act(TASK, flat, controller.features(TASK, latent, h, c))

    return discounted(rollout(memory, start(), act, steps=STEPS, temperature=1.3).reward)


Value = Callable[[Memory, Any], tf.Tensor]
CASES = [(value_of_actions, plan()), (value_of_controller, parameters())]


@pytest.mark.parametrize(("value", "at"), CASES)
def test_gradients_are_those_of_finite_differences(
    memory: Memory, value: Value, at: np.ndarray
) -> None:
    point = tf.constant(at)
    with tf.GradientTape() as tape:
        tape.watch(point)
        result = value(memory, point)
    gradient = tape.gradient(result, point).numpy()
    compiled = tf.function(lambda point: value(memory, point))
    # In float64 with a central difference of 1e-5 the error is some 1e-10 (its square) plus 1e-11
    # (rounding over it). A change of component within 1e-5 would show as a jump of 1 / 1e-5.
    step = 1e-5
    for place in np.ndindex(at.shape):
        offset = np.zeros(at.shape)
        offset[place] = step
        difference = compiled(at + offset) - compiled(at - offset)
        np.testing.assert_allclose(gradient[place], difference / (2 * step), rtol=1e-6, atol=1e-8)
    assert (np.abs(gradient) > 1e-4).mean() > 0.9


def test_an_action_is_felt_through_the_sampled_latent(memory: Memory) -> None:
    """With M's own state cut off from its input, only z carries an action to later rewards."""
    kernel, bias, output_kernel, output_bias = (weight.numpy() for weight in memory.weights[:4])
    kernel = kernel.copy()
    kernel[Z + A :] = 0.0  # h is not read
    forgetful = Memory(Z, A, H, K, dtype="float64")
    bias = bias.copy()
    bias[H : 2 * H] = -60.0  # sigmoid(f + 1) is 0: nor is c
    forgetful.set_weights([kernel, bias, output_kernel, output_bias])
    point = tf.constant(plan())
    with tf.GradientTape() as tape:
        tape.watch(point)
        last = tf.reduce_sum(rollout(forgetful, start(), point).reward[:, -1])
    gradient = tape.gradient(last, point).numpy()
    assert (np.abs(gradient[:, -2]) > 1e-6).all()


def test_it_dreams_what_the_saved_models_dream(
    models: Models, keras_models: dict[str, Any]
) -> None:
    dream = Dream(models)
    state = dream.initial(np.random.default_rng(1), batch=3)
    act = keras_models["controller"].act
    dreamt = rollout(keras_models["memory"], state, act, steps=6, temperature=1.2)
    for t in range(6):
        action = models.act(state.latent, state.h, state.c)
        state, reward, done_probability = dream.step(state, action, temperature=1.2)
        for name, expected in (
            ("action", action), ("reward", reward), ("latent", state.latent),
            ("done_probability", done_probability),
        ):  # fmt: skip
            actual = getattr(dreamt, name)[:, t]
            # Float32 products of 291 terms in another order, repeated six times.
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"actions": np.zeros((2, 5))}, ValueError, r"actions: expected \[2, T, 3\], got \[2, 5\]"),
        ({"actions": np.zeros((1, 5, 3))}, ValueError, r"got \[1, 5, 3\]"),
        ({"actions": lambda *_: None}, ValueError, "steps: expected at least 1 for a policy"),
        ({"actions": plan(), "temperature": 0.0}, UserError, "greater than 0, got 0"),
    ],
)
def test_what_does_not_fit_is_refused(
    memory: Memory, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        rollout(memory, start(), **arguments)
