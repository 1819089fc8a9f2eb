"""Policy gradients in the real environment: what they learn from, and that they go on exactly."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from wm_tf import agent
from wm_tf.config import ControllerConfig, Task, get_task
from wm_tf.errors import RunFailed
from wm_tf.evolution import real_gradient
from wm_tf.evolution.ppo import ActorCritic, make_critic
from wm_tf.evolution.real_gradient import RealGradient, advantages
from wm_tf.execution import SerialExecutor
from wm_tf.models import controller
from wm_tf.serving import manifest

TASK = get_task("car_racing")
CONFIG = ControllerConfig(
    method="gradients", population=4, rollouts=1, horizon=30, sigma=0.05, precision="float32"
)


def learner(
    folder: Path, config: ControllerConfig = CONFIG, task: Task = TASK, **fields: Any
) -> RealGradient:
    place = agent.ModelsAt(folder, manifest.checksum(folder / task.name))
    initial = np.zeros(task.controller_parameters)
    return RealGradient(SerialExecutor(), task, place, config, 5, fields.get("initial", initial))


def test_advantages_are_those_of_the_formula() -> None:
    """Two episodes; nothing follows the first one's end."""
    reward = np.array([1.0, 2.0, 3.0, 10.0])
    value = np.array([4.0, 1.0, 2.0, 5.0])
    lengths = (3, 1)
    one_step = [1 + 1 - 4, 2 + 2 - 1, 3 - 2, 10 - 5]
    np.testing.assert_allclose(advantages(reward, value, lengths, 0.0), one_step)
    np.testing.assert_allclose(advantages(reward, value, lengths, 1.0), [6 - 4, 5 - 1, 3 - 2, 5])
    halved = [-2 + 0.5 * (3 + 0.5 * 1), 3 + 0.5 * 1, 1, 5]
    np.testing.assert_allclose(advantages(reward, value, lengths, 0.5), halved)


def test_the_critic_sees_how_an_episode_stands() -> None:
    rewards = np.array([-0.1, 3.0, -0.1, -0.1, 3.0, -0.1])
    seen, variance, raw, outlook = (np.zeros((6, size), np.float32) for size in (288, 32, 3, 38))
    ahead = np.array([6.0, 6.0, 3.0, 3.0, 3.0, 0.0], np.float32)
    sight = agent.Sight(seen, variance, raw, outlook, ahead)
    steps = real_gradient._steps([agent.Outcome(5.6, 6, False, True, sight, rewards)] * 2)
    expected = [[0, 0, 0], [-0.1, 1, 1], [2.9, 2, 0], [2.8, 3, 1], [2.7, 4, 2], [5.7, 5, 0]]
    np.testing.assert_allclose(steps.judged[:, -3:], 2 * expected, atol=1e-6)
    assert steps.lengths == (6, 6)
    assert steps.judged.shape == (12, 38 + 3)
    np.testing.assert_allclose(steps.reward, 2 * [-0.1, 0.0, -0.1, -0.1, 0.0, -0.1], atol=1e-6)
    blind = sight._replace(outlook=outlook[:, :0])  # of an environment that tells nothing
    steps = real_gradient._steps([agent.Outcome(5.6, 6, False, True, blind, rewards)])
    assert steps.judged.shape == (6, 288 + 3)


class _Bandit:
    """In place of the environment: each step pays for a first action near one before squashing.

    Args:
      gain: of the features that vary, to that action, where the bias is 0; None: it is 1.
    """

    def __init__(self, gain: float | None = None) -> None:
        self.random = np.random.default_rng(1)
        self.gain = gain

    def __call__(self, _: Any, work: list[agent.Rollout], **__: Any) -> list[agent.Outcome]:
        return [self.episode(rollout) for rollout in work]

    def episode(self, rollout: agent.Rollout) -> agent.Outcome:
        assert rollout.parameters is not None
        seen, variance = np.zeros((100, 288), np.float32), np.zeros((100, 32), np.float32)
        seen[:, 30:34] = self.random.normal(size=(100, 4))  # two of the latent, two of h
        variance[:, 30:] = 0.04
        ((kernel, bias),) = controller.split_parameters(TASK, rollout.parameters)
        noise = np.zeros_like(seen)
        noise[:, 30:32] = 0.2 * self.random.normal(size=(100, 2))
        raw = (seen + noise) @ np.asarray(kernel).T + np.asarray(bias)
        raw += rollout.exploration * self.random.normal(size=raw.shape)
        best = 1.0 if self.gain is None else self.gain * (seen + noise)[:, 30:34].sum(1)
        reward = -np.square(raw[:, 0] - best)
        nothing = np.zeros((100, 0), np.float32), np.zeros(100, np.float32)
        sight = agent.Sight(seen, variance, raw.astype(np.float32), *nothing)
        return agent.Outcome(float(reward.sum()), 100, False, True, sight, reward)


def test_it_learns_what_pays(saved_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real_gradient, "play_all", _Bandit())
    monkeypatch.setattr(real_gradient, "LEARNING_RATE", 5e-3)
    config = dataclasses.replace(CONFIG, population=32, sigma=0.3)
    taught = learner(saved_models, config)
    first = taught.advance()
    np.testing.assert_array_equal(taught.mean, 0.0)  # the critic learns alone
    last = [taught.advance() for _ in range(25)][-1]
    assert first["steps"] == 3200
    assert last["mean"] > first["mean"] + 50.0  # of 100, for which the action had to be 1
    bias = taught.mean[-3:]
    assert bias[0] > 0.5 and abs(bias[0]) > 3.0 * np.abs(bias[1:]).max()


def test_it_learns_the_gain_of_an_action(
    saved_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which a weight tells that reads nothing but 0, so that it does not learn by itself."""
    monkeypatch.setattr(real_gradient, "play_all", _Bandit(gain=1.0))
    monkeypatch.setattr(real_gradient, "LEARNING_RATE", 5e-3)
    config = dataclasses.replace(CONFIG, population=32, sigma=0.3)
    initial = np.zeros(TASK.controller_parameters)
    kernel = initial[:-3].reshape(3, -1)
    kernel[:, 30:34], kernel[:, 100] = 0.5, 0.1
    taught = learner(saved_models, config, initial=initial)
    first = taught.advance()
    last = [taught.advance() for _ in range(20)][-1]
    assert last["mean"] > 0.5 * first["mean"]  # which is below 0
    gains = taught.mean[:-3].reshape(3, -1)[:, 100] / 0.1
    assert gains[0] > 1.2
    assert np.all(np.abs(np.log(gains[1:])) < 0.5 * np.log(gains[0]))


def test_it_learns_more_slowly_as_it_goes_on(
    saved_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real_gradient, "play_all", _Bandit())
    monkeypatch.setattr(real_gradient, "HALVED", 2)
    taught = learner(saved_models)
    rates = []
    monkeypatch.setattr(ActorCritic, "learn_at", lambda self, rate: rates.append(rate))
    for _ in range(4):
        taught.advance()
    np.testing.assert_allclose(
        rates, np.array([1 / 1.5, 1 / 2, 1 / 2.5]) * real_gradient.LEARNING_RATE
    )


def test_what_a_lost_car_teaches_counts_as_much_as_it_costs(saved_models: Path) -> None:
    """Beside other generations, whose advantages are smaller."""
    taught = learner(saved_models)
    usual, lost = np.array([1.0, -1.0, 2.0, -2.0]), np.array([100.0, -300.0, 100.0, 100.0])
    for taught.generation in range(1, 9):
        first = taught._scaled(usual)
    taught.generation = 9
    assert np.std(taught._scaled(lost)) > 2.0  # its own standard deviation would be 1
    taught.generation = 10
    assert 0.0 < np.std(taught._scaled(usual)) < 0.1 * np.std(first)


def test_a_rare_loss_does_not_change_what_the_critic_thinks_of_the_rest() -> None:
    """Of 100 returns near 0 one is far below: the critic is hardly moved by it."""
    aim = np.zeros(100, np.float32)
    aim[0] = -40.0
    seen = np.zeros((100, 1), np.float32)
    critic = make_critic(np.zeros(1), np.ones(1), 1, seed=1)
    two = ActorCritic(tf.Variable(tf.zeros(1)), lambda _: tf.zeros(1), critic, 1e-3)
    for _ in range(300):
        error = two.judge(seen, aim)
    value = two.value(seen).numpy()
    assert -0.12 < value[0] < 0.0  # where the mean is -0.4
    np.testing.assert_allclose(error, np.mean((value - aim) ** 2) / np.var(aim), rtol=0.01)


def test_going_on_is_as_never_having_stopped(saved_models: Path) -> None:
    """After the first generation, too, in which the critic learns alone."""
    whole = learner(saved_models)
    assert whole.advance()["steps"] == 4 * 30
    stops = [(whole.state(), whole.mean)]
    whole.advance()
    stops.append((whole.state(), whole.mean))
    assert not stops[0][1].any() and stops[1][1].any()
    whole.advance()
    arrays, facts = whole.state()
    assert np.any(whole.mean != stops[1][1])
    for state, mean in stops:
        parts = learner(saved_models)
        parts.restore(*state)
        np.testing.assert_array_equal(parts.mean, mean)
        while parts.generation < whole.generation:
            parts.advance()
        others, other_facts = parts.state()
        assert facts == other_facts and arrays.keys() == others.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, others[name], err_msg=name)


def test_before_the_first_generation_there_is_nothing_to_go_on_from(saved_models: Path) -> None:
    fresh = learner(saved_models, initial=np.full(TASK.controller_parameters, 0.01))
    again = learner(saved_models, initial=fresh.mean)
    again.restore(*fresh.state())
    assert again.generation == 0
    np.testing.assert_array_equal(again.mean, fresh.mean)


def test_it_plays_take_cover_too() -> None:
    task = get_task("take_cover")
    dodger = learner(Path("saved_models").resolve(), task=task)
    assert dodger.advance()["mean"] == 30.0
    dodger.advance()
    assert np.all(np.isfinite(dodger.mean)) and dodger.mean.any()


def test_a_parameter_that_is_not_finite_stops_the_run(saved_models: Path) -> None:
    broken = learner(saved_models)
    broken.advance()
    broken.advance()
    arrays, facts = broken.state()
    broken.restore({**arrays, "variable_1": np.full_like(arrays["variable_1"], np.nan)}, facts)
    with pytest.raises(RunFailed, match="generation 2: a parameter is not finite"):
        broken.advance()
