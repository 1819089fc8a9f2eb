"""The compiled population rollout against itself, a Python loop and the SavedModels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from wm_tf.config import Task, get_task
from wm_tf.dream import population
from wm_tf.dream.population import DreamReturns, PopulationRollout, Starts
from wm_tf.models import Memory, controller, mixture
from wm_tf.serving.load import Models
from wm_tf.serving.manifest import EndRule

TASK = get_task("car_racing")
NEVER = EndRule("never")
# Sums of up to 30 rewards of float32 products of 291 terms, in other orders.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module")
def memory(keras_models: dict[str, Any]) -> Memory:
    return keras_models["memory"]


def candidates(count: int, task: Task = TASK, hidden: int = 0) -> np.ndarray:
    return np.random.default_rng(1).normal(0.0, 0.3, (count, task.controller_size(hidden)))


def starts(count: int, task: Task = TASK) -> Starts:
    generator = np.random.default_rng(2)
    sizes = (task.latent_size, task.hidden_size, task.hidden_size)
    return Starts(*(generator.normal(0, 0.5, (count, n)).astype(np.float32) for n in sizes))


def median_threshold(memory: Memory) -> EndRule:
    """A rule by which some dreams end early and some late."""
    rewards: list[float] = []
    start = starts(4)
    latent, h, c = start.latent, start.h, start.c
    for _ in range(10):
        step = memory.step(latent, np.zeros((4, 3), np.float32), h, c)
        rewards += tf.sigmoid(step.done_logit).numpy().tolist()
        latent, h, c = mixture.moments(step.logits, step.mean, step.log_std)[0], step.h, step.c
    return EndRule("threshold", float(np.quantile(rewards, 0.9)))


def python_loop(
    memory: Memory,
    parameters: np.ndarray,
    start: Starts,
    *,
    seed: int,
    horizon: int,
    temperature: float = 1.0,
    mask: np.ndarray | None = None,
    end: EndRule = NEVER,
    patience: int = 0,
    goal: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """One candidate in R dreams, step by step: (returns, lengths), each [R].

    Where ends are sampled, their expectations.
    """
    count = len(start.latent)
    latent, h, c = start.latent, start.h, start.c
    total, length, alive = np.zeros(count), np.zeros(count), np.ones(count)
    unrewarded = np.zeros(count)
    for t in range(horizon):
        seen = controller.features(TASK, latent, h, c)
        action = controller.act(TASK, parameters.astype(np.float32), seen)
        step = memory.step(latent, action, h, c, mask)
        noise = mixture.noise([seed, t], (count, TASK.latent_size))
        latent = mixture.sample(step.logits, step.mean, step.log_std, temperature, *noise)
        h, c = step.h, step.c
        total += alive * step.reward.numpy()
        length += alive
        odds = np.exp(step.done_logit.numpy().astype(np.float64)) / end.odds_correction
        if end.rule == "threshold":
            alive *= odds / (1.0 + odds) <= end.value
        elif end.rule == "sampled":
            alive *= 1.0 / (1.0 + odds)
            alive[alive < population.ENDED] = 0.0
        unrewarded = np.where(step.reward.numpy() > 0, 0, unrewarded + 1)
        if patience:
            alive[unrewarded >= patience] = 0.0
        if goal:
            alive[total >= goal] = 0.0
    return total, length


@pytest.mark.parametrize("hidden", [0, 6])
def test_candidates_are_rolled_out_as_by_a_plain_loop(memory: Memory, hidden: int) -> None:
    parameters, start = candidates(3, hidden=hidden), starts(4)
    result = PopulationRollout(TASK, memory, NEVER, hidden=hidden)(
        parameters, start, seed=5, horizon=12, temperature=1.2
    )
    assert result.returns.shape == result.lengths.shape == (3, 4)
    assert (result.lengths == 12).all()
    for row, candidate in enumerate(parameters):
        total, _ = python_loop(memory, candidate, start, seed=5, horizon=12, temperature=1.2)
        np.testing.assert_allclose(result.returns[row], total, **TOLERANCE)
    assert np.ptp(result.returns, axis=0).min() > 0.01  # candidates differ ...
    assert np.ptp(result.returns, axis=1).min() > 0.01  # ... and so do dreams


def test_a_dream_without_expected_reward_is_given_up(memory: Memory) -> None:
    parameters, start = candidates(3), starts(8)
    rollout = PopulationRollout(TASK, memory, NEVER)
    result = rollout(parameters, start, seed=5, horizon=120, patience=3)
    for row, candidate in enumerate(parameters):
        total, length = python_loop(memory, candidate, start, seed=5, horizon=120, patience=3)
        np.testing.assert_array_equal(result.lengths[row], length)
        np.testing.assert_allclose(result.returns[row], total, **TOLERANCE)
    assert result.lengths.min() < 30  # some are given up, by no means all after three steps
    assert result.lengths.max() > 3


def test_a_dream_ends_at_its_goal(memory: Memory) -> None:
    parameters, start = candidates(3), starts(8)
    rollout = PopulationRollout(TASK, memory, NEVER)
    goal = float(np.median(rollout(parameters, start, seed=5, horizon=120).returns.max(1))) / 2
    assert goal > 0
    result = rollout(parameters, start, seed=5, horizon=120, goal=goal)
    for row, candidate in enumerate(parameters):
        total, length = python_loop(memory, candidate, start, seed=5, horizon=120, goal=goal)
        np.testing.assert_array_equal(result.lengths[row], length)
        np.testing.assert_allclose(result.returns[row], total, **TOLERANCE)
    reached = result.returns >= goal
    assert (result.lengths[reached] < 120).all()
    assert (result.lengths[~reached] == 120).all()
    assert 0 < reached.sum() < reached.size


@pytest.mark.parametrize("odds_correction", [1.0, 3.0])
def test_a_dream_ends_above_the_threshold(memory: Memory, odds_correction: float) -> None:
    value = median_threshold(memory).value
    assert value is not None
    corrected = value / (value + odds_correction * (1.0 - value))
    end = EndRule("threshold", corrected, odds_correction)
    parameters, start = candidates(3), starts(8)
    result = PopulationRollout(TASK, memory, end)(parameters, start, seed=5, horizon=15)
    assert 1 <= result.lengths.min() < 15
    for row, candidate in enumerate(parameters):
        total, length = python_loop(memory, candidate, start, seed=5, horizon=15, end=end)
        np.testing.assert_array_equal(result.lengths[row], length)
        np.testing.assert_allclose(result.returns[row], total, **TOLERANCE)


def test_a_sampled_end_comes_as_often_as_it_is_likely(memory: Memory) -> None:
    rollout = PopulationRollout(TASK, memory, EndRule("sampled"))
    start = starts(1)
    many = Starts(*(np.repeat(array, 4000, 0) for array in (start.latent, start.h, start.c)))
    result = rollout(candidates(1), many, seed=3, horizon=2)
    action = controller.act(
        TASK,
        candidates(1)[0].astype(np.float32),
        controller.features(TASK, start.latent, start.h, start.c),
    )
    logit = memory.step(start.latent, action, start.h, start.c).done_logit
    likely = float(tf.sigmoid(logit)[0])
    error = np.sqrt(likely * (1.0 - likely) / 4000)
    assert 0.05 < likely < 0.95
    assert abs(np.mean(result.lengths == 1) - likely) < 5.0 * error


def test_expected_returns_are_weighted_by_the_probability_of_each_step(memory: Memory) -> None:
    end = EndRule("sampled", None, 3.0)
    parameters, start = candidates(3), starts(4)
    rollout = PopulationRollout(TASK, memory, end, expected=True)
    result = rollout(parameters, start, seed=5, horizon=60)
    for row, candidate in enumerate(parameters):
        total, length = python_loop(memory, candidate, start, seed=5, horizon=60, end=end)
        np.testing.assert_allclose(result.lengths[row], length, **TOLERANCE)
        np.testing.assert_allclose(result.returns[row], total, **TOLERANCE)
        alone = rollout(candidate[np.newaxis], start, seed=5, horizon=60)
        np.testing.assert_allclose(alone.returns[0], result.returns[row], **TOLERANCE)
    assert np.ptp(result.lengths) > 0.1


@pytest.mark.parametrize("rule", ["threshold", "never"])
def test_ends_that_are_certain_are_expected_as_they_come(memory: Memory, rule: str) -> None:
    end = median_threshold(memory) if rule == "threshold" else NEVER
    drawn, expected = (
        PopulationRollout(TASK, memory, end, expected=expected)(
            candidates(3), starts(8), seed=5, horizon=15
        )
        for expected in (False, True)
    )
    np.testing.assert_array_equal(drawn.lengths, expected.lengths)
    np.testing.assert_array_equal(drawn.returns, expected.returns)


def test_the_loop_stops_when_every_dream_has_ended(memory: Memory) -> None:
    at_once = EndRule("threshold", 1e-9)
    result = PopulationRollout(TASK, memory, at_once)(
        candidates(2), starts(3), seed=1, horizon=2**30
    )
    assert (result.lengths == 1).all()


@pytest.mark.parametrize("end", [NEVER, EndRule("sampled")], ids=["never", "sampled"])
def test_a_candidate_is_not_touched_by_the_others(memory: Memory, end: EndRule) -> None:
    rollout = PopulationRollout(TASK, memory, end)
    parameters, start = candidates(5), starts(3)

    def run(rows: np.ndarray) -> DreamReturns:
        return rollout(rows, start, seed=9, horizon=10, dropout=0.2)

    together = run(parameters)
    for index in range(5):
        alone = run(parameters[index : index + 1])
        np.testing.assert_array_equal(alone.lengths[0], together.lengths[index])
        np.testing.assert_allclose(alone.returns[0], together.returns[index], **TOLERANCE)
    order = np.array([3, 0, 4, 1, 2])
    np.testing.assert_allclose(run(parameters[order]).returns, together.returns[order], **TOLERANCE)
    same = run(np.repeat(parameters[:1], 5, axis=0))  # the same dreams for all of them
    np.testing.assert_allclose(same.returns, np.repeat(same.returns[:1], 5, 0), **TOLERANCE)


def test_a_dream_is_not_touched_by_those_that_follow(memory: Memory) -> None:
    rollout = PopulationRollout(TASK, memory, NEVER)
    parameters, start = candidates(2), starts(6)
    many = rollout(parameters, start, seed=9, horizon=10).returns
    few = Starts(start.latent[:2], start.h[:2], start.c[:2])
    np.testing.assert_allclose(
        rollout(parameters, few, seed=9, horizon=10).returns, many[:, :2], **TOLERANCE
    )


def test_numbers_depend_on_the_seed(memory: Memory) -> None:
    rollout = PopulationRollout(TASK, memory, NEVER)
    arguments = {"horizon": 6, "dropout": 0.1}
    first, again, other = (
        rollout(candidates(2), starts(2), seed=seed, **arguments).returns for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.any(first == other)


def test_bfloat16_dreams_are_those_of_float32_up_to_its_rounding(memory: Memory) -> None:
    exact, rough = (
        PopulationRollout(TASK, memory, NEVER, precision)(
            candidates(16), starts(16), seed=3, horizon=5
        ).returns
        for precision in ("float32", "bfloat16")
    )
    assert np.any(exact != rough)
    # A few dreams take another component of a mixture, and go elsewhere from there.
    assert np.median(np.abs(rough - exact)) < 0.02 * exact.std()
    assert np.corrcoef(exact.mean(axis=1), rough.mean(axis=1))[0, 1] > 0.99


def test_temperature_and_dropout_matter(memory: Memory) -> None:
    rollout = PopulationRollout(TASK, memory, NEVER)
    plain = rollout(candidates(2), starts(2), seed=1, horizon=6).returns
    hotter = rollout(candidates(2), starts(2), seed=1, horizon=6, temperature=1.3).returns
    dropped = rollout(candidates(2), starts(2), seed=1, horizon=6, dropout=0.3).returns
    assert not np.allclose(plain, hotter)
    assert not np.allclose(plain, dropped)


def test_dropout_is_one_mask_for_each_dream(memory: Memory) -> None:
    rollout = PopulationRollout(TASK, memory, NEVER)
    mask = rollout._dropout_mask(3, 4, 0.3).numpy()
    np.testing.assert_allclose(np.unique(mask), [0.0, 1.0 / 0.7], rtol=1e-6)
    assert abs((mask == 0).mean() - 0.3) < 5.0 * np.sqrt(0.3 * 0.7 / mask.size)
    result = rollout(candidates(2), starts(3), seed=4, horizon=8, dropout=0.3)
    for row_index, candidate in enumerate(candidates(2)):
        total, _ = python_loop(memory, candidate, starts(3), seed=4, horizon=8, mask=mask)
        np.testing.assert_allclose(result.returns[row_index], total, **TOLERANCE)


def test_it_dreams_what_the_saved_models_dream(memory: Memory, models: Models) -> None:
    parameters, start = candidates(1), starts(3)
    result = PopulationRollout(TASK, memory, NEVER)(
        parameters, start, seed=11, horizon=8, temperature=1.1
    )
    latent, h, c = start.latent, start.h, start.c
    total = np.zeros(3)
    for t in range(8):
        seen = controller.features(TASK, latent, h, c)
        action = controller.act(TASK, parameters[0].astype(np.float32), seen).numpy()
        out = models.dream(latent, action, h, c, 1.1, (11, t))
        latent, h, c = out["latent"], out["h"], out["c"]
        total += out["reward"]
    np.testing.assert_allclose(result.returns[0], total, **TOLERANCE)


def test_take_covers_controller_reads_the_cell() -> None:
    task = get_task("take_cover")
    small = Memory(task.latent_size, task.action_size, task.hidden_size, task.mixtures)
    parameters, start = candidates(2, task), starts(2, task)
    result = PopulationRollout(task, small, NEVER)(parameters, start, seed=1, horizon=1)
    for index, candidate in enumerate(parameters):
        seen = controller.features(task, start.latent, start.h, start.c)
        action = controller.act(task, candidate.astype(np.float32), seen)
        expected = small.step(start.latent, action, start.h, start.c).reward
        np.testing.assert_allclose(result.returns[index], expected, **TOLERANCE)


@pytest.mark.parametrize("rule", ["threshold", "sampled"])
def test_leaving_out_the_dreams_that_ended_changes_nothing(
    memory: Memory, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    end = median_threshold(memory) if rule == "threshold" else EndRule("sampled", None, 20.0)
    rollout = PopulationRollout(TASK, memory, end)

    def play() -> DreamReturns:
        return rollout(candidates(5), starts(6), seed=5, horizon=30)

    whole = play()
    monkeypatch.setattr(population, "SEGMENT", 4)
    segmented = play()
    assert len(np.unique(whole.lengths // 4)) > 2  # dreams were left out at several times
    np.testing.assert_array_equal(segmented.lengths, whole.lengths)
    np.testing.assert_allclose(segmented.returns, whole.returns, **TOLERANCE)
