"""Sizes of the contract, presets of the paper."""

import dataclasses
from typing import get_args

import pytest

from wm_tf.config import TASKS, Config, ControllerConfig, PresetName, Stages, get_task, preset
from wm_tf.errors import UserError

PRESETS = [(task, name) for task in TASKS for name in get_args(PresetName)]
every_preset = pytest.mark.parametrize(("task", "name"), PRESETS)


def stages(config: Config) -> list[Stages]:
    return [config.round(index) for index in range(config.iterations)]


@pytest.mark.parametrize(
    ("task", "latent", "hidden", "action", "inputs", "parameters"),
    [
        # Ha & Schmidhuber 2018, appendix: 867 and 1,088 parameters of C.
        ("car_racing", 32, 256, 3, 288, 867),
        ("take_cover", 64, 512, 1, 1088, 1088),
    ],
)
def test_sizes_of_the_paper(task, latent, hidden, action, inputs, parameters):
    found = get_task(task)
    assert (found.latent_size, found.hidden_size, found.mixtures) == (latent, hidden, 5)
    assert found.action_size == action
    assert found.controller_inputs == inputs
    assert found.controller_parameters == parameters


def test_environments_of_the_contract():
    ids = {task.name: (task.environment, task.dream) for task in TASKS.values()}
    assert ids == {
        "car_racing": ("wm_tf/CarRacing-v0", "wm_tf/CarRacingDream-v0"),
        "take_cover": ("wm_tf/TakeCover-v0", "wm_tf/TakeCoverDream-v0"),
    }
    assert TASKS["take_cover"].max_steps == 2100
    assert get_task("car_racing").squash == ("tanh", "unit", "brake")


def test_numbers_of_the_paper():
    car, doom = preset("car_racing", "paper"), preset("take_cover", "paper")
    assert car.round(0).collect.episodes == doom.round(0).collect.episodes == 10_000
    assert car.iterations == doom.iterations == 1
    assert (car.round(0).vision.epochs, doom.round(0).vision.epochs) == (10, 1)
    assert (car.round(0).memory.sequence_length, doom.round(0).memory.sequence_length) == (999, 500)
    for config in (car, doom):
        assert (config.round(0).memory.epochs, config.round(0).memory.batch_size) == (20, 100)
        assert (config.round(0).vision.learning_rate, config.round(0).vision.batch_size) == (
            1e-4,
            100,
        )
        assert (config.round(0).memory.learning_rate, config.round(0).memory.gradient_clip) == (
            1e-3,
            1,
        )
        assert config.round(0).controller.population == 64
        assert config.round(0).controller.rollouts == 16
    assert car.round(0).controller.generations == 1800
    assert doom.round(0).controller.generations == 200
    assert doom.round(0).controller.temperature == 1.15


@every_preset
def test_presets_say_what_they_are(task, name):
    config = preset(task, name, seed=77)
    assert (config.task, config.preset, config.seed) == (TASKS[task], name, 77)
    assert config.iterations >= 1


@every_preset
def test_presets_can_be_run(task, name):
    for index, stage in enumerate(stages(preset(task, name))):
        assert stage.collect.episodes > 0
        assert stage.collect.policy == ("random" if index == 0 else "controller")
        assert stage.memory.epochs > 0 and stage.controller.generations > 0
        assert stage.controller.population > 1 and stage.controller.rollouts > 0
        assert 0 < stage.controller.horizon <= TASKS[task].max_steps
        assert stage.controller.temperature > 0 and stage.controller.sigma > 0
    assert preset(task, name).round(0).vision.epochs > 0


@every_preset
def test_the_members_of_a_rounds_dreams_have_one_v(task, name):
    rounds = stages(preset(task, name))
    for index, stage in enumerate(rounds):
        oldest = index + 1 - stage.controller.members
        assert oldest >= 0
        assert not any(later.vision.epochs for later in rounds[oldest + 1 : index + 1])


@every_preset
def test_a_first_round_and_later_ones(task, name):
    config = preset(task, name)
    assert config.round(0) is config.rounds[0]
    assert config.round(1) is config.rounds[1] and config.round(99) is config.rounds[-1]


@pytest.mark.parametrize("task", TASKS)
def test_smoke_shrinks_amounts_not_models(task):
    smoke, paper = preset(task, "smoke"), preset(task, "paper")
    assert smoke.task == paper.task
    assert smoke.round(0).collect.episodes <= 10
    assert smoke.round(0).controller.generations <= 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: get_task("cartpole"), "unknown task 'cartpole'.*car_racing, take_cover"),
        (lambda: preset("cartpole", "paper"), "unknown task 'cartpole'"),
        (lambda: preset("car_racing", "huge"), "unknown preset 'huge'.*paper, desktop, smoke"),
    ],
)
def test_unknown_names_are_refused_with_those_that_are_known(call, message):
    with pytest.raises(UserError, match=message):
        call()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"goal_rise": 5.0}, "--goal-rise: expected 0 without --goal, got 5"),
        ({"members": 3}, "--members: expected a divisor of the 8 rollouts, got 3"),
        ({"members": 0}, "--members"),
    ],
)
def test_hyper_parameters_that_contradict_each_other_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        ControllerConfig(**values)


@every_preset
def test_configs_cannot_be_changed(task, name):
    config = preset(task, name)
    for part in (config, config.task, config.rounds[0], config.rounds[1].controller):
        first = dataclasses.fields(part)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, first, None)
