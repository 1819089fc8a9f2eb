"""Fitness: candidates share dreams and tracks, and any executor gives the same numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from wm_tf import agent
from wm_tf.config import ControllerConfig, get_task
from wm_tf.dream.population import DreamReturns, Starts
from wm_tf.evolution import dreams
from wm_tf.evolution import fitness as module
from wm_tf.evolution.fitness import DreamFitness, RealFitness, real_returns
from wm_tf.execution import LocalExecutor, SerialExecutor
from wm_tf.precision import Arithmetic
from wm_tf.seeding import Purpose
from wm_tf.serving import manifest
from wm_tf.serving.initial import InitialLatents

TASK = get_task("car_racing")
CONFIG = ControllerConfig(population=4, rollouts=3, horizon=6)


def candidates(count: int = 4) -> np.ndarray:
    return np.random.default_rng(1).normal(0.0, 0.3, (count, 867))


@pytest.fixture(scope="module")
def dream(saved_models: Path) -> DreamFitness:
    models = agent.ModelsAt(saved_models, manifest.checksum(saved_models / "car_racing"))
    return DreamFitness(SerialExecutor(), TASK, (models,), CONFIG, seed=5)


def test_candidates_of_a_generation_share_its_dreams(dream: DreamFitness) -> None:
    same = dream(np.repeat(candidates(1), 4, axis=0), 2)
    assert same.steps == 4 * 3 * 6
    np.testing.assert_allclose(same.returns, same.returns[0], rtol=1e-5)
    others = dream(candidates(), 2).returns
    np.testing.assert_allclose(others[0], same.returns[0], rtol=1e-4)
    assert len(set(np.round(others, 4))) == 4


def test_dreams_depend_on_seed_and_generation_alone(dream: DreamFitness) -> None:
    first = dream(candidates(), 0)
    np.testing.assert_array_equal(first.returns, dream(candidates(), 0).returns)
    assert first.returns.dtype == np.float64
    other_seed = dataclasses.replace(dream, seed=6)
    for other in (dream(candidates(), 1), other_seed(candidates(), 0)):
        assert not np.any(first.returns == other.returns)


@pytest.mark.parametrize(
    ("purpose", "dreamt"), [(Purpose.FITNESS, {1.0, 2.0}), (Purpose.EVALUATION, {1.0})]
)
def test_dreams_that_are_scored_begin_at_beginnings_where_survival_counts(
    monkeypatch: pytest.MonkeyPatch, purpose: Purpose, dreamt: set[float]
) -> None:
    task = get_task("take_cover")
    means = np.repeat(np.array([1.0, 2.0], np.float32), 8)  # 2 are those of later moments
    state = np.repeat((means > 1.0).astype(np.float32)[:, None], task.hidden_size, 1)
    mean = np.repeat(means[:, None], task.latent_size, 1)
    starts = InitialLatents(mean, np.full_like(mean, -50.0), state, state)
    seen: list[set[float]] = []

    def rollout(_: np.ndarray, starts: Starts, **__: object) -> DreamReturns:
        seen.append(set(np.round(starts.latent, 3).ravel().tolist()))
        return DreamReturns(np.zeros((1, 64), np.float32), np.zeros((1, 64), np.float32))

    monkeypatch.setattr(dreams, "_dreams", lambda *_: (rollout, starts))
    dreams.dream_all(
        SerialExecutor(), np.zeros((1, task.controller_parameters)), task=task.name,
        models=agent.ModelsAt(Path("none"), ""), config=ControllerConfig(rollouts=64),
        seed=1, purpose=purpose, generation=0,
    )  # fmt: skip
    assert seen == [dreamt]


def test_a_candidate_is_worth_the_mean_of_its_dreams(dream: DreamFitness) -> None:
    """More dreams begin with the same ones only by their noise; so it is compared to itself."""
    one = dataclasses.replace(dream, config=dataclasses.replace(CONFIG, rollouts=1))
    longer = dataclasses.replace(one, config=dataclasses.replace(one.config, horizon=7))
    assert one(candidates(), 0).steps == 4 * 6
    assert longer(candidates(), 0).steps == 4 * 7
    assert not np.allclose(one(candidates(), 0).returns, longer(candidates(), 0).returns)


def test_the_goal_rises_from_one_generation_to_the_next(dream: DreamFitness) -> None:
    def in_generation_2(goal: float, goal_rise: float = 0.0) -> np.ndarray:
        config = dataclasses.replace(CONFIG, horizon=60, goal=goal, goal_rise=goal_rise)
        return dataclasses.replace(dream, config=config)(candidates(), 2).returns

    assert not np.allclose(in_generation_2(goal=0.1), in_generation_2(goal=0.5))
    np.testing.assert_array_equal(in_generation_2(goal=0.1, goal_rise=0.2), in_generation_2(0.5))


def test_a_generations_numbers_do_not_depend_on_how_its_chunks_are_spread(
    dream: DreamFitness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks of two candidates, in two processes, in a thread and together."""
    monkeypatch.setattr(dreams, "DREAMS", 6)
    alone = dream(candidates(5), 1)
    with LocalExecutor(2) as two:
        np.testing.assert_array_equal(
            dataclasses.replace(dream, executor=two)(candidates(5), 1).returns, alone.returns
        )
    monkeypatch.setattr(dreams, "DREAMS", 256)
    np.testing.assert_allclose(dream(candidates(5), 1).returns, alone.returns, rtol=1e-4)


def scripted_play(chunk: agent.Chunk) -> list[agent.Outcome]:
    """A return that says which candidate and which rollout it was."""
    return [
        agent.Outcome(float(rollout.parameters[0]) + rollout.key[-1], 10, False, True)
        for rollout in chunk.rollouts
        if rollout.parameters is not None
    ]


def test_real_rollouts_are_put_in_their_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chunks: list[agent.Chunk] = []

    def watched(chunk: agent.Chunk) -> list[agent.Outcome]:
        chunks.append(chunk)
        return scripted_play(chunk)

    monkeypatch.setattr(module.agent, "play", watched)
    monkeypatch.setattr(module.agent, "ROLLOUTS", 16)
    config = dataclasses.replace(CONFIG, patience=50, horizon=2000, precision="bfloat16")
    models = agent.ModelsAt(tmp_path, "checksum")
    parameters = np.repeat(np.arange(0.0, 70.0, 10.0)[:, np.newaxis], 867, axis=1)
    result = RealFitness(SerialExecutor(), TASK, models, config, seed=9)(parameters, 7)
    np.testing.assert_array_equal(result.returns, np.arange(1.0, 70.0, 10.0))
    assert result.steps == 7 * 3 * 10
    assert [len(chunk.rollouts) for chunk in chunks] == [11, 10]
    for chunk in chunks:
        assert (chunk.max_steps, chunk.patience, chunk.models) == (1000, 50, models)
        assert (chunk.precision, chunk.official_frames) == ("bfloat16", False)
    played = [rollout for chunk in chunks for rollout in chunk.rollouts]
    assert {rollout.seed for rollout in played} == {9}
    keys = [rollout.key for rollout in played]
    assert keys == [(int(Purpose.FITNESS), 7, rollout) for rollout in range(3)] * 7


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_selection_is_scored_on_its_own_seeds(
    saved_models: Path, precision: Arithmetic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real one, short: zero parameters give half gas whatever V and M say."""
    played: list[agent.Chunk] = []
    play = agent.play

    def watched(chunk: agent.Chunk) -> list[agent.Outcome]:
        played.append(chunk)
        return play(chunk)

    monkeypatch.setattr(module.agent, "play", watched)
    task = dataclasses.replace(TASK, max_steps=5)
    models = agent.ModelsAt(saved_models, manifest.checksum(saved_models / "car_racing"))
    arguments = (SerialExecutor(), task, models, np.zeros(867))
    options = {"seed": 1, "episodes": 2, "precision": precision}
    scores = real_returns(*arguments, **options)
    assert scores.shape == (2,)
    assert {chunk.precision for chunk in played} == {precision}
    work = tuple(
        agent.Rollout(1, (int(Purpose.SELECTION), index), np.zeros(867, np.float32))
        for index in range(2)
    )
    outcomes = agent.play(agent.Chunk("car_racing", work, 5, models))
    np.testing.assert_array_equal(scores, [outcome.total for outcome in outcomes])
    np.testing.assert_array_equal(scores, real_returns(*arguments, **options))


def test_a_generation_plays_the_same_tracks_for_all_candidates(saved_models: Path) -> None:
    models = agent.ModelsAt(saved_models, manifest.checksum(saved_models / "car_racing"))
    config = dataclasses.replace(CONFIG, rollouts=2, horizon=4)
    real = RealFitness(SerialExecutor(), TASK, models, config, seed=3)
    same = real(np.zeros((4, 867)), 0)
    assert same.steps == 4 * 2 * 4
    np.testing.assert_array_equal(same.returns, same.returns[0])
