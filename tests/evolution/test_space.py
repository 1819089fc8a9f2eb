"""The space of gains and offsets, and the evolution that searches it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from wm_tf.config import ControllerConfig, get_task
from wm_tf.errors import UserError
from wm_tf.evolution.evolution import Evolution
from wm_tf.evolution.fitness import Fitness
from wm_tf.evolution.space import Actuators, Weights, check_space, make_space
from wm_tf.evolution.train import Trained, train_controller
from wm_tf.models import controller

TASK = get_task("car_racing")
RANDOM = np.random.default_rng(5)
INITIAL = RANDOM.normal(size=TASK.controller_parameters)
POINT = np.array([0.2, -0.3, 0.1, 0.5, -0.4, 0.3])


def drive(parameters: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """The actions before they are squashed."""
    ((kernel, bias),) = controller.split_parameters(TASK, parameters)
    return (np.asarray(kernel) @ inputs[..., np.newaxis])[..., 0] + np.asarray(bias)


def test_the_start_is_the_controller_itself() -> None:
    for space in (Actuators(TASK, INITIAL), Weights(INITIAL)):
        np.testing.assert_array_equal(space.parameters(space.start), INITIAL)


@pytest.mark.parametrize("hidden", [0, 5])
@pytest.mark.parametrize("name", ["car_racing", "take_cover"])
def test_a_controller_that_sees_z_alone_has_all_weights_of_z(name: str, hidden: int) -> None:
    task = get_task(name)
    config = ControllerConfig(sees="latent", hidden=hidden)
    space = make_space(config, task, np.zeros(task.controller_size(hidden)))
    generator = np.random.default_rng(8)
    parameters = space.parameters(generator.normal(0.0, 0.1, (2, *space.start.shape)))
    layer = hidden or task.action_size
    left_out = layer * (task.controller_inputs - task.latent_size)
    assert space.start.shape == (task.controller_size(hidden) - left_out,)
    assert ((parameters != 0).sum(axis=1) == len(space.start)).all()
    seen = generator.normal(size=(2, task.controller_inputs)).astype(np.float32)
    seen[1, : task.latent_size] = seen[0, : task.latent_size]  # another state of M
    first, second = controller.act(task, parameters[0].astype(np.float32), seen).numpy()
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("hidden", "sees"), [(0, "state"), (5, "state"), (0, "latent")])
def test_a_step_of_a_scaled_weight_is_worth_the_same_whatever_it_reads(
    hidden: int, sees: Literal["state", "latent"]
) -> None:
    spread = RANDOM.uniform(0.05, 3.0, TASK.controller_inputs)
    seen = RANDOM.normal(2.0, spread, (20_000, TASK.controller_inputs))
    config = ControllerConfig(search="scaled", sees=sees, hidden=hidden)
    initial = RANDOM.normal(size=TASK.controller_size(hidden))
    space = make_space(config, TASK, initial, seen)
    if sees == "state":
        np.testing.assert_allclose(space.parameters(space.start), initial, rtol=1e-12)
    layers = controller.split_parameters(TASK, space.parameters(np.ones_like(space.start)))
    (kernel, bias), *others = layers
    free = slice(TASK.latent_size if sees == "latent" else None)
    np.testing.assert_allclose((np.asarray(kernel) * (spread + 0.02))[:, free], 1.0, rtol=0.05)
    for array in (bias, *(part for layer in others for part in layer)):
        np.testing.assert_array_equal(array, 1.0)


def test_scaled_weights_need_what_the_controller_sees() -> None:
    with pytest.raises(UserError, match="--search scaled: expected models with starts on the way"):
        make_space(ControllerConfig(search="scaled"), TASK, INITIAL)


def test_a_hidden_layer_is_that_of_the_controller_to_begin_with() -> None:
    with pytest.raises(UserError, match="--hidden: expected 0, as the controller to begin"):
        check_space(ControllerConfig(hidden=40), TASK, INITIAL)
    with pytest.raises(UserError, match="neither --hidden nor --sees latent"):
        ControllerConfig(hidden=40, search="actuators")


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


@pytest.mark.parametrize(
    ("task", "initial", "components", "reason"),
    [
        ("take_cover", 1.0, 0, "no bias"),
        ("car_racing", 0.0, 0, "a controller to begin with, got none"),
        ("car_racing", 1.0, 289, "--components: expected at most 288, got 289"),
    ],
)
def test_a_space_that_a_controller_does_not_have_is_refused(
    task: str, initial: float, components: int, reason: str
) -> None:
    config = ControllerConfig(search="actuators", components=components)
    with pytest.raises(UserError, match=reason):
        sizes = get_task(task)
        check_space(config, sizes, np.full(sizes.controller_parameters, initial))


def test_components_are_of_the_actuators() -> None:
    with pytest.raises(UserError, match="expected 0 without --search actuators, got 3"):
        ControllerConfig(components=3)


SEEN = RANDOM.normal(size=(400, 20)) @ RANDOM.normal(size=(20, TASK.controller_inputs)) + 3.0


def test_components_are_features_of_unit_variance_that_actions_follow() -> None:
    space = Actuators(TASK, INITIAL, SEEN, components=4)
    np.testing.assert_allclose(space.parameters(space.start), INITIAL, rtol=1e-12)
    assert space.start.shape == (3 * (2 + 4),)
    follow = np.zeros((3, 4))
    follow[1, 2], follow[2, 0] = 0.7, -0.2
    parameters = space.parameters(np.concatenate([np.zeros(6), follow.ravel()]))
    change = (
        drive(parameters, SEEN[:, np.newaxis])[:, 0] - drive(INITIAL, SEEN[:, np.newaxis])[:, 0]
    )
    np.testing.assert_allclose(change.mean(axis=0), 0.0, atol=1e-9)
    np.testing.assert_allclose(change.std(axis=0), [0.0, 0.7, 0.2], rtol=1e-9)
    assert abs(np.corrcoef(change[:, 1], change[:, 2])[0, 1]) < 1e-9  # other components


@pytest.mark.parametrize("moments", [None, 0, 4])
def test_there_are_more_moments_than_components(moments: int | None) -> None:
    seen = None if moments is None else SEEN[:moments]
    with pytest.raises(UserError, match=f"fewer than the {moments or 0} moments"):
        Actuators(TASK, INITIAL, seen, components=4)


def near_point(candidates: np.ndarray, generation: int) -> Fitness:
    """Best for the controller at POINT."""
    goal = Actuators(TASK, INITIAL).parameters(POINT)
    return Fitness(-((candidates - goal) ** 2).sum(axis=1), 100)


def run(folder: Path, generations: int) -> tuple[Trained, Evolution]:
    config = ControllerConfig(generations=generations, search="actuators", population=8, sigma=0.2)
    learner = Evolution(near_point, Actuators(TASK, INITIAL), config, seed=3)
    trained = train_controller(
        learner,
        lambda parameters: near_point(parameters[np.newaxis], 0).returns,
        config,
        task=TASK, path=folder / "controller.npz", logs=folder / "logs", facts={},
    )  # fmt: skip
    return trained, learner


def test_an_evolution_finds_gains_and_offsets_and_goes_on_exactly(tmp_path: Path) -> None:
    whole, evolution = run(tmp_path / "whole", 80)
    run(tmp_path / "parts", 15)
    parts, other = run(tmp_path / "parts", 80)
    np.testing.assert_allclose(evolution.strategy.mean, POINT, atol=0.05)
    assert whole.best.shape == INITIAL.shape
    assert whole.best_score > 0.1 * near_point(INITIAL[np.newaxis], 0).returns[0]
    np.testing.assert_array_equal(whole.best, parts.best)
    np.testing.assert_array_equal(evolution.mean, other.mean)
