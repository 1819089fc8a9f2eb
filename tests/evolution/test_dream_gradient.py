"""Policy gradients: they make a controller better in dreams, and go on exactly."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from wm_tf import agent, seeding
from wm_tf.config import ControllerConfig, get_task
from wm_tf.errors import RunFailed, UserError
from wm_tf.evolution.dream_gradient import PURSE, DreamGradient, pay
from wm_tf.seeding import Purpose
from wm_tf.serving import manifest

TASK = get_task("car_racing")
CONFIG = ControllerConfig(
    method="gradients", population=4, rollouts=4, horizon=40, sigma=0.5, patience=10
)


def learner(folder: Path, models: int = 1, config: ControllerConfig = CONFIG) -> DreamGradient:
    place = agent.ModelsAt(folder, manifest.checksum(folder / TASK.name))
    return DreamGradient(TASK, [place] * models, config, 5, np.zeros(TASK.controller_parameters))


def assert_same_state(one: DreamGradient, other: DreamGradient) -> None:
    (arrays, facts), (others, other_facts) = one.state(), other.state()
    assert facts == other_facts
    assert arrays.keys() == others.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, others[name], err_msg=name)


def test_going_on_is_as_never_having_stopped(saved_models: Path) -> None:
    whole = learner(saved_models)
    first = whole.advance()
    arrays, facts = whole.state()
    after_one = whole.mean
    whole.advance()
    assert np.any(whole.mean != after_one)
    assert first["steps"] == 16 * 40
    parts = learner(saved_models)
    parts.restore(arrays, facts)
    np.testing.assert_array_equal(parts.mean, after_one)
    parts.advance()
    assert_same_state(whole, parts)
    del arrays["dreams_purse"]  # as before there were goals
    older = learner(saved_models)
    older.restore(arrays, facts)
    older.advance()
    assert_same_state(whole, older)


def test_several_models_dream_in_equal_shares(saved_models: Path) -> None:
    two = learner(saved_models, models=2)
    assert two.advance()["steps"] == 16 * 40
    assert np.all(np.isfinite(two.mean)) and two.mean.any()


def test_dreams_that_end_begin_anew(saved_models: Path) -> None:
    """Horizon and patience end dreams: none is ever older than they allow."""
    config = dataclasses.replace(CONFIG, patience=3)
    short = learner(saved_models, config=config)
    short.advance()
    arrays, _ = short.state()
    assert arrays["dreams_steps"].max() < config.horizon
    assert arrays["dreams_unrewarded"].max() < config.patience
    assert len(set(arrays["dreams_steps"])) > 1


@pytest.mark.parametrize(
    ("period", "expected"), [(8, 250 * 3.2), (2, PURSE + 0.5 * 2000), (1, PURSE + 0.5 * 2000)]
)
def test_what_is_earned_faster_than_the_pace_does_not_count(period: int, expected: float) -> None:
    """A tile of 3.2 every eight steps is 0.4 a step, below a pace of 0.5; more is cut to it."""
    purse, total = np.float32([PURSE]), 0.0
    for step in range(2000):
        counted, purse = pay(np.float32([3.2 * (step % period == 0)]), purse, np.float32(0.5))
        total += float(counted[0])
    assert total == pytest.approx(expected, rel=0.01)


def test_the_pace_is_the_goals_share_and_rises_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wm_tf.evolution.dream_gradient.PURSE", 0.01)
    trained = Path("saved_models").resolve()

    def taught(**changes: float) -> np.ndarray:
        after = learner(trained, config=dataclasses.replace(CONFIG, **changes))
        for _ in range(2):
            after.advance()
        return after.mean

    slow = taught(goal=0.04)
    assert not np.array_equal(slow, taught())
    assert not np.array_equal(slow, taught(goal=0.04, goal_rise=0.4))


def test_where_survival_counts_dreams_end_by_their_rule_and_a_step_is_worth_1() -> None:
    task = get_task("take_cover")
    folder = Path("saved_models").resolve()
    place = agent.ModelsAt(folder, manifest.checksum(folder / task.name))
    config = dataclasses.replace(CONFIG, horizon=500, patience=0)
    dodger = DreamGradient(task, [place], config, 5, np.zeros(task.controller_parameters))
    ended = 16 * 500 / dodger.advance()["mean"]
    assert ended == pytest.approx(round(ended), abs=1e-3)
    assert ended > 1.5 * 16  # so many end at the horizon alone


def test_a_parameter_that_is_not_finite_stops_the_run(saved_models: Path) -> None:
    broken = learner(saved_models)
    arrays, facts = broken.state()
    broken.restore({**arrays, "variable_0": np.full_like(arrays["variable_0"], np.nan)}, facts)
    with pytest.raises(RunFailed, match="generation 0: a parameter is not finite"):
        broken.advance()


@pytest.mark.parametrize(
    "changes",
    [{"search": "actuators"}, {"search": "scaled"}, {"hidden": 8}, {"sees": "latent"}],
    ids=lambda changes: next(iter(changes)),
)
def test_what_gradients_do_not_go_with_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(UserError, match="--method gradients"):
        ControllerConfig(method="gradients", **changes)  # type: ignore[arg-type]


def test_it_improves_the_score_in_unseen_dreams() -> None:
    from wm_tf.dream.population import PopulationRollout, Starts
    from wm_tf.serving.initial import InitialLatents
    from wm_tf.serving.load import load_keras

    config = dataclasses.replace(CONFIG, population=16, rollouts=8, horizon=96, patience=0)
    taught = learner(Path("saved_models").resolve(), config=config)
    for _ in range(4):
        taught.advance()
    folder = manifest.find_models("saved_models", TASK.name)
    rollout = PopulationRollout(
        TASK, load_keras("saved_models", TASK.name)[1], manifest.EndRule("never")
    )
    random = seeding.generator(6, Purpose.EVALUATION, 0)
    starts = Starts(*InitialLatents.read(folder, TASK).sample(random, 64, TASK.hidden_size))
    both = np.stack([np.zeros_like(taught.mean), taught.mean])
    returns = rollout(both, starts, seed=7, horizon=150).returns
    gain = returns[1] - returns[0]
    assert gain.mean() > 3.0 * gain.std(ddof=1) / np.sqrt(len(gain))
