"""C against NumPy, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wm_tf.config import TASKS, Task, get_task
from wm_tf.models import Controller, controller

CAR, DOOM = get_task("car_racing"), get_task("take_cover")


def inputs(task: Task, rows: int, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(latent, h, c) of so many rows."""
    generator = np.random.default_rng(1)
    sizes = (task.latent_size, task.hidden_size, task.hidden_size)
    latent, h, c = (generator.normal(0, scale, (rows, n)).astype(np.float32) for n in sizes)
    return latent, h, c


def test_sizes_are_the_papers() -> None:
    assert Controller(CAR).parameters.shape == (867,)
    assert Controller(DOOM).parameters.shape == (1088,)


def test_act_is_the_papers_affine_map_of_car_racing() -> None:
    parameters = np.random.default_rng(2).normal(0.0, 0.1, 867)
    latent, h, c = inputs(CAR, 5)
    kernel, bias = parameters[:864].reshape(3, 288), parameters[864:]
    value = np.concatenate([latent, h], -1).astype(np.float64) @ kernel.T + bias
    steer, gas, brake = np.tanh(value).T
    expected = np.stack([steer, (gas + 1.0) / 2.0, np.clip(brake, 0.0, 1.0)], -1)
    actual = Controller(CAR, parameters).act(latent, h, c).numpy()
    # 288 products of about 0.1, rounded to float32 (2^-24) on the way.
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6)
    assert (brake < 0).any()  # the clip was tried
    assert (brake > 0).any()


def test_act_is_the_papers_linear_map_of_take_cover() -> None:
    parameters = np.random.default_rng(3).normal(0.0, 0.1, 1088)
    latent, h, c = inputs(DOOM, 5)
    expected = np.tanh(np.concatenate([latent, h, c], -1).astype(np.float64) @ parameters)
    actual = Controller(DOOM, parameters).act(latent, h, c).numpy()
    np.testing.assert_allclose(actual, expected[:, np.newaxis], rtol=0, atol=4e-6)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_zero_parameters_give_the_middle_of_every_squash(task: Task) -> None:
    middle = {"tanh": 0.0, "unit": 0.5, "brake": 0.0}
    expected = [[middle[kind] for kind in task.squash]] * 2
    np.testing.assert_array_equal(Controller(task).act(*inputs(task, 2)), expected)


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_actions_fill_and_keep_their_ranges(task: Task, scale: float) -> None:
    parameters = np.random.default_rng(4).normal(0.0, 1.0, task.controller_parameters)
    actions = Controller(task, parameters).act(*inputs(task, 200, scale)).numpy()
    assert np.isfinite(actions).all()
    for kind, column in zip(task.squash, actions.T, strict=True):
        low = -1.0 if kind == "tanh" else 0.0
        assert low <= column.min() < low + 0.01, kind
        assert 0.99 < column.max() <= 1.0, kind


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_one_call_serves_many_controllers(task: Task) -> None:
    generator = np.random.default_rng(5)
    parameters = generator.normal(0, 0.1, (4, task.controller_parameters)).astype(np.float32)
    seen = controller.features(task, *inputs(task, 4))
    together = controller.act(task, parameters, seen)
    for row in range(4):
        alone = controller.act(task, parameters[row], seen[row])
        np.testing.assert_allclose(alone, together[row], rtol=0, atol=2e-6)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_hidden_layer_comes_before_the_affine_map(task: Task) -> None:
    hidden, seen = 7, np.concatenate(inputs(task, 5), -1)[:, : task.controller_inputs]
    parameters = np.random.default_rng(6).normal(0.0, 0.1, task.controller_size(hidden))
    size = hidden * task.controller_inputs
    kernel, bias = parameters[:size].reshape(hidden, -1), parameters[size : size + hidden]
    units = np.tanh(seen.astype(np.float64) @ kernel.T + bias)
    rest = parameters[size + hidden :]
    weights = rest[: task.action_size * hidden].reshape(task.action_size, hidden)
    value = units @ weights.T
    if task.controller_has_bias:
        value += rest[task.action_size * hidden :]
    expected = controller.squash(task, value.astype(np.float32))
    actual = Controller(task, parameters).act(*inputs(task, 5))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=4e-6)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_the_number_of_parameters_tells_the_hidden_units(task: Task) -> None:
    for hidden in (0, 1, 2, 40, 1000):
        size = task.controller_size(hidden)
        assert task.hidden_units(size) == hidden
        with pytest.raises(ValueError, match=r"parameters: expected \["):
            task.hidden_units(size + 1)


@settings(max_examples=20, deadline=None)
@given(arrays(np.float32, 867, elements=st.floats(-1e6, 1e6, width=32)))
def test_parameters_round_trip(values: np.ndarray) -> None:
    np.testing.assert_array_equal(Controller(CAR, values).parameters.numpy(), values)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (np.zeros(866), r"parameters: expected \[867\], got \[866\]"),
        (np.zeros((3, 289)), r"parameters: expected \[867\], got \[3, 289\]"),
        (np.full(867, np.nan), "parameters: expected finite values"),
        (np.full(867, np.inf), "parameters: expected finite values"),
    ],
)
def test_bad_parameters_are_refused(parameters: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Controller(CAR, parameters)
    kept = Controller(CAR, np.ones(867))
    with pytest.raises(ValueError, match=message):
        kept.assign(parameters)
    assert (kept.parameters.numpy() == 1.0).all()
