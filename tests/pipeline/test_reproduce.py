"""The whole procedure, small: every stage for real, once, and skipped when it is done."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wm_tf import cli, storage
from wm_tf.agent import ModelsAt, Outcome, Rollout
from wm_tf.cli import INTERRUPTED, main
from wm_tf.config import ControllerConfig, preset
from wm_tf.data.episodes import read_episode
from wm_tf.errors import DamagedFile, UserError
from wm_tf.evolution import fitness
from wm_tf.evolution.fitness import DreamFitness
from wm_tf.execution import SerialExecutor
from wm_tf.pipeline import studies
from wm_tf.pipeline.checkpoints import best_of_round, controllers, load_memory, member_rounds
from wm_tf.pipeline.exports import export_members, exported_config, publish
from wm_tf.pipeline.run import Run, array_digest
from wm_tf.pipeline.stages import controller_round
from wm_tf.serving import manifest
from wm_tf.serving.load import load_keras


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished smoke run."""
    folder = tmp_path_factory.mktemp("run")
    assert _reproduce(folder) == 0
    return folder


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands play in this process, and real episodes have 50 steps: for what depends on neither.

    To start processes and to play whole episodes takes longer than all else that is tested.
    """

    def local(workers: int, timeout: float) -> contextlib.AbstractContextManager[SerialExecutor]:
        return contextlib.nullcontext(SerialExecutor())

    def play(executor: Executor, rollouts: list[Rollout], **common: Any) -> list[Outcome]:
        return play_all(executor, rollouts, **{**common, "max_steps": 50})

    play_all = fitness.play_all
    monkeypatch.setattr(cli, "LocalExecutor", local)
    monkeypatch.setattr(fitness, "play_all", play)


def _reproduce(folder: Path) -> int:
    return main(["reproduce", "car_racing", "--preset", "smoke", "--run", str(folder)])


def _checkpoints(folder: Path) -> dict[str, str]:
    return {path.name: storage.stamp(path) for path in (folder / "checkpoints").iterdir()}


def test_every_round_leaves_its_results(folder: Path) -> None:
    names = {f"{name}-{r:02d}" for name in ("vision", "memory", "controller") for r in (0, 1)}
    names |= {"controller-real-01"}
    assert set(_checkpoints(folder)) == {f"{name}.npz" for name in names}
    stages = {path.stem: storage.read_json(path) for path in (folder / "stages").iterdir()}
    assert stages.keys() == names | {"collect-00", "collect-01"}
    assert all(stage["done"] for stage in stages.values())
    for name in ("contact_sheet.png", "training.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_the_second_round_is_driven_by_the_controller(folder: Path) -> None:
    from wm_tf.config import get_task

    task = get_task("car_racing")
    policies = {
        index: read_episode(folder / "rollouts" / index / "episode-000000.npz", task).policy
        for index in ("00", "01")
    }
    assert policies["00"] == "random" and policies["01"].startswith("controller")


def test_the_last_controller_is_fine_tuned_in_the_real_environment(folder: Path) -> None:
    record = storage.read_json(folder / "stages" / "controller-real-01.json")
    assert record["inputs"]["env"] == "real" and record["inputs"]["method"] == "gradients"
    dreamt, _ = storage.read_npz(folder / "checkpoints" / "controller-01.npz")
    assert record["inputs"]["initial"] == array_digest(dreamt["best"])


def test_the_manifest_tells_how_much_each_stage_did(folder: Path) -> None:
    stages = manifest.read(folder / "exports" / "car_racing", "car_racing")["config"]["stages"]
    amounts = {name: stage["amount"] for name, stage in stages.items()}
    assert (amounts["collect-00"], amounts["memory-01"], amounts["controller-01"]) == (6, 2, 3)
    assert stages["controller-01"]["goal"] == 0.0  # the return at which its dreams end


def test_a_finished_run_is_not_done_again(folder: Path) -> None:
    before = _checkpoints(folder)
    # Latents, too: V of the first round would give others.
    files = [*(folder / "checkpoints").iterdir(), *(folder / "latents").glob("*/*.npz")]
    changed = {path: path.stat().st_mtime_ns for path in files}
    assert _reproduce(folder) == 0
    assert _checkpoints(folder) == before
    assert {path: path.stat().st_mtime_ns for path in changed} == changed


def test_a_controller_of_other_networks_is_none_of_the_rounds(folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "checkpoints", "stages"):
        copy = shutil.copytree if (folder / name).is_dir() else shutil.copy
        copy(folder / name, tmp_path / name)
    run = Run.open(tmp_path, preset("car_racing", "smoke"))
    assert [made.round_index for made in controllers(run)] == [0, 1, 1]
    first, second = run.checkpoint("memory", 0), run.checkpoint("memory", 1)
    second.write_bytes(first.read_bytes())  # as if M had been trained again
    assert [made.round_index for made in controllers(run)] == [0]
    second.write_bytes(first.read_bytes()[:-1])  # a damaged one is not another one
    with pytest.raises(DamagedFile, match=r"memory-01.npz: damaged"):
        controllers(run)


def test_a_controller_that_was_never_scored_is_none(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    run = Run.open(tmp_path, preset("car_racing", "smoke"))
    path = run.checkpoint("controller", 1)
    arrays, metadata = storage.read_npz(path)
    arrays["selections"] = np.zeros((0, 3))  # as if it had been interrupted in its first generation
    storage.write_npz(path, arrays, metadata)
    assert [(made.round_index, made.env) for made in controllers(run)] == [
        (0, "dream"),
        (1, "real"),
    ]


def test_a_lost_result_is_made_again_the_same(folder: Path) -> None:
    path = folder / "checkpoints" / "controller-01.npz"
    before, _ = storage.read_npz(path)
    path.unlink()
    assert _reproduce(folder) == 0
    after, _ = storage.read_npz(path)
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


@pytest.mark.usefixtures("brief")
def test_several_ms_of_one_v_dream_in_equal_shares(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    before = _checkpoints(tmp_path)
    command = ["train-controller", "car_racing", "--preset", "smoke", "--run", str(tmp_path)]
    command += ["--round", "1"]
    assert main([*command, "--members", "2"]) == 2  # each round has a V of its own
    assert "--members: expected at most 1, the Ms of round 1's V, got 2" in capsys.readouterr().err
    assert _checkpoints(tmp_path) == before
    run = Run.open(tmp_path, preset("car_racing", "smoke"))
    short = ControllerConfig(
        population=4, rollouts=2, members=2, generations=1, horizon=5, selection_episodes=1
    )
    controller_round(run, SerialExecutor(), 1, short, env="real")  # nothing dreams there

    run.checkpoint("vision", 1).unlink()
    record = tmp_path / "stages" / "memory-01.json"  # of an M that was trained on the other V
    content = storage.read_json(record)
    content["inputs"]["vision"] = storage.stamp(run.checkpoint("vision", 0))
    storage.write_json(record, content)
    rounds = member_rounds(run, 1, 2)
    assert rounds == [0, 1] and member_rounds(run, 1, 1) == [1] and member_rounds(run, 0, 1) == [0]
    assert main([*command, "--members", "2", "--generations", "1"]) == 0

    shared = storage.read_npz(run.checkpoint("controller", 1))[1]["facts"]
    assert shared["earlier_memories"] == [storage.stamp(run.checkpoint("memory", 0))]

    record = tmp_path / "stages" / "memory-00.json"
    content = storage.read_json(record)
    foreign = {**content, "inputs": {**content["inputs"], "vision": "0" * 64}}
    storage.write_json(record, foreign)
    with pytest.raises(UserError, match="M of round 0 was trained on what another V sees"):
        controller_round(run, SerialExecutor(), 1, short, env="dream")
    storage.write_json(record, content)

    models = export_members(run, rounds)
    for index, exported in zip((1, 0), models, strict=True):
        _, memory, _ = load_keras(exported.folder, "car_racing")
        np.testing.assert_array_equal(memory.kernel, load_memory(run, index).kernel)
    config = ControllerConfig(population=4, rollouts=4, members=2, horizon=20)
    candidates = np.random.default_rng(1).normal(0.0, 0.3, (4, 867))

    def returns(members: tuple[ModelsAt, ...], rollouts: int) -> np.ndarray:
        share = dataclasses.replace(config, rollouts=rollouts, members=len(members))
        dreams = DreamFitness(SerialExecutor(), run.config.task, members, share, seed=5)
        return dreams(candidates, 0).returns

    alone = [returns((member,), rollouts=2) for member in models]
    assert not np.any(alone[0] == alone[1])
    np.testing.assert_allclose(returns(models, rollouts=4), np.mean(alone, axis=0), rtol=1e-12)


@pytest.mark.parametrize(("flag", "value"), [("--preset", "desktop"), ("--seed", "2")])
def test_a_run_of_another_preset_or_seed_is_not_gone_on_with(
    folder: Path, capsys: pytest.CaptureFixture[str], flag: str, value: str
) -> None:
    before = _checkpoints(folder), (folder / "config.json").read_text()
    command = ["reproduce", "car_racing", "--run", str(folder), "--preset", "smoke", flag, value]
    assert main(command) == 2
    assert f"{flag}: expected" in capsys.readouterr().err
    assert (_checkpoints(folder), (folder / "config.json").read_text()) == before


def test_the_best_is_published_and_scored(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "models"
    assert main(["export", "car_racing", "--run", str(folder), "--out", str(out)]) == 0
    described = manifest.read(out / "car_racing", "car_racing")  # of the run, not of the command
    assert described["training"]["what"] == "smoke preset, 2 rounds"
    assert main(["verify", str(out)]) == 0
    assert (out / "car_racing" / "contact_sheet.png").exists()
    scores = []
    for index in range(2):
        file = tmp_path / f"{index}.json"
        arguments = ["--env", "real", "--frames", "fast", "--episodes", "2", "--seed", "5"]
        files = ["--models", str(out), "--json", str(file), "--workers", str(index + 1)]
        assert main(["evaluate", "car_racing", *arguments, *files]) == 0
        scores.append(json.loads(file.read_text()))
    assert scores[0]["returns"] == scores[1]["returns"]
    assert scores[0]["episodes"] == 2 and len(set(scores[0]["returns"])) > 1
    assert scores[0]["env"]["id"] == "CarRacing-v3" and scores[0]["env"]["frames"] == "fast"


@pytest.mark.usefixtures("brief")
def test_controllers_are_swept_over_temperatures(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    published = _checkpoints(folder)
    sizes = ["--generations", "2", "--population", "8", "--rollouts", "2", "--horizon", "20"]
    command = ["sweep", "car_racing", "--preset", "smoke", "--run", str(folder), *sizes]
    command += ["--temperatures", "0.5", "1.3", "--episodes", "2", "--selection-episodes", "2"]
    assert main(command) == 0
    table = capsys.readouterr().out
    facts = storage.read_json(folder / "sweep.json")
    lines = facts["lines"]
    assert [line["temperature"] for line in lines] == [0.5, 1.3]
    for line in lines:
        assert line["virtual"]["episodes"] == line["actual"]["episodes"] == 2
        assert f"{line['actual']['mean']:.0f} ± {line['actual']['std']:.0f}" in table
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")
    swept = _checkpoints(folder)
    assert {name: swept[name] for name in published} == published  # the run's own are left alone
    run = Run.open(folder, preset("car_racing", "smoke"))
    exported = exported_config(run)
    assert exported is not None
    assert exported["sources"]["controller"] == array_digest(best_of_round(run, 1).parameters)
    assert {f"sweep{at}-01.npz" for at in ("0.5", "1.3")} == swept.keys() - published.keys()
    # And they are exported again when the work is stopped.
    with monkeypatch.context() as patch:
        patch.setattr(studies, "real_returns", interrupt)
        assert main([*command, "--round", "0"]) == INTERRUPTED
    assert exported_config(run) == exported
    # Its picture is published with the models that it is of, and with no others.
    assert (publish(run, tmp_path / "of") / "sweep.png").exists()
    facts["networks"]["memory"] = "another"
    storage.write_json(folder / "sweep.json", facts)
    assert not (publish(run, tmp_path / "others") / "sweep.png").exists()


def test_what_is_compared_does_not_depend_on_flags() -> None:
    asked = ControllerConfig(sees="latent", hidden=8)
    planned = [dataclasses.replace(asked, **changes) for changes in studies.ABLATIONS.values()]
    seen = [(config.sees, config.hidden) for config in planned]
    assert seen == [("latent", 0), ("latent", 40), ("state", 0)]


@pytest.mark.usefixtures("brief")
def test_controllers_that_see_less_are_compared(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published = _checkpoints(folder)
    sizes = ["--generations", "2", "--population", "8", "--rollouts", "2", "--horizon", "20"]
    command = ["ablate", "car_racing", "--preset", "smoke", "--run", str(folder), *sizes]
    assert main([*command, "--episodes", "2", "--selection-episodes", "2"]) == 0
    table = capsys.readouterr().out
    lines = json.loads((folder / "ablation.json").read_text())["lines"]
    assert len(lines) == 3
    for found in lines:
        assert found["controller"] in table
        assert f"{found['actual']['mean']:.0f} ± {found['actual']['std']:.0f}" in table
    made = _checkpoints(folder)
    assert {name: made[name] for name in published} == published  # the run's own are left alone
    compared = {
        name: np.load(folder / "checkpoints" / name)["best"].shape
        for name in made.keys() - published.keys()
    }
    assert compared == {
        "ablation-latent-0-01.npz": (867,),
        "ablation-latent-40-01.npz": (11683,),
        "ablation-state-0-01.npz": (867,),
    }
    record = json.loads((folder / "stages" / "ablation-state-0-01.json").read_text())
    assert record["inputs"]["initial"] == array_digest(np.zeros(867))  # not the run's last one


def test_a_finished_training_that_is_typed_again_keeps_the_exports(folder: Path) -> None:
    run = Run.open(folder, preset("car_racing", "smoke"))
    before = exported_config(run)
    arguments = ["--preset", "smoke", "--run", str(folder), "--round", "1"]
    assert main(["train-memory", "car_racing", *arguments]) == 0
    assert exported_config(run) == before


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("flags", [("--method", "gradients"), ("--search", "scaled")])
def test_a_controller_learns_in_another_way_and_goes_on(
    folder: Path, tmp_path: Path, flags: tuple[str, str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    for path in (
        copy / "checkpoints" / "controller-01.npz",
        copy / "stages" / "controller-01.json",
    ):
        path.unlink()
    command = ["train-controller", "car_racing", "--preset", "smoke", "--run", str(copy)]
    command += ["--round", "1", *flags, "--fresh", "--horizon", "40"]
    for generations in ("1", "2"):
        assert main([*command, "--generations", generations]) == 0
    arrays, facts = storage.read_npz(copy / "checkpoints" / "controller-01.npz")
    name, value = flags
    assert facts["facts"]["config"][name.removeprefix("--")] == value
    if value == "gradients":
        assert facts["strategy"] == {"generation": 2}
    else:
        assert "seen" in facts["facts"]  # by which the weights are scaled
    assert [int(generation) for generation, _, _ in arrays["selections"]] == [1, 2]
    assert arrays["best"].any() and arrays["best"].shape == (867,)
    made = controllers(Run.open(copy, preset("car_racing", "smoke")))
    assert any(np.array_equal(one.parameters, arrays["best"]) for one in made)
