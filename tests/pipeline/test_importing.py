"""A run that begins with published models has exactly these, and its rounds go on from them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wm_tf import storage
from wm_tf.config import CollectConfig, preset
from wm_tf.data.episodes import Episode, episode_path, write_episode
from wm_tf.errors import DamagedFile, UserError
from wm_tf.execution import SerialExecutor
from wm_tf.pipeline.checkpoints import last_controller, load_memory, load_vision, networks
from wm_tf.pipeline.ends import end_rule
from wm_tf.pipeline.exports import export_round, exported_models, publish
from wm_tf.pipeline.gathering import collect_round
from wm_tf.pipeline.importing import import_models
from wm_tf.pipeline.run import Run
from wm_tf.serving import manifest
from wm_tf.serving.initial import InitialLatents
from wm_tf.serving.load import load_keras
from wm_tf.serving.verify import verify


@pytest.fixture
def run(tmp_path: Path, saved_models: Path) -> Run:
    run = Run.open(tmp_path, preset("car_racing", "smoke"))
    import_models(run, saved_models)
    return run


def test_the_models_are_those_that_were_published(run: Run, keras_models: dict[str, Any]) -> None:
    made = last_controller(run, 1, "dream")
    assert made is not None
    np.testing.assert_array_equal(made.parameters, keras_models["controller"].parameters)
    np.testing.assert_array_equal(made.last, made.parameters)
    for loaded, name in ((load_vision(run, 0), "vision"), (load_memory(run, 0), "memory")):
        published = keras_models[name].get_weights()
        for weight, expected in zip(loaded.get_weights(), published, strict=True):
            np.testing.assert_array_equal(weight, expected)
    assert end_rule(run, 1).rule == "never"


def test_exports_are_the_published_models_again(run: Run, keras_models: dict[str, Any]) -> None:
    export_round(run, 0, keras_models["controller"].parameters.numpy())
    folder = exported_models(run).folder
    described = manifest.read(folder / "car_racing", "car_racing")
    assert described["training"]["what"] == "published models; gone on from there"
    assert described["training"]["seconds"] == 0.0  # as published: nothing was trained since
    assert described["training"]["earlier_machines"] == [None]  # the models do not say
    starts = InitialLatents.read(folder / "car_racing", run.config.task)
    np.testing.assert_array_equal(starts.mean, keras_models["initial_latents"].mean)
    for again, name in zip(load_keras(folder, "car_racing")[:2], ("vision", "memory"), strict=True):
        for weight, expected in zip(
            again.get_weights(), keras_models[name].get_weights(), strict=True
        ):
            np.testing.assert_array_equal(weight, expected)


def test_what_has_no_episodes_is_published_without_a_contact_sheet(
    run: Run, tmp_path: Path
) -> None:
    folder = publish(run, tmp_path / "out")
    assert not (folder / "contact_sheet.png").exists()
    assert verify(folder.parent, "car_racing")["files"] == []


def test_an_export_takes_the_place_of_nothing_but_an_export(run: Run, tmp_path: Path) -> None:
    notes = tmp_path / "runs" / "car_racing" / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("all that there is")
    with pytest.raises(UserError, match="runs/car_racing holds something else than exported mode"):
        publish(run, notes.parents[1])
    assert notes.read_text() == "all that there is"
    notes.unlink()
    for _ in range(2):
        assert (publish(run, notes.parents[1]) / "manifest.json").exists()
    with run.alone(), pytest.raises(UserError, match="expected another folder than the run's own"):
        publish(run, run.folder)


def test_dreams_have_the_temperature_in_which_their_controller_was_evolved(run: Run) -> None:
    assert exported_temperature(run, 0) == 1.0  # as published
    run.stage("controller", 1, {"temperature": 1.7}, lambda: ([], {}), goal=1)
    assert exported_temperature(run, 1) == 1.7


def test_an_imported_memory_fits_its_own_vision_alone(run: Run, tmp_path: Path) -> None:
    shutil.copy(run.checkpoint("vision", 0), run.checkpoint("vision", 1))
    assert networks(run, 1) == networks(run, 0)  # the same
    arrays, facts = storage.read_npz(run.checkpoint("vision", 0))
    changed = {name: array + 1 for name, array in arrays.items()}
    storage.write_npz(run.checkpoint("vision", 1), changed, facts)
    with pytest.raises(UserError, match="M of round 0 was trained on what another V sees"):
        networks(run, 1)
    for path in (run.folder / "checkpoints").glob("controller*"):
        path.unlink()
    with pytest.raises(UserError, match="M of round 0 was trained on what another V sees"):
        publish(run, tmp_path / "out")


def exported_temperature(run: Run, round_index: int) -> float:
    export_round(run, round_index, np.ones(867))
    return manifest.read(run.exports / "car_racing", "car_racing")["temperature"]


def test_what_was_imported_twice_has_gone_on_all_the_same(run: Run, tmp_path: Path) -> None:
    export_round(run, 0, np.ones(867))
    again = Run.open(tmp_path / "again", preset("car_racing", "smoke"))
    import_models(again, run.exports)
    export_round(again, 0, np.zeros(867))
    described = manifest.read(again.exports / "car_racing", "car_racing")
    assert described["training"]["what"] == "published models; gone on from there"


def test_its_controller_collects_with_lines_of_progress_alone(run: Run) -> None:
    command = [
        sys.executable, "-m", "wm_tf", "collect", "car_racing", "--run", str(run.folder),
        "--preset", "smoke", "--round", "1", "--policy", "controller", "--episodes", "1",
        "--patience", "1", "--workers", "1",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()  # none of TensorFlow's
    assert lines
    assert all(line.startswith("collect: ") for line in lines), done.stderr


def train(run: Run, round_index: int) -> dict[str, Any]:
    """A stage that would replace M."""
    path = run.checkpoint("memory", round_index)

    def work() -> tuple[list[Path], dict[str, Any]]:
        storage.write_npz(path, {"weights": np.zeros(1)})
        return [path], {"trained": True}

    inputs = {"data": "other", "done_positive_weight": 10.0}
    return run.stage("memory", round_index, inputs, work, goal=20, partial=lambda: [path])


def test_the_first_round_is_not_trained_again(run: Run) -> None:
    path = run.checkpoint("memory", 0)
    before = path.read_bytes()
    assert run.adopted("memory", 0)
    with pytest.raises(UserError, match="was imported; --round 1 goes on"):
        train(run, 0)
    assert path.read_bytes() == before
    assert train(run, 1)["trained"]


def test_a_lost_import_is_no_import(run: Run) -> None:
    run.checkpoint("memory", 0).unlink()
    assert not run.adopted("memory", 0)
    assert train(run, 0)["trained"]
    record = run.stage_record("memory", 0)
    assert record is not None and "adopted" not in record


def test_a_damaged_import_is_named_and_import_models_brings_it_back(
    run: Run, saved_models: Path
) -> None:
    path = run.checkpoint("memory", 0)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(DamagedFile, match=r"memory-00.npz: damaged; import-models"):
        train(run, 0)
    assert path.read_bytes() == whole[:-1]
    import_models(run, saved_models)
    assert run.adopted("memory", 0)


def test_an_import_that_was_killed_is_typed_again(run: Run, saved_models: Path) -> None:
    for name in ("memory", "controller"):
        (run.folder / "stages" / f"{name}-00.json").unlink()
    import_models(run, saved_models)
    assert all(run.adopted(name, 0) for name in ("vision", "memory", "controller"))


def test_models_of_a_run_are_never_replaced(run: Run, saved_models: Path) -> None:
    others = run.folder / "others"
    shutil.copytree(saved_models, others)
    path = others / "car_racing" / manifest.FILE_NAME
    storage.write_json(path, {**storage.read_json(path), "temperature": 1.25})
    before = run.checkpoint("memory", 0).read_bytes()
    with pytest.raises(UserError, match="expected a run without models"):
        import_models(run, others)
    own = Run.open(run.folder / "own", run.config)
    train(own, 1)
    with pytest.raises(UserError, match="expected a run without models"):
        import_models(own, saved_models)
    assert run.checkpoint("memory", 0).read_bytes() == before


def test_the_same_models_are_brought_back_when_the_run_has_gone_on(
    run: Run, saved_models: Path
) -> None:
    train(run, 1)
    files = [run.checkpoint(name, 0) for name in ("vision", "memory", "controller")]
    before = [path.read_bytes() for path in files]
    files[0].write_bytes(before[0][:-1])
    import_models(run, saved_models)
    assert [path.read_bytes() for path in files] == before  # what was made from them fits
    assert run.adopted("vision", 0)


def test_without_models_nothing_is_begun(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run", preset("car_racing", "smoke"))
    with pytest.raises(UserError):
        import_models(run, tmp_path / "nowhere")
    assert run.rounds() == 0


def write_still_episode(run: Run) -> None:
    frames, actions = np.zeros((4, 64, 64, 3), np.uint8), np.zeros((3, 3), np.float32)
    still = Episode(frames, actions, np.zeros(3, np.float32), False, True, False, 1, "random")
    write_episode(episode_path(run.rollouts(0), 0), still, run.config.task)


def test_episodes_of_a_later_round_do_not_hinder_the_export(run: Run, tmp_path: Path) -> None:
    path = episode_path(run.rollouts(1), 0)
    write_still_episode(run)
    path.parent.mkdir(parents=True)
    episode_path(run.rollouts(0), 0).rename(path)
    assert not (publish(run, tmp_path / "out") / "contact_sheet.png").exists()


def test_a_collection_names_the_round_that_an_import_is_followed_by(run: Run) -> None:
    config = CollectConfig(policy="controller")
    with pytest.raises(UserError, match="before round 0; --round 1 collects with its last one"):
        collect_round(run, SerialExecutor(), 0, config)


def test_a_second_import_keeps_the_history_of_the_first(run: Run, tmp_path: Path) -> None:
    write_still_episode(run)
    train(run, 1)
    path = run.checkpoint("memory", 1)
    path.write_bytes(run.checkpoint("memory", 0).read_bytes())
    export_round(run, 1, np.ones(867))
    again = Run.open(tmp_path / "again", preset("car_racing", "smoke"))
    import_models(again, run.exports)
    record = again.stage_record("memory", 0)
    first = run.stage_record("memory", 1)
    assert record is not None and first is not None
    assert record["result"]["trained"] and record["seconds"] == first["seconds"]
    write_still_episode(again)
    train(again, 1)
    again.checkpoint("memory", 1).write_bytes(path.read_bytes())
    export_round(again, 1, np.ones(867))
    stages = manifest.read(again.exports / "car_racing", "car_racing")["training"]["stages"]
    assert {"then memory-01", "then then memory-01"} <= stages.keys()
