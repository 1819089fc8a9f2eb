"""Collection: the same files with any number of workers, and only what is missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from wm_tf import agent
from wm_tf import collect as module
from wm_tf.collect import collect
from wm_tf.config import CollectConfig, get_task
from wm_tf.data.episodes import episode_path, episode_paths, read_episode
from wm_tf.execution import LocalExecutor, SerialExecutor
from wm_tf.seeding import Purpose

TASK = dataclasses.replace(get_task("car_racing"), max_steps=20)
CONFIG = CollectConfig(episodes=6)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in episode_paths(folder)}


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collected")
    outcomes = collect(SerialExecutor(), TASK, folder, CONFIG, seed=1)
    assert [outcome.steps for outcome in outcomes] == [20] * 6
    return folder


def test_workers_give_the_same_bytes(collected: Path, tmp_path: Path) -> None:
    with LocalExecutor(2) as executor:
        collect(executor, TASK, tmp_path, CONFIG, seed=1)
    assert contents(tmp_path) == contents(collected)


def test_episodes_differ_and_belong_to_seed_and_round(collected: Path, tmp_path: Path) -> None:
    seeds = [read_episode(path, TASK).seed for path in episode_paths(collected)]
    assert len(set(seeds)) == 6
    one = dataclasses.replace(CONFIG, episodes=1)
    for name, options in {"seed": {"seed": 2}, "round": {"seed": 1, "round_index": 1}}.items():
        collect(SerialExecutor(), TASK, tmp_path / name, one, **options)
        assert read_episode(episode_path(tmp_path / name, 0), TASK).seed not in seeds


def test_only_what_is_missing_is_played(
    collected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in (0, 3, 4):
        path = episode_path(collected, index)
        (tmp_path / path.name).write_bytes(path.read_bytes())
    played: list[int] = []
    play = agent.play

    def watched(chunk: agent.Chunk) -> list[agent.Outcome]:
        played.extend(rollout.key[-1] for rollout in chunk.rollouts)
        return play(chunk)

    monkeypatch.setattr(agent, "play", watched)
    outcomes = collect(SerialExecutor(), TASK, tmp_path, CONFIG, seed=1)
    assert len(outcomes) == 3
    assert played == [1, 2, 5]
    assert contents(tmp_path) == contents(collected)
    assert collect(SerialExecutor(), TASK, tmp_path, CONFIG, seed=1) == []
    assert len(played) == 3


def work_of(
    monkeypatch: pytest.MonkeyPatch, folder: Path, config: CollectConfig, **options: object
) -> list[agent.Rollout]:
    """The rollouts that a collection would play."""
    planned: list[agent.Rollout] = []

    def plan(_: object, work: Sequence[agent.Chunk], __: int) -> list[agent.Outcome]:
        for chunk in work:
            assert (chunk.patience, chunk.precision) == (config.patience, "bfloat16")
            assert chunk.immortal == config.immortal
            planned.extend(chunk.rollouts)
        return []

    monkeypatch.setattr(module, "_play", plan)
    monkeypatch.setattr(module, "compute_dtype", {"auto": "bfloat16"}.__getitem__)
    collect(SerialExecutor(), TASK, folder, config, seed=1, **options)  # type: ignore[arg-type]
    return planned


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 1.0])
def test_a_share_of_a_controllers_episodes_is_quiet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fraction: float
) -> None:
    config = CollectConfig(episodes=40, noise=0.3, quiet_fraction=fraction, patience=7)
    models = agent.ModelsAt(tmp_path, "")
    work = work_of(monkeypatch, tmp_path, config, models=models)
    noises = [rollout.noise for rollout in work]
    assert set(noises) <= {0.0, 0.3}
    assert noises.count(0.0) == 40 * fraction
    assert [rollout.key for rollout in work] == [
        (int(Purpose.COLLECTION), 0, index) for index in range(40)
    ]
    assert {rollout.noise for rollout in work_of(monkeypatch, tmp_path, config)} == {0.0}


def test_controllers_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = [np.full(867, value, np.float32) for value in (1.0, 2.0)]
    models = agent.ModelsAt(tmp_path, "")
    config = CollectConfig(episodes=8, quiet_fraction=0.5, immortal=True)
    work = work_of(monkeypatch, tmp_path, config, models=models, controllers=parameters)
    drivers = [(rollout.parameters[0], rollout.noise > 0) for rollout in work]
    assert sorted(drivers) == sorted([(1.0, False), (1.0, True), (2.0, False), (2.0, True)] * 2)


@pytest.mark.skipif(find_spec("vizdoom") is None, reason="vizdoom is not installed")
def test_an_immortal_player_meets_what_could_have_killed_until_the_time_is_up(
    tmp_path: Path,
) -> None:
    task = get_task("take_cover")
    config = CollectConfig(episodes=1, immortal=True)
    collect(SerialExecutor(), task, tmp_path, config, seed=1)
    episode = read_episode(episode_path(tmp_path, 0), task)
    assert (episode.steps, episode.terminated, episode.truncated) == (task.max_steps, False, True)
    assert episode.end_probability is not None
    assert episode.end_probability.sum() > 2.0
