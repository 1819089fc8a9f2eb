"""Episodes as a Minari data set: Minari reads the same arrays, and back come the same episodes."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from wm_tf import cli
from wm_tf.config import TASKS, Task, get_task
from wm_tf.data.episodes import (
    Episode,
    episode_path,
    episode_paths,
    read_episode,
    write_episode,
)
from wm_tf.errors import UserError

minari = pytest.importorskip("minari")
minari_data = pytest.importorskip("wm_tf.pipeline.minari_data")


def episode(task: Task, seed: int, steps: int, terminated: bool) -> Episode:
    random = np.random.default_rng(seed)
    return Episode(
        frames=random.integers(0, 256, (steps + 1, 64, 64, 3)).astype(np.uint8),
        actions=random.random((steps, task.action_size), np.float32),
        rewards=random.normal(size=steps).astype(np.float32),
        terminated=terminated,
        truncated=not terminated,
        last_frame_repeated=terminated,
        seed=seed,
        policy="random" if terminated else "controller, noise 0.3",
        end_probability=random.random(steps, np.float32) if task.mortal else None,
    )


def write_run(run: Path, task: Task) -> list[Episode]:
    """Two episodes of a first and one of a second round."""
    written = []
    for seed, (round_index, index, steps, terminated) in enumerate(
        [(0, 0, 5, True), (0, 1, 1, False), (1, 0, 7, True)], start=2**31 - 4
    ):
        written.append(episode(task, seed, steps, terminated))
        path = episode_path(run / "rollouts" / f"{round_index:02d}", index)
        write_episode(path, written[-1], task)
    return written


def same(first: Episode, second: Episode) -> bool:
    for field in dataclasses.fields(Episode):
        ours, theirs = getattr(first, field.name), getattr(second, field.name)
        if type(ours) is not type(theirs) or not np.array_equal(ours, theirs):
            return False
        if isinstance(ours, np.ndarray) and ours.dtype != theirs.dtype:
            return False
    return True


@pytest.mark.parametrize("name", TASKS)
def test_what_is_exported_and_imported_is_the_same(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = get_task(name)
    episodes = write_run(tmp_path / "run", task)
    out = tmp_path / "sets" / "drives-v3"
    assert cli.main(["export-data", name, "--run", str(tmp_path / "run"), "--out", str(out)]) == 0

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(out.parent))
    dataset = minari.load_dataset("drives-v3")
    assert (dataset.total_episodes, dataset.total_steps) == (3, 13)
    assert "total_steps=5" in repr(dataset[0])
    assert dataset.env_spec.id == task.environment
    low = {"car_racing": [-1, 0, 0], "take_cover": [-1]}[name]
    assert dataset.action_space == gymnasium.spaces.Box(np.float32(low), np.ones_like(low, "f4"))
    for stored, ours in zip(dataset, episodes, strict=True):
        np.testing.assert_array_equal(stored.observations, ours.frames)
        np.testing.assert_array_equal(stored.actions, ours.actions)
        np.testing.assert_array_equal(stored.rewards, ours.rewards)
        assert stored.terminations.tolist() == [False] * (ours.steps - 1) + [ours.terminated]
        assert stored.truncations.tolist() == [False] * (ours.steps - 1) + [ours.truncated]

    command = ["import-data", name, "--run", str(tmp_path / "new"), "--data", str(out)]
    assert cli.main([*command, "--round", "1"]) == 0
    paths = episode_paths(tmp_path / "new" / "rollouts" / "01")
    imported = [read_episode(path, task) for path in paths]
    assert all(same(*pair) for pair in zip(imported, episodes, strict=True))
    other = {"car_racing": "take_cover", "take_cover": "car_racing"}[name]
    collect = ["collect", other, "--run", str(tmp_path / "new"), "--preset", "smoke"]
    assert cli.main(collect) == 2  # it is a run of this task now


def test_an_import_that_is_interrupted_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = get_task("car_racing")
    write_run(tmp_path / "run", task)
    minari_data.export_data(tmp_path / "run", task, tmp_path / "set-v0")
    folder = tmp_path / "new" / "rollouts" / "00"

    def interrupt(path: Path, *content: object) -> None:
        if path.name == "episode-000001.npz":
            raise KeyboardInterrupt
        write_episode(path, *content)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(minari_data, "write_episode", interrupt)
        minari_data.import_data(tmp_path / "set-v0", task, folder)
    assert not list(folder.parent.iterdir())
    # SIGKILL leaves the part beside the round, where nobody takes it for one.
    left = tmp_path / "run" / "rollouts" / ".01.1.new"
    shutil.copytree(tmp_path / "run" / "rollouts" / "00", left)
    minari_data.export_data(tmp_path / "run", task, tmp_path / "again-v0")
    assert minari_data.import_data(tmp_path / "again-v0", task, folder) == 3
    assert len(episode_paths(folder)) == 3


@pytest.mark.parametrize("damage", ["cut", "zeros"])
def test_a_damaged_data_set_of_somebody_else_is_bad_input(tmp_path: Path, damage: str) -> None:
    """Without our checksums it is HDF5 that finds it, at the beginning or on the way."""
    task = get_task("car_racing")
    write_run(tmp_path / "run", task)
    data = minari_data.export_data(tmp_path / "run", task, tmp_path / "set-v0")
    (data / "manifest.json").unlink()
    file = data / "data" / "main_data.hdf5"
    content = bytearray(file.read_bytes())
    content[800:] = b"" if damage == "cut" else bytes(len(content) - 800)
    file.write_bytes(content)
    with pytest.raises(UserError, match="set-v0: not a Minari data set that can be read"):
        minari_data.import_data(data, task, tmp_path / "new" / "rollouts" / "00")
    assert not list((tmp_path / "new").rglob("episode-*"))


def test_a_data_set_of_somebody_else_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without what only this project's data sets know, and with other types of numbers."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    task = get_task("car_racing")
    ours = episode(task, 5, 4, terminated=True)
    buffer = minari.data_collector.EpisodeBuffer(
        observations=list(ours.frames),
        actions=list(ours.actions.astype(np.float64)),
        rewards=ours.rewards.astype(np.float64).tolist(),
        terminations=[False, False, False, True],
        truncations=[False] * 4,
    )
    with pytest.warns(UserWarning, match="is set to None"):
        minari.create_dataset_from_buffers(
            "theirs-v0",
            [buffer],
            env=task.environment,
            jpeg_encoding=False,
        )
    command = ["import-data", "car_racing", "--run", str(tmp_path / "run")]
    assert cli.main([*command, "--data", str(tmp_path / "theirs-v0")]) == 0
    imported = read_episode(episode_path(tmp_path / "run" / "rollouts" / "00", 0), task)
    expected = dataclasses.replace(ours, seed=-1, policy="imported", last_frame_repeated=False)
    assert same(imported, expected)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("end_probability", np.nan, "end_probability: expected 0 to 1, got nan at [3]"),
        ("end_probability", 7.0, "end_probability: expected 0 to 1, got 7 at [3]"),
        ("actions", np.nan, "actions: expected [-1.0, 0.0, 0.0] to [1.0, 1.0, 1.0], got nan at [2"),
        ("actions", -1.5, "actions: expected [-1.0, 0.0, 0.0] to [1.0, 1.0, 1.0], got -1.5 at [2"),
        ("rewards", np.inf, "rewards: expected finite numbers, got inf at [2]"),
    ],
)
def test_numbers_that_no_model_could_learn_from_are_refused(
    tmp_path: Path, field: str, value: float, message: str
) -> None:
    task = get_task("take_cover" if field == "end_probability" else "car_racing")
    bad = episode(task, 5, 4, terminated=True)
    getattr(bad, field)[2:] = value
    write_episode(episode_path(tmp_path / "run" / "rollouts" / "00", 0), bad, task)
    data = minari_data.export_data(tmp_path / "run", task, tmp_path / "set-v0")
    with pytest.raises(UserError, match=re.escape(f"set-v0: episode 0: {message}")):
        minari_data.import_data(data, task, tmp_path / "new" / "rollouts" / "00")
    assert not list((tmp_path / "new").rglob("episode-*"))


@pytest.mark.parametrize("ends", [0.0, np.zeros(4), np.zeros([5, 1])])
def test_end_probabilities_of_another_shape_are_refused(tmp_path: Path, ends: Any) -> None:
    task = get_task("take_cover")
    ours = episode(task, 5, 4, terminated=True)
    content = minari.EpisodeData(
        id=0,
        observations=ours.frames,
        actions=ours.actions,
        rewards=ours.rewards,
        terminations=np.zeros(4, bool),
        truncations=np.zeros(4, bool),
        infos={"end_probability": ends},
    )
    with pytest.raises(UserError, match=r"end_probability: expected float \[5\], got float64"):
        minari_data._episode(tmp_path, 0, content, {}, task)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("export-data", "car_racing", "--run", "none"), "none: holds no episodes"),
        (("export-data", "car_racing", "--run", "x" * 300), "xxx: holds no episodes"),
        (("export-data", "take_cover", "--run", "run"), "expected 'take_cover', got 'car_racing'"),
        (("export-data", "car_racing", "--run", "run", "--out", "here"), "got 'here'"),
        (("export-data", "car_racing", "--run", "run", "--out", "run"), "run: exists already"),
        (("import-data", "car_racing", "--run", "run", "--data", "set-v0"), "holds episodes"),
        (("import-data", "car_racing", "--run", "new", "--data", "run"), "not a Minari data set"),
        (
            ("import-data", "take_cover", "--run", "new", "--data", "set-v0"),
            "expected 'take_cover'",
        ),
        (("import-data", "take_cover", "--run", "new", "--data", "their-v0"), "float [5, 1], got"),
    ],
)
def test_what_cannot_be_used_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(Path("run"), get_task("car_racing"))
    if arguments[-1] in ("set-v0", "their-v0"):
        assert cli.main(["export-data", "car_racing", "--run", "run", "--out", arguments[-1]]) == 0
        if arguments[-1] == "their-v0":
            Path("their-v0/manifest.json").unlink()
    capsys.readouterr()
    assert cli.main(list(arguments)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("wm_tf: ")
    assert message in error
    assert not list(Path("new").rglob("*.npz"))
    assert not list(Path("datasets").rglob("*"))
