"""Stages are done once for the same inputs, go on after an interruption, and else begin anew."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wm_tf import storage
from wm_tf.cli import main
from wm_tf.config import get_task, preset
from wm_tf.data.episodes import (
    Episode,
    write_episode,
)
from wm_tf.errors import DamagedFile, RunFailed, UserError
from wm_tf.pipeline.checkpoints import member_rounds, networks
from wm_tf.pipeline.ends import end_rule
from wm_tf.pipeline.run import Run
from wm_tf.serving.manifest import EndRule


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.open(tmp_path, preset("car_racing", "smoke", seed=4))


class Work:
    """Makes one file; counts how often, and notes whether there was a part to go on from."""

    def __init__(self, run: Run, fails: bool = False) -> None:
        self.path = run.folder / "checkpoints" / "model.npz"
        self.fails = fails
        self.went_on: list[bool] = []

    def __call__(self) -> tuple[list[Path], dict[str, Any]]:
        self.went_on.append(self.path.exists())
        storage.write_npz(self.path, {"count": np.array(len(self.went_on))})
        if self.fails:
            raise KeyboardInterrupt
        return [self.path], {"count": len(self.went_on)}


@pytest.fixture
def work(run: Run) -> Work:
    return Work(run)


def stage(run: Run, work: Work, *, inputs: object = 1, goal: int = 1) -> dict[str, Any]:
    return run.stage("train", 0, {"inputs": inputs}, work, goal=goal, partial=lambda: [work.path])


def test_a_finished_stage_is_skipped_and_remembered(run: Run, work: Work) -> None:
    assert run.stage_record("train", 0) is None
    first = stage(run, work)
    assert first["count"] == 1
    assert first["seconds"] > 0.0
    assert stage(run, work) == first
    assert stage(Run(run.folder, run.config), work) == first
    record = run.stage_record("train", 0)
    assert record is not None
    assert {**record["result"], "seconds": record["seconds"]} == first
    assert (record["goal"], record["inputs"]) == (1, {"inputs": 1})
    assert work.went_on == [False]


def remove(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    storage.write_npz(path, {"count": np.array(77)})


@pytest.mark.parametrize("change", [remove, replace])
def test_a_stage_whose_file_is_not_its_own_is_repeated(
    run: Run, work: Work, change: Callable[[Path], None]
) -> None:
    stage(run, work)
    change(work.path)
    assert stage(run, work)["count"] == 2


def test_other_inputs_begin_anew(run: Run, work: Work) -> None:
    stage(run, work)
    assert stage(run, work, inputs=2)["count"] == 2
    assert work.went_on == [False, False]  # the part of other inputs was removed
    assert stage(run, work, inputs=1)["count"] == 3


def test_work_that_is_refused_leaves_everything_as_it_was(run: Run, work: Work) -> None:
    def refuse() -> tuple[list[Path], dict[str, Any]]:
        raise UserError("--devices: expected 1")

    with pytest.raises(UserError, match="--devices"):
        run.stage("train", 0, {"inputs": 1}, refuse, goal=1, partial=lambda: [work.path])
    assert [path for path in run.folder.rglob("*") if path.is_file()] == []  # not even begun
    stage(run, work)
    files = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    for inputs, goal in ((2, 1), (1, 5)):
        with pytest.raises(UserError, match="--devices"):
            run.stage(
                "train", 0, {"inputs": inputs}, refuse, goal=goal, partial=lambda: [work.path]
            )
        assert files == {p: p.read_bytes() for p in run.folder.rglob("*") if p.is_file()}
    assert stage(run, work)["count"] == 1


def failed() -> tuple[list[Path], dict[str, Any]]:
    raise RunFailed("the engine does not start")


def interrupted() -> tuple[list[Path], dict[str, Any]]:
    raise KeyboardInterrupt


@pytest.mark.parametrize("ends", [failed, interrupted])
def test_work_of_other_inputs_that_made_nothing_costs_nothing(
    run: Run, work: Work, ends: Callable[[], Any]
) -> None:
    stage(run, work)
    files = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    with pytest.raises((RunFailed, KeyboardInterrupt)):
        run.stage("train", 0, {"inputs": 2}, ends, goal=1, partial=lambda: [work.path])
    assert files == {p: p.read_bytes() for p in run.folder.rglob("*") if p.is_file()}


def kill_at_work(run: Run, work: Work, makes: bool) -> None:
    """Begins the stage with inputs 2 in a process that ends without time to tidy up."""

    def killed() -> tuple[list[Path], dict[str, Any]]:
        if makes:
            storage.write_npz(work.path, {"count": np.array(55)})
        os._exit(0)

    child = os.fork()
    if child == 0:
        try:
            run.stage("train", 0, {"inputs": 2}, killed, goal=1, partial=lambda: [work.path])
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("makes", [False, True])
def test_work_of_other_inputs_that_was_killed_costs_nothing_until_it_has_made_something(
    run: Run, work: Work, makes: bool
) -> None:
    stage(run, work)
    files = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    kill_at_work(run, work, makes)
    assert stage(run, work)["count"] == (2 if makes else 1)
    if not makes:
        assert files == {p: p.read_bytes() for p in run.folder.rglob("*") if p.is_file()}
    assert work.went_on == [False] * len(work.went_on)
    assert not list(run.folder.rglob(".*"))


def test_work_that_was_killed_twice_goes_on_with_what_it_made(run: Run, work: Work) -> None:
    stage(run, work)
    for _ in range(2):
        kill_at_work(run, work, makes=True)
    assert stage(run, work, inputs=2)["count"] == 2
    assert work.went_on == [False, True]


def test_work_that_came_on_before_it_was_refused_is_gone_on_with(run: Run) -> None:
    """As a damaged file does that is met in a later epoch: once it is repaired, nothing is lost."""
    work = Work(run, fails=True)

    def refuse() -> tuple[list[Path], dict[str, Any]]:
        with contextlib.suppress(KeyboardInterrupt):
            work()
        raise DamagedFile("latents/00/episode-000007.npz: damaged")

    arguments = {"goal": 2, "partial": lambda: [work.path]}
    for inputs in (1, 2):
        with pytest.raises(DamagedFile):
            run.stage("train", 0, {"inputs": inputs}, refuse, **arguments)
        assert run.stage_record("train", 0) is None
    work.fails = False
    assert run.stage("train", 0, {"inputs": 2}, work, **arguments)["count"] == 3
    assert work.went_on == [False, False, True]


def test_files_of_work_that_was_refused_belong_to_the_inputs_that_they_were_made_with(
    run: Run,
) -> None:
    """Files without a record are imported ones, so the record must stay with what was played."""
    folder = run.folder / "rollouts"

    def played() -> list[Path]:
        return [] if run.record("collect", 0) is None else sorted(folder.glob("*.npz"))

    def refuse() -> tuple[list[Path], dict[str, Any]]:
        storage.write_npz(folder / "first.npz", {"seed": np.array(4)})
        raise DamagedFile("rollouts/second.npz: damaged")

    def play() -> tuple[list[Path], dict[str, Any]]:
        assert not played()
        return [], {}

    with pytest.raises(DamagedFile):
        run.stage("collect", 0, {"seed": 4}, refuse, goal=2, partial=played)
    assert [path.name for path in played()] == ["first.npz"]
    run.stage("collect", 0, {"seed": 5}, play, goal=2, partial=played)


def test_what_others_have_in_a_folder_that_is_no_run_is_left_there(tmp_path: Path) -> None:
    draft = tmp_path / "home" / ".draft.tmp"
    draft.parent.mkdir()
    draft.touch()
    os.utime(draft, (0, 0))
    run = Run(draft.parent, preset("car_racing", "smoke"))
    with run.alone():
        assert draft.exists()
        run.begin()
    with run.alone():
        assert not draft.exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "run"
    run = Run(folder, preset("car_racing", "smoke"))
    with pytest.raises(RunFailed, match=f"cannot write {folder}: Not a directory"), run.alone():
        pass


def test_a_name_that_no_folder_can_have_is_told_of(tmp_path: Path) -> None:
    run = Run(tmp_path / ("x" * 300), preset("car_racing", "smoke"))
    with pytest.raises(RunFailed, match="xxx: File name too long"), run.alone():
        pass


def test_a_command_that_does_nothing_leaves_no_folder(tmp_path: Path) -> None:
    run = Run(tmp_path / "new" / "run", preset("car_racing", "smoke"))
    with run.alone(), run.alone():
        assert run.folder.is_dir()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs fcntl")
def test_one_command_at_a_time_is_at_work_on_a_run(run: Run, work: Work) -> None:
    with (
        storage.only_writer(run.folder),
        pytest.raises(UserError, match=f"{run.folder}: another command is at work on this run"),
    ):
        stage(run, work)
    assert stage(run, work)["count"] == 1


def test_another_goal_goes_on(run: Run, work: Work) -> None:
    stage(run, work, goal=1)
    assert stage(run, work, goal=5)["count"] == 2
    assert work.went_on == [False, True]
    for goal in (5, 2):  # less than what is there changes nothing
        stage(run, work, goal=goal)
    assert len(work.went_on) == 2
    record = run.stage_record("train", 0)
    assert record is not None and record["goal"] == 5


def test_an_interrupted_stage_goes_on_and_its_time_counts(run: Run) -> None:
    work = Work(run, fails=True)
    with pytest.raises(KeyboardInterrupt):
        stage(run, work)
    assert run.stage_record("train", 0) is None
    spent = storage.read_json(run.folder / "stages" / "train-00.json")["seconds"]
    work.fails = False
    assert stage(run, work)["seconds"] > spent > 0.0
    assert work.went_on == [False, True]


def test_a_record_that_cannot_be_written_does_not_hide_what_ended_the_work(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_the_disk() -> None:
        def fail(path: Path, content: object) -> None:
            raise RunFailed(f"cannot write {path}: No space left on device")

        monkeypatch.setattr(storage, "write_json", fail)

    def work() -> tuple[list[Path], dict[str, Any]]:
        fill_the_disk()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.stage("train", 0, {}, work, goal=1)


def test_a_finished_stage_that_is_repeated_in_vain_is_not_done(run: Run, work: Work) -> None:
    stage(run, work)
    work.fails = True
    with pytest.raises(KeyboardInterrupt):
        stage(run, work, goal=2)
    work.fails = False
    stage(run, work, goal=1)
    assert len(work.went_on) == 3


def test_a_finished_stage_that_goes_on_is_not_done_until_it_is(run: Run, work: Work) -> None:
    stage(run, work)
    found = []

    def look() -> tuple[list[Path], dict[str, Any]]:  # as after SIGKILL
        found.append(run.stage_record("train", 0))
        return work()

    run.stage("train", 0, {"inputs": 1}, look, goal=2, partial=lambda: [work.path])
    assert found == [None]
    assert run.stage_record("train", 0) is not None


def test_a_memory_whose_training_was_interrupted_has_no_rule_of_the_end(run: Run) -> None:
    def interrupted() -> tuple[list[Path], dict[str, Any]]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.stage("memory", 0, {"data": 1}, interrupted, goal=2)
    with pytest.raises(UserError, match="M in round 0 was interrupted; train-memory --round 0"):
        end_rule(run, 0)


@pytest.mark.parametrize(("task", "rule"), [("take_cover", "sampled"), ("car_racing", "never")])
def test_dreams_end_by_a_draw_without_the_losss_weight_where_survival_counts(
    task: str, rule: str, tmp_path: Path
) -> None:
    run = Run.open(tmp_path, preset(task, "smoke"))
    assert end_rule(run, 0) == EndRule("never")
    run.stage("memory", 1, {"done_positive_weight": 7.0}, lambda: ([], {}), goal=1)
    assert end_rule(run, 2) == EndRule(rule, None, 7.0)


def test_stages_and_rounds_are_apart(run: Run, work: Work) -> None:
    stage(run, work)
    run.stage("train", 1, {"inputs": 1}, work, goal=1)
    run.stage("other", 0, {"inputs": 1}, work, goal=1)
    assert len(work.went_on) == 3


def test_studies_are_no_rounds(run: Run) -> None:
    for name, rounds in (("memory-00", 1), ("sweep1.15-07", 1), ("controller-real-02", 3)):
        storage.write_npz(run.folder / "checkpoints" / f"{name}.npz", {})
        assert run.rounds() == rounds


def test_a_damaged_record_is_named(run: Run, work: Work) -> None:
    stage(run, work)
    path = run.folder / "stages" / "train-00.json"
    path.write_text(path.read_text().replace('"count": 1', '"count": 2'))
    with pytest.raises(DamagedFile, match=r"stages/train-00.json: damaged"):
        stage(run, work)


@pytest.mark.parametrize(("key", "value"), [("task", "take_cover"), ("format_version", 99)])
def test_a_foreign_record_is_named(run: Run, work: Work, key: str, value: object) -> None:
    stage(run, work)
    path = run.folder / "stages" / "train-00.json"
    storage.write_json(path, {**storage.read_json(path), key: value})
    for read in (lambda: stage(run, work), lambda: run.stage_record("train", 0)):
        with pytest.raises(DamagedFile, match=f"stages/train-00.json: {key}: expected .*{value}"):
            read()
    assert work.path.exists()


def test_networks_that_are_damaged_or_foreign_are_not_other_ones(run: Run) -> None:
    held = {"kind": "checkpoint", "task": "car_racing"}
    vision, memory = (run.checkpoint(model, 0) for model in ("vision", "memory"))
    storage.write_npz(vision, {"weight": np.zeros(100)}, held)
    stamps = {"vision": storage.stamp(vision)}
    with pytest.raises(UserError, match="no checkpoint of the memory model"):
        member_rounds(run, 0, 1)
    storage.write_npz(memory, {"weight": np.ones(100)}, held)
    stamps["memory"] = storage.stamp(memory)
    assert networks(run, 0) == stamps
    run.stage("memory", 0, {"vision": stamps["vision"]}, lambda: ([memory], {}), goal=1)
    assert networks(run, 0) == stamps
    storage.write_npz(run.checkpoint("vision", 1), {"weight": np.ones(100)}, held)
    with pytest.raises(UserError, match="M of round 0 was trained on what another V sees; train-m"):
        networks(run, 1)
    whole = memory.read_bytes()
    memory.write_bytes(whole[:-1])
    with pytest.raises(DamagedFile, match=r"memory-00.npz: damaged"):
        networks(run, 0)
    storage.write_npz(memory, {"weight": np.ones(100)}, {**held, "task": "take_cover"})
    with pytest.raises(DamagedFile, match=r"memory-00.npz: task: .*take_cover"):
        networks(run, 0)


def test_a_folder_belongs_to_one_task(run: Run) -> None:
    run.begin()
    held = storage.read_json(run.folder / "config.json")
    assert (held["task"], held["preset"], held["seed"]) == ("car_racing", "smoke", 4)
    Run.open(run.folder, preset("car_racing", "smoke", seed=4))
    with pytest.raises(UserError, match="a run of task 'car_racing', expected 'take_cover'"):
        Run.open(run.folder, preset("take_cover", "smoke"))
    (run.folder / "config.json").write_text("{}")
    with pytest.raises(DamagedFile, match=r"config.json: damaged"):
        Run.open(run.folder, run.config)
    with pytest.raises(UserError, match="--run: expected a folder, got"):
        Run.open(run.folder / "config.json", run.config)


def test_the_last_checkpoint_is_of_the_round_or_one_before(run: Run) -> None:
    assert run.last_checkpoint("vision", 3) is None
    with pytest.raises(UserError, match="no checkpoint of the vision model; train it first"):
        run.required_checkpoint("vision", 3)
    first, second = run.checkpoint("vision", 0), run.checkpoint("vision", 2)
    for path in (first, second):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    found = [run.last_checkpoint("vision", index) for index in range(4)]
    assert found == [first, first, second, second]
    assert run.last_checkpoint("memory", 3) is None
    first.with_name("vision-00-backup.npz").touch()  # somebody's
    assert run.rounds() == 3


def test_episodes_are_those_of_all_rounds_so_far(run: Run) -> None:
    with pytest.raises(UserError, match="rollouts/00: holds no episodes"):
        run.episodes(1)
    paths = [run.rollouts(index) / "episode-000000.npz" for index in range(3)]
    still = np.zeros((2, 64, 64, 3), np.uint8)
    action, reward = np.zeros((1, 3), np.float32), np.zeros(1, np.float32)
    for path in paths:
        episode = Episode(still, action, reward, True, False, False, 1, "random")
        write_episode(path, episode, run.config.task)
    assert run.episodes(1) == paths[:2]
    assert run.episodes(2) == paths
    paths[1].write_bytes(b"damaged")
    with pytest.raises(DamagedFile, match=r"rollouts/01/episode-000000.npz: damaged"):
        run.episodes(2)
    write_episode(paths[1], episode, get_task("take_cover"))
    with pytest.raises(DamagedFile, match=r"rollouts/01/.*: task: .*, got 'take_cover'"):
        run.episodes(2)


def test_an_older_record_does_not_name_what_was_added_since(run: Run, work: Work) -> None:
    arguments = {"goal": 1, "partial": lambda: [work.path]}
    run.stage("train", 0, {"epochs": 3}, work, **arguments)
    run.stage("train", 0, {"epochs": 3, "decay": 1.0}, work, **arguments)
    assert len(work.went_on) == 1
    run.stage("train", 0, {"epochs": 3, "decay": 0.5}, work, **arguments)
    assert len(work.went_on) == 2


def test_seconds_of_killed_tries_count_where_the_work_counts_them(run: Run, work: Work) -> None:
    def counted() -> tuple[list[Path], dict[str, Any]]:
        files, result = work()
        return files, {**result, "seconds": 1234.5}

    result = run.stage("train", 0, {}, counted, goal=1, partial=lambda: [work.path])
    assert result == {"count": 1, "seconds": 1234.5}
    record = run.stage_record("train", 0)
    assert record is not None and record["seconds"] == 1234.5
    assert record["result"] == {"count": 1}


def test_an_export_names_what_the_run_was_begun_with(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run.begin()
    folder = ["--run", str(run.folder), "--out", str(run.folder / "out")]
    for flag, value, held in (("--seed", "9", "4"), ("--preset", "paper", "smoke")):
        assert main(["export", "car_racing", *folder, flag, value]) == 2
        assert f"{flag}: expected {held}, with which" in capsys.readouterr().err
