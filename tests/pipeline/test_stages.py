"""What the stages take from a run's episodes and from its V, and what they refuse."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wm_tf import collect, storage
from wm_tf.config import CollectConfig, MemoryConfig, get_task, preset
from wm_tf.data.episodes import (
    FIRST_DRIVEN,
    Episode,
    episode_path,
    mark_imported,
    read_episode,
    write_episode,
)
from wm_tf.errors import DamagedFile, UserError
from wm_tf.pipeline import stages
from wm_tf.pipeline.dataset import held_out_part, training_part
from wm_tf.pipeline.gathering import collect_round
from wm_tf.pipeline.run import Run
from wm_tf.pipeline.stages import memory_round


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.open(tmp_path, preset("car_racing", "smoke", seed=4))


def test_imported_episodes_are_kept(run: Run) -> None:
    task, folder = get_task("car_racing"), run.rollouts(0)
    for index in range(2):
        write_episode(episode_path(folder, index), still_episode([1.0]), task)
    mark_imported(folder, 2)
    with ThreadPoolExecutor(1) as executor:
        for patience in (1, 2):
            config = CollectConfig(episodes=3, patience=patience)
            collect_round(run, executor, 0, config)
    seeds = [read_episode(episode_path(folder, index), task).seed for index in range(3)]
    assert seeds[:2] == [7, 7]
    assert seeds[2] != 7


def test_episodes_that_others_made_are_kept(run: Run) -> None:
    """Those from before a collection has a record; a person's are numbered apart."""
    task = get_task("car_racing")
    paths = [episode_path(run.rollouts(0), index) for index in (0, FIRST_DRIVEN)]
    episode = Episode(
        np.zeros((3, 64, 64, 3), np.uint8), np.zeros((2, 3), np.float32),
        np.zeros(2, np.float32), False, True, False, seed=7, policy="a person",
    )  # fmt: skip
    for path in paths:
        write_episode(path, episode, task)
    config = CollectConfig(episodes=1)
    with ThreadPoolExecutor(1) as executor:
        collect_round(run, executor, 0, config)
        assert [read_episode(path, task).seed for path in paths] == [7, 7]
        # Of other inputs: what was collected goes, what a person drove stays.
        other = Run.open(run.folder, preset("car_racing", "smoke", seed=5))
        collect_round(other, executor, 0, dataclasses.replace(config, patience=1))
    assert read_episode(paths[1], task).seed == 7
    assert read_episode(paths[0], task).seed != 7


def still_episode(rewards: list[float]) -> Episode:
    steps = len(rewards)
    return Episode(
        np.zeros((steps + 1, 64, 64, 3), np.uint8), np.zeros((steps, 3), np.float32),
        np.array(rewards), False, True, False, seed=7, policy="random",
    )  # fmt: skip


def test_a_rounds_figures_are_those_of_all_its_episodes(run: Run) -> None:
    """Of those that were played before an interruption, too; not of a person's."""
    task, folder = get_task("car_racing"), run.rollouts(0)
    for index, rewards in ((0, [1.0, 2.0]), (1, [6.0]), (FIRST_DRIVEN, [100.0])):
        write_episode(episode_path(folder, index), still_episode(rewards), task)
    with ThreadPoolExecutor(1) as executor:
        result = collect_round(run, executor, 0, CollectConfig(episodes=2))
    assert (result["mean_return"], result["steps"]) == (4.5, 3)


def test_a_damaged_episode_is_named_or_left_out_of_the_figures(run: Run) -> None:
    task, folder = get_task("car_racing"), run.rollouts(0)
    write_episode(episode_path(folder, 0), still_episode([1.0, 2.0]), task)
    episode_path(folder, 1).write_bytes(b"damaged" * 20)
    config = CollectConfig(episodes=2)
    with ThreadPoolExecutor(1) as executor:
        with pytest.raises(DamagedFile, match=r"episode-000001.npz: damaged"):
            collect_round(run, executor, 0, config)
        skipping = Run.open(run.folder, run.config, skip_corrupt=True)
        for damaged in (b"damaged" * 20, b"short"):
            episode_path(folder, 1).write_bytes(damaged)
            result = collect_round(skipping, executor, 0, config)
            assert (result["mean_return"], result["steps"]) == (3.0, 2)


def write_vision(run: Run) -> Path:
    path = run.checkpoint("vision", 0)
    storage.write_npz(path, {"weight": np.ones(9)}, {"kind": "checkpoint", "task": "car_racing"})
    return path


def test_no_memory_is_trained_on_a_vision_that_is_not(run: Run) -> None:
    write_episode(episode_path(run.rollouts(0), 0), still_episode([1.0, 2.0]), run.config.task)

    def interrupted() -> tuple[list[Path], dict[str, Any]]:
        write_vision(run)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.stage("vision", 0, {"data": 1}, interrupted, goal=2)
    with pytest.raises(UserError, match="V of round 0 is not trained to its end; train-vision"):
        memory_round(run, 1, MemoryConfig())


def test_a_share_of_random_play_is_not_of_what_a_person_drove(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    indices = [0, 1, 2, 3, FIRST_DRIVEN, FIRST_DRIVEN + 1]
    places = [(0, index) for index in indices] + [(1, index) for index in (0, 1)]
    for round_index, index in places:
        path = episode_path(run.rollouts(round_index), index)
        write_episode(path, still_episode([1.0, 2.0]), run.config.task)
    mark_imported(run.rollouts(0), 2)
    write_vision(run)
    latents = [episode_path(run.latents(round_index), index) for round_index, index in places]
    seen: dict[str, list[Path]] = {}

    def train(memory: object, later: list[Path], *_: object, **named: Any) -> float:
        seen.update(later=later, random=named["random"])
        storage.write_npz(run.checkpoint("memory", 1), {"weight": np.ones(1)})
        return 1.0

    for name, substitute in (
        ("train_memory", train),
        ("encode_rounds", lambda *_: latents),
        ("measure_memory", lambda *_: {}),
    ):
        monkeypatch.setattr(stages, name, substitute)
    memory_round(run, 1, MemoryConfig(random_share=0.5))
    # Held out are each round's first and the first driven one; imported are the first two.
    assert seen["random"] == latents[2:4]
    assert seen["later"] == [latents[1], latents[5], latents[7]]


def test_held_out_episodes_are_held_out_whatever_else_there_is(tmp_path: Path) -> None:
    rounds = [[episode_path(tmp_path / name, index) for index in range(50)] for name in ("0", "1")]
    before = set(held_out_part(rounds[0] + rounds[1]))
    assert len(before) == 6
    driven = [episode_path(tmp_path / "0", FIRST_DRIVEN + index) for index in range(3)]
    after = [*rounds[0], *driven, *rounds[1][:7], *rounds[1][8:]]
    assert before <= set(held_out_part(after))
    assert not before & set(training_part(after))
    numbers = [int(path.stem[-6:]) for path in held_out_part(rounds[0])]
    assert numbers == [0, 21, 42]
    others = [tmp_path / "0" / "episode-mine.npz", *rounds[0][1:3]]
    assert (held_out_part(others), training_part(others)) == (others[:1], others[1:])


@pytest.mark.parametrize("quiet", [0.5, 0.25])
def test_held_out_episodes_are_of_both_drivers_with_and_without_noise(
    tmp_path: Path, quiet: float
) -> None:
    paths = held_out_part([episode_path(tmp_path, index) for index in range(160)])
    numbers = [int(path.stem[-6:]) for path in paths]
    config = CollectConfig(quiet_fraction=quiet)
    assert {collect._is_quiet(number, config) for number in numbers} == {True, False}
    assert {number % 2 for number in numbers} == {0, 1}


def test_a_damaged_vision_is_not_another_one_for_the_memory(run: Run) -> None:
    path = episode_path(run.rollouts(0), 0)
    write_episode(path, still_episode([1.0, 2.0]), run.config.task)
    vision = write_vision(run)
    vision.write_bytes(vision.read_bytes()[:-1])
    memory = run.checkpoint("memory", 0)
    memory.write_bytes(b"trained")
    with pytest.raises(DamagedFile, match=r"vision-00.npz: damaged"):
        memory_round(run, 0, run.config.round(0).memory)
    assert memory.read_bytes() == b"trained"
