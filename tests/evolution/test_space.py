"""The space of gains and offsets, and the evolution that searches it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wm_tf.config import ControllerConfig, get_task
from wm_tf.errors import UserError
from wm_tf.evolution.fitness import Fitness
from wm_tf.evolution.space import Actuators, Weights
from wm_tf.evolution.train import Evolved, evolve
from wm_tf.models import controller

TASK = get_task("car_racing")
RANDOM = np.random.default_rng(5)
INITIAL = RANDOM.normal(size=TASK.controller_parameters)
POINT = np.array([0.2, -0.3, 0.1, 0.5, -0.4, 0.3])


def drive(parameters: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """The actions before they are squashed."""
    kernel, bias = controller.split_parameters(TASK, parameters)
    return (np.asarray(kernel) @ inputs[..., np.newaxis])[..., 0] + np.asarray(bias)


def test_the_start_is_the_controller_itself() -> None:
    for space in (Actuators(TASK, INITIAL), Weights(INITIAL)):
        np.testing.assert_array_equal(space.parameters(space.start), INITIAL)


def test_gains_and_offsets_act_on_each_action() -> None:
    inputs = RANDOM.normal(size=TASK.controller_inputs)
    parameters = Actuators(TASK, INITIAL).parameters(POINT)
    expected = np.exp(POINT[:3]) * drive(INITIAL, inputs) + POINT[3:]
    np.testing.assert_allclose(drive(parameters, inputs), expected, rtol=1e-12)


def test_many_points_are_the_same_as_each_alone() -> None:
    space = Actuators(TASK, INITIAL)
    points = RANDOM.normal(size=(5, 6))
    together = space.parameters(points)
    for point, parameters in zip(points, together, strict=True):
        np.testing.assert_array_equal(space.parameters(point), parameters)


def test_a_controller_without_bias_has_no_offsets() -> None:
    task = get_task("take_cover")
    with pytest.raises(UserError, match="no bias"):
        Actuators(task, np.zeros(task.controller_parameters))


def test_there_is_something_to_scale() -> None:
    with pytest.raises(UserError, match="a controller to begin with, got none"):
        Actuators(TASK, np.zeros(TASK.controller_parameters))


def near_point(candidates: np.ndarray, generation: int) -> Fitness:
    """Best for the controller at POINT."""
    goal = Actuators(TASK, INITIAL).parameters(POINT)
    return Fitness(-((candidates - goal) ** 2).sum(axis=1), 100)


def run(folder: Path, generations: int) -> Evolved:
    return evolve(
        near_point,
        lambda parameters: near_point(parameters[np.newaxis], 0).returns,
        INITIAL,
        ControllerConfig(generations=generations, search="actuators", population=8, sigma=0.2),
        task=TASK, seed=3, path=folder / "controller.npz", logs=folder / "logs", facts={},
    )  # fmt: skip


def test_an_evolution_finds_gains_and_offsets_and_goes_on_exactly(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", 80)
    run(tmp_path / "parts", 15)
    parts = run(tmp_path / "parts", 80)
    np.testing.assert_allclose(whole.strategy.mean, POINT, atol=0.05)
    assert whole.best.shape == INITIAL.shape
    assert whole.best_score > 0.1 * near_point(INITIAL[np.newaxis], 0).returns[0]
    np.testing.assert_array_equal(whole.best, parts.best)
    np.testing.assert_array_equal(whole.mean, parts.mean)
