"""The dream as gymnasium environments."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import wm_tf  # noqa: F401  # registers the environments
from wm_tf.dream.envs import DreamEnv, DreamVectorEnv
from wm_tf.errors import UserError
from wm_tf.serving.load import Models

OBSERVATIONS = {"latent": (32,), "state": (288,), "frame": (64, 64, 3)}
SAMPLED = {"rule": "sampled", "value": None, "odds_correction": 9.0}  # ends about every tenth step


@pytest.fixture
def mortal(models: Models) -> Models:
    """The untrained models, whose end head says about 0.5 everywhere, with ends that are drawn."""
    return dataclasses.replace(models, manifest={**models.manifest, "end": SAMPLED})


def actions(steps: int, rows: int | None = None) -> np.ndarray:
    shape = (steps, 3) if rows is None else (steps, rows, 3)
    return np.random.default_rng(4).uniform(0.0, 1.0, shape).astype(np.float32)


@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_gymnasium_makes_it_and_its_checker_passes(saved_models: Path, observation: str) -> None:
    env = gymnasium.make(
        "wm_tf/CarRacingDream-v0", models=saved_models, observation=observation, horizon=50
    )
    with warnings.catch_warnings():
        # A latent has no bounds: the checker only remarks on it.
        warnings.filterwarnings("ignore", message=".*A Box observation space (min|max)imum value")
        check_env(env.unwrapped)
    observed, _ = env.reset(seed=1)
    assert observed.shape == OBSERVATIONS[observation]
    assert observed in env.observation_space


def test_state_is_exactly_what_the_controller_sees(
    models: Models, keras_models: dict[str, Any]
) -> None:
    env = DreamEnv("car_racing", models, observation="state")
    env.reset(seed=1)
    observed, *_ = env.step(np.array([0.5, 1.0, 0.0], np.float32))
    state = env.state
    assert state.h.any()
    weights = keras_models["controller"].parameters.numpy()
    steer, gas, brake = np.tanh(weights[:864].reshape(3, 288) @ observed + weights[864:])
    acted = models.act(state.latent, state.h, state.c)[0]
    np.testing.assert_allclose(acted, [steer, (gas + 1) / 2, max(brake, 0.0)], atol=1e-5)


def test_latent_and_frame_show_the_same_moment(models: Models) -> None:
    env = DreamEnv("car_racing", models, observation="frame")
    frame, _ = env.reset(seed=1)
    np.testing.assert_array_equal(frame, env.render())
    stepped, *_ = env.step(np.zeros(3, np.float32))
    assert (stepped != frame).any()
    np.testing.assert_array_equal(stepped, env.render())
    np.testing.assert_array_equal(stepped, env.dream.frame(env.state)[0])
    stepped[:] = 0  # the caller's own copy
    assert env.render().any()


def test_a_seed_gives_an_episode_and_episodes_of_a_seed_differ(models: Models) -> None:
    env = DreamEnv("car_racing", models, horizon=10)

    def episode(seed: int | None) -> np.ndarray:
        observed = [env.reset(seed=seed)[0]]
        observed += [env.step(action)[0] for action in actions(5)]
        return np.stack(observed)

    first, second = episode(3), episode(None)
    np.testing.assert_array_equal(episode(3), first)
    np.testing.assert_array_equal(episode(None), second)
    assert not np.allclose(first, second)
    assert not np.allclose(first, episode(4))


def test_noise_goes_on_across_resets_without_a_seed(models: Models) -> None:
    env = DreamEnv("car_racing", models)
    env.reset(seed=3)
    env.step(np.zeros(3, np.float32))
    seed = env.state.seed
    env.reset()
    assert (env.state.seed, env.state.step) == (seed, 1)
    env.reset(seed=3)
    assert (env.state.seed, env.state.step) == (seed, 0)


def test_the_horizon_truncates(models: Models) -> None:
    env = DreamEnv("car_racing", models, horizon=3)
    for _ in range(2):
        env.reset(seed=1)
        ends = [env.step(action)[2:4] for action in actions(3)]
        assert ends == [(False, False), (False, False), (False, True)]
    assert DreamEnv("car_racing", models)._rows.horizon == 1000


def test_sampled_ends_come_as_often_as_the_models_say(mortal: Models) -> None:
    env = DreamEnv("car_racing", mortal, horizon=10_000)
    env.reset(seed=1)
    expected, ended = 0.0, 0
    for action in actions(400):
        _, _, terminated, _, info = env.step(action)
        trained = info["done_probability"]
        expected += trained / (trained + 9.0 * (1.0 - trained))
        ended += terminated
        if terminated:
            env.reset()
    assert 10 < expected < 200
    assert abs(ended - expected) < 4.0 * np.sqrt(expected)


def test_temperature_is_the_manifests_unless_given(models: Models) -> None:
    warmer = dataclasses.replace(models, manifest={**models.manifest, "temperature": 1.5})

    def latent(models: Models, temperature: float | None) -> np.ndarray:
        env = DreamEnv("car_racing", models, temperature=temperature)
        env.reset(seed=1)
        return env.step(np.zeros(3, np.float32))[0]

    np.testing.assert_array_equal(latent(warmer, None), latent(models, 1.5))
    np.testing.assert_array_equal(latent(warmer, 1.0), latent(models, None))
    assert not np.allclose(latent(warmer, None), latent(models, None))


def test_actions_are_checked_and_clipped(models: Models) -> None:
    env = DreamEnv("car_racing", models)

    def after(action: list[float]) -> np.ndarray:
        env.reset(seed=1)
        return env.step(np.array(action))[0]

    np.testing.assert_array_equal(after([-7.0, -1.0, 2.0]), after([-1.0, 0.0, 1.0]))
    with pytest.raises(ValueError, match=r"action: expected \[3\], got \[2\]"):
        env.step(np.zeros(2))
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="action: expected finite values"):
            env.step(np.array([0.0, value, 0.0]))
    vector = DreamVectorEnv(2, "car_racing", models)
    vector.reset(seed=1)
    with pytest.raises(ValueError, match=r"action: expected \[2, 3\], got \[3\]"):
        vector.step(np.zeros(3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0.0}, "temperature: expected a number greater than 0, got 0.0"),
        ({"temperature": -1.0}, "temperature: expected a number greater than 0, got -1.0"),
        ({"horizon": 0}, "horizon: expected at least 1, got 0"),
        ({"observation": "pixels"}, "expected one of latent, state, frame, got 'pixels'"),
        ({"render_mode": "human"}, "expected 'rgb_array' or None, got 'human'"),
        ({"task": "take_cover"}, "models of task 'car_racing', expected 'take_cover'"),
    ],
)
def test_arguments_that_are_not_accepted(
    models: Models, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        DreamEnv(**{"task": "car_racing", "models": models, **arguments})
    with pytest.raises(UserError, match=message):
        DreamVectorEnv(2, **{"task": "car_racing", "models": models, **arguments})


def test_missing_models_and_a_missing_reset_are_named(tmp_path: Path, models: Models) -> None:
    with pytest.raises(UserError, match="no models of task 'car_racing'"):
        DreamEnv("car_racing", tmp_path)
    with pytest.raises(ResetNeeded):
        DreamEnv("car_racing", models).step(np.zeros(3))


def test_environments_of_a_process_share_what_they_load(saved_models: Path) -> None:
    first, second = (DreamEnv("car_racing", saved_models) for _ in range(2))
    assert first.dream.models is second.dream.models


@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_a_vector_of_one_equals_the_single_environment(mortal: Models, observation: Any) -> None:
    arguments = {"models": mortal, "observation": observation, "horizon": 12}
    single = DreamEnv("car_racing", **arguments)
    vector = DreamVectorEnv(1, "car_racing", **arguments)
    np.testing.assert_array_equal(vector.reset(seed=5)[0][0], single.reset(seed=5)[0])
    episodes, truncations = 1, 0
    for action in actions(120):
        observed, reward, terminated, truncated, info = single.step(action)
        results = vector.step(action[np.newaxis])
        np.testing.assert_array_equal(results[0][0], observed)
        assert (results[1][0], results[2][0], results[3][0]) == (reward, terminated, truncated)
        assert results[4]["done_probability"][0] == info["done_probability"]
        np.testing.assert_array_equal(vector.render()[0], single.render())
        if terminated or truncated:
            episodes += 1
            truncations += truncated
            observed, _ = single.reset()
            # Its own reset: the vector's next step takes no action of this row.
            results = vector.step(np.zeros((1, 3), np.float32))
            np.testing.assert_array_equal(results[0][0], observed)
            assert (results[1][0], results[2][0], results[3][0]) == (0.0, False, False)
            assert not results[4]["_done_probability"][0]
    assert episodes > 5
    assert truncations > 0


@pytest.fixture
def vector(mortal: Models) -> Callable[..., DreamVectorEnv]:
    def make(rows: int = 6, **arguments: Any) -> DreamVectorEnv:
        return DreamVectorEnv(rows, "car_racing", mortal, **{"horizon": 9, **arguments})

    return make


def test_rows_start_where_single_environments_of_their_seeds_do(
    vector: Callable[..., DreamVectorEnv], mortal: Models
) -> None:
    observed, _ = vector().reset(seed=5)
    for row in range(6):
        single = DreamEnv("car_racing", mortal)
        np.testing.assert_array_equal(observed[row], single.reset(seed=5 + row)[0])
    listed, _ = vector().reset(seed=[5, 6, 7, 8, 9, 10])
    np.testing.assert_array_equal(observed, listed)
    with pytest.raises(ValueError, match="expected 6 seeds, got 2"):
        vector().reset(seed=[1, 2])


def test_one_network_call_per_step(vector: Callable[..., DreamVectorEnv]) -> None:
    env = vector()
    env.reset(seed=1)
    calls = []
    step = env.dream.step
    env.dream.step = lambda *arguments: calls.append(1) or step(*arguments)  # type: ignore[method-assign]
    for action in actions(20, 6):
        env.step(action)
    assert len(calls) == 20


def test_a_row_that_ended_starts_again_in_its_next_step_and_others_go_on(
    vector: Callable[..., DreamVectorEnv],
) -> None:
    env = vector()
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    env.reset(seed=1)
    ended = np.zeros(6, bool)
    partly = 0
    for action in actions(60, 6):
        observed, reward, terminated, truncated, infos = env.step(action)
        assert not (terminated | truncated)[ended].any()
        assert not reward[ended].any()
        assert not env.state.h[ended].any()  # a start
        assert env.state.h[~ended].any(axis=1).all()
        np.testing.assert_array_equal(infos["_done_probability"], ~ended)
        np.testing.assert_array_equal(observed, env.state.latent)
        partly += ended.any() and not ended.all()
        ended = terminated | truncated
    assert partly > 10


def test_same_step_autoreset_keeps_the_last_observation(
    vector: Callable[..., DreamVectorEnv],
) -> None:
    env, reference = vector(autoreset_mode="SameStep"), vector(autoreset_mode="Disabled")
    env.reset(seed=1)
    reference.reset(seed=1)
    ends = 0
    for action in actions(40, 6):
        observed, _, terminated, truncated, infos = env.step(action)
        expected, _, its_terminated, its_truncated, _ = reference.step(action)
        np.testing.assert_array_equal(terminated, its_terminated)
        np.testing.assert_array_equal(truncated, its_truncated)
        ended = terminated | truncated
        if ended.any():
            ends += 1
            np.testing.assert_array_equal(infos["_final_obs"], ended)
            for row in np.flatnonzero(ended):
                np.testing.assert_array_equal(infos["final_obs"][row], expected[row])
            expected, _ = reference.reset(options={"reset_mask": ended})
        np.testing.assert_array_equal(observed, expected)
    assert ends > 5


def test_rows_are_reset_one_by_one(vector: Callable[..., DreamVectorEnv]) -> None:
    env = vector(autoreset_mode=AutoresetMode.DISABLED, horizon=2)
    before, _ = env.reset(seed=1)
    mask = np.array([False, True, False, False, True, False])
    after, _ = env.reset(options={"reset_mask": mask})
    np.testing.assert_array_equal(after[~mask], before[~mask])
    assert (after[mask] != before[mask]).all()
    again, _ = env.reset(seed=1, options={"reset_mask": mask})
    np.testing.assert_array_equal(again, before)  # rows 1 and 4 from their own seeds
    for action in actions(2, 6):
        env.step(action)
    with pytest.raises(ValueError, match=r"rows \[0, .*have ended: expected a reset"):
        env.step(actions(1, 6)[0])
    with pytest.raises(ValueError, match=r"reset_mask: expected bool \[6\], got int64 \[2\]"):
        env.reset(options={"reset_mask": np.array([0, 1])})


def test_gymnasium_makes_the_vector_environment(saved_models: Path) -> None:
    envs = gymnasium.make_vec("wm_tf/CarRacingDream-v0", num_envs=3, models=saved_models)
    assert isinstance(envs.unwrapped, DreamVectorEnv)
    observed, _ = envs.reset(seed=1)
    assert observed in envs.observation_space
    recorded = gymnasium.wrappers.vector.RecordEpisodeStatistics(envs)
    recorded.reset(seed=1)
    recorded.step(envs.action_space.sample())
    assert len(envs.render()) == 3
    with pytest.raises(UserError, match="num_envs: expected at least 1, got 0"):
        DreamVectorEnv(0, "car_racing", saved_models)
