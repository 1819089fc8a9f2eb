"""The dream as pure functions of an explicit state."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from wm_tf.dream.world import Dream, DreamState, checked_temperature, without_weight
from wm_tf.errors import UserError
from wm_tf.serving.initial import InitialLatents
from wm_tf.serving.load import Models

ACTION = np.array([[0.3, 0.5, 0.0]], np.float32)


@pytest.fixture
def dream(models: Models) -> Dream:
    return Dream(models)


def with_end(models: Models, **end: Any) -> Dream:
    return Dream(dataclasses.replace(models, manifest={**models.manifest, "end": end}))


def test_a_state_can_be_returned_to(dream: Dream) -> None:
    state = dream.initial(np.random.default_rng(1), batch=1)
    kept = dataclasses.replace(state, latent=state.latent.copy())
    first = dream.step(state, ACTION, 1.0)
    dream.step(first.state, ACTION, 1.0)
    again = dream.step(kept, ACTION, 1.0)
    np.testing.assert_array_equal(first.state.latent, again.state.latent)
    np.testing.assert_array_equal(first.reward, again.reward)
    assert (first.state.seed, first.state.step) == (state.seed, 1)


def test_the_noise_of_a_step_is_that_of_seed_and_step(dream: Dream, models: Models) -> None:
    state = dataclasses.replace(dream.initial(np.random.default_rng(1)), seed=77, step=5)
    expected = models.dream(state.latent, ACTION, state.h, state.c, 1.2, (77, 5))
    stepped = dream.step(state, ACTION, 1.2)
    np.testing.assert_array_equal(stepped.state.latent, expected["latent"])
    np.testing.assert_array_equal(stepped.done_probability, expected["done_probability"])
    other = dream.step(dataclasses.replace(state, step=6), ACTION, 1.2)
    assert not np.allclose(stepped.state.latent, other.state.latent)
    np.testing.assert_array_equal(stepped.state.h, other.state.h)  # noise is in the sample alone


def test_the_step_counter_stays_an_int32(dream: Dream) -> None:
    state = dataclasses.replace(dream.initial(np.random.default_rng(1)), step=2**31 - 1)
    assert dream.step(state, ACTION, 1.0).state.step == 0


def test_starts_are_samples_of_the_stored_moments(models: Models) -> None:
    mean = np.stack([np.full(32, -5.0), np.full(32, 5.0)]).astype(np.float32)
    log_variance = np.full((2, 32), np.log(0.25), np.float32)
    starts = InitialLatents(mean, log_variance)
    dream = Dream(dataclasses.replace(models, initial_latents=starts))
    state = dream.initial(np.random.default_rng(1), batch=400)
    assert state.latent.dtype == np.float32
    side = np.sign(state.latent[:, :1])
    assert 0.4 < np.mean(side > 0) < 0.6
    centred = state.latent - 5.0 * side
    assert abs(centred.mean()) < 0.02  # 12,800 values of standard deviation 0.5: four errors
    assert abs(centred.std() - 0.5) < 0.02
    assert not state.h.any()
    assert not state.c.any()
    assert state.step == 0


def test_later_moments_start_with_their_state(models: Models) -> None:
    marks = np.arange(3, dtype=np.float32)[:, np.newaxis]
    starts = InitialLatents(
        mean=np.repeat(marks, 32, 1),
        log_variance=np.full((3, 32), -300.0, np.float32),  # exp(-150) is 0 in float32
        h=np.repeat(marks + 10, 256, 1),
        c=np.repeat(marks + 20, 256, 1),
    )
    dream = Dream(dataclasses.replace(models, initial_latents=starts))
    state = dream.initial(np.random.default_rng(1), batch=50)
    assert set(state.latent[:, 0].tolist()) == {0.0, 1.0, 2.0}
    np.testing.assert_array_equal(state.h[:, 0], state.latent[:, 0] + 10)
    np.testing.assert_array_equal(state.c[:, 0], state.latent[:, 0] + 20)


def test_the_seed_can_be_given(dream: Dream) -> None:
    assert dream.initial(np.random.default_rng(1), seed=9).seed == 9
    drawn = {dream.initial(np.random.default_rng(index)).seed for index in range(5)}
    assert len(drawn) == 5


def test_a_weighted_loss_is_taken_out_of_the_odds() -> None:
    true = np.array([0.001, 0.1, 0.5, 1.0])
    trained = 10 * true / (10 * true + 1 - true)  # what cross entropy with positives x 10 learns
    np.testing.assert_allclose(without_weight(trained, 10.0), true)
    np.testing.assert_array_equal(without_weight(np.array([0.0, 0.3, 1.0]), 1.0), [0.0, 0.3, 1.0])


def test_the_end_follows_the_manifests_rule(models: Models) -> None:
    probability = np.array([0.0, 0.4, 0.6, 1.0], np.float32)
    uniform = np.array([0.0, 0.5, 0.5, 0.999])
    never = with_end(models, rule="never", value=None)
    assert never.terminated(probability, uniform).tolist() == [False] * 4
    threshold = with_end(models, rule="threshold", value=0.5)
    assert threshold.terminated(probability, uniform).tolist() == [False, False, True, True]
    weighted = with_end(models, rule="threshold", value=0.5, odds_correction=10.0)
    assert weighted.terminated(probability, uniform).tolist() == [False, False, False, True]
    sampled = with_end(models, rule="sampled", value=None)
    assert sampled.terminated(probability, uniform).tolist() == [False, False, True, True]
    rare = with_end(models, rule="sampled", value=None, odds_correction=10.0)
    assert rare.terminated(probability, uniform).tolist() == [False, False, False, True]


def test_the_frame_is_the_decoded_latent_in_grey_levels(dream: Dream, models: Models) -> None:
    state = dream.initial(np.random.default_rng(1), batch=3)
    frame = dream.frame(state)
    assert (frame.shape, frame.dtype) == ((3, 64, 64, 3), np.uint8)
    assert np.abs(frame / 255.0 - models.decode(state.latent)).max() <= 0.5 / 255 + 1e-6


def test_rows_dream_as_they_would_alone(dream: Dream) -> None:
    """Row 0's noise does not depend on how many rows follow it."""
    many = dream.initial(np.random.default_rng(1), batch=8)
    alone = DreamState(many.latent[:1], many.h[:1], many.c[:1], many.seed, many.step)
    for _ in range(5):
        many = dream.step(many, np.repeat(ACTION, 8, 0), 1.0).state
        alone = dream.step(alone, ACTION, 1.0).state
    # Another batch size sums in another order.
    np.testing.assert_allclose(alone.latent[0], many.latent[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf"), 1e39, 1e-300])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    with pytest.raises(UserError, match="temperature: expected a number greater than 0, got"):
        checked_temperature(temperature)
