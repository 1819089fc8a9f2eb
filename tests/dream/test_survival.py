"""Dreams under the random policy."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from wm_tf.config import get_task
from wm_tf.dream.survival import RandomDreams, random_dreams
from wm_tf.dream.world import Dream
from wm_tf.envs import task_module
from wm_tf.seeding import Purpose, sequence
from wm_tf.serving.load import Models
from wm_tf.serving.manifest import EndRule

TASK = get_task("car_racing")


def test_a_dream_lasts_until_its_first_end() -> None:
    probability = np.array([[0.1, 0.6, 0.7], [0.1, 0.2, 0.3], [0.9, 0.1, 0.1]])
    uniform = np.array([[0.05, 0.9, 0.9], [0.5, 0.5, 0.1], [0.95, 0.5, 0.5]])
    dreams = RandomDreams(np.ones((3, 3)), probability, uniform)
    assert dreams.lengths(EndRule("threshold", 0.5)).tolist() == [2, 3, 1]
    assert dreams.lengths(EndRule("sampled")).tolist() == [1, 3, 3]
    assert dreams.lengths(EndRule("never")).tolist() == [3, 3, 3]
    # Odds divided by 3: 0.6 becomes 1/3, 0.7 becomes 7/16, 0.9 becomes 3/4.
    assert dreams.lengths(EndRule("threshold", 0.5, 3.0)).tolist() == [3, 3, 1]


def test_random_dreams_are_those_of_the_dream(keras_models: dict[str, Any], models: Models) -> None:
    starts = keras_models["initial_latents"]

    def dreams(temperature: float, seed: int = 3) -> RandomDreams:
        return random_dreams(
            TASK, keras_models["memory"], starts, episodes=5,
            streams=[sequence(seed, Purpose.EVALUATION, 0)], temperature=temperature, steps=20,
        )  # fmt: skip

    once = dreams(1.0)
    assert once.reward.shape == once.done_probability.shape == once.uniform.shape == (5, 20)
    np.testing.assert_array_equal(once.reward, dreams(1.0).reward)
    assert not np.allclose(once.reward, dreams(1.0, seed=4).reward)
    assert not np.allclose(once.reward, dreams(2.0).reward)
    # The first step of the same start under the same action, by the exported model.
    random = np.random.default_rng(sequence(3, Purpose.EVALUATION, 0))
    latent, h, c = starts.sample(random, 32, TASK.hidden_size)
    first = next(task_module("car_racing").random_policy(random))
    state = Dream(models).initial(np.random.default_rng(0), 1)
    state = dataclasses.replace(state, latent=latent[:1], h=h[:1], c=c[:1])
    step = Dream(models).step(state, first[np.newaxis], temperature=1.0)
    assert once.reward[0, 0] == pytest.approx(float(step.reward[0]), abs=1e-5)
    assert once.done_probability[0, 0] == pytest.approx(float(step.done_probability[0]), abs=1e-5)
