"""renew: after it everything says what the models and the given scores are."""

from __future__ import annotations

import dataclasses
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wm_tf import renew as module
from wm_tf import storage
from wm_tf.cli import main
from wm_tf.renew import BEGIN, DRIVE, END
from wm_tf.serving import golden, manifest
from wm_tf.serving.card import place
from wm_tf.serving.load import Models
from wm_tf.serving.verify import verify

SCORE = {"mean": 612.34, "std": 200.0, "se": 20.1, "min": -3.0, "max": 905.0}
RESULT = {
    "task": "car_racing", "policy": "controller", "seed": 7, "episodes": 100, **SCORE,
    "env": {"name": "real", "id": "CarRacing-v3", "version": "1.4.0", "frames": "fast"},
    "returns": [], "lengths": [], "seconds": 1.0,
}  # fmt: skip
COMMAND = "python -m wm_tf evaluate car_racing --env real --frames fast --episodes 100 --seed 7"


def result_file(folder: Path, **changes: Any) -> Path:
    storage.write_json(folder / "score.json", {**RESULT, **changes})
    return folder / "score.json"


@pytest.fixture(scope="module")
def renewed(saved_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of models that stale golden outputs and a stale README were renewed for."""
    from wm_tf.pipeline import pictures

    folder = tmp_path_factory.mktemp("checkout")
    models = folder / "saved_models"
    shutil.copytree(saved_models, models)
    arrays, _ = storage.read_npz(models / "car_racing" / golden.FILE_NAME)
    stale = {name: np.zeros_like(array) for name, array in arrays.items()}
    storage.write_npz(models / "car_racing" / golden.FILE_NAME, stale)
    path = models / "car_racing" / manifest.FILE_NAME
    files = manifest.checksums(models / "car_racing")
    storage.write_json(path, {**storage.read_json(path), "files": files})
    (folder / "README.md").write_text(f"# Before\n{BEGIN}\nstale\n{END}\nafter")
    (folder / DRIVE).parent.mkdir(parents=True)
    (folder / DRIVE).write_text("stale")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "FOLLOWED_SECONDS", 1)
        patch.setattr(pictures, "DREAMT_SECONDS", 1)
        assert main(["renew", str(models), "--scores", str(result_file(folder))]) == 0
    return models


def test_the_models_are_as_they_were_and_sound(renewed: Path, saved_models: Path) -> None:
    assert not any(verify(renewed, "car_racing").values())
    before, after = (
        manifest.read(models / "car_racing", "car_racing")["files"]
        for models in (saved_models, renewed)
    )
    changed = {name for name in after if after[name] != before.get(name)}
    # The golden outputs are right again; the last bits of a loaded function's may be others.
    assert changed - {golden.FILE_NAME} == {"README.md", "dream.gif"}


def test_a_scores_command_names_its_arithmetic() -> None:
    environment = {**RESULT["env"], "precision": "bfloat16"}
    score = module._score({**RESULT, "env": environment})
    assert score["command"] == COMMAND.replace("--episodes", "--precision bfloat16 --episodes")
    assert place(score) == "real, fast frames, bfloat16, seed 7"


def test_scores_are_in_manifest_card_and_readme(renewed: Path) -> None:
    (score,) = manifest.read(renewed / "car_racing", "car_racing")["scores"]
    options = {"env": "real", "frames": "fast", "episodes": 100, "seed": 7}
    assert score == {**options, **SCORE, "command": COMMAND}
    card = (renewed / "car_racing" / "README.md").read_text()
    assert 'value: "612.3 +/- 200.0"' in card
    assert "(dream.gif)" in card
    readme = (renewed.parent / "README.md").read_text()
    assert readme.startswith(f"# Before\n{BEGIN}\n| models |") and readme.endswith(f"{END}\nafter")
    assert "| car_racing | real, fast frames, seed 7 | 100 | 612 ± 200 | 20 |" in readme
    assert COMMAND in readme
    assert "stale" not in readme


def test_the_readme_does_not_speak_of_other_models(renewed: Path, tmp_path: Path) -> None:
    shutil.copytree(renewed.parent, tmp_path, dirs_exist_ok=True)
    (tmp_path / "saved_models").rename(tmp_path / "my_models")
    files = [tmp_path / "README.md", tmp_path / DRIVE]
    before = [path.read_bytes() for path in files]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_real_beside_dream", lambda models: b"")
        other = result_file(tmp_path, mean=1.0)
        assert main(["renew", str(tmp_path / "my_models"), "--scores", str(other)]) == 0
    assert [path.read_bytes() for path in files] == before
    (score,) = manifest.read(tmp_path / "my_models" / "car_racing", "car_racing")["scores"]
    assert score["mean"] == 1.0


def test_a_score_of_other_models_is_refused(
    renewed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = manifest.read(renewed / "car_racing", "car_racing")
    other = result_file(tmp_path, models="0" * 64)
    assert main(["renew", str(renewed), "--scores", str(other)]) == 2
    assert "a score of other models than those in" in capsys.readouterr().err
    assert manifest.read(renewed / "car_racing", "car_racing") == held
    own = result_file(tmp_path, models=manifest.models_checksum(held))
    assert module._scores([own], ["car_racing"], renewed)["car_racing"][0]["mean"] == SCORE["mean"]


def test_the_gif_shows_the_real_game_beside_the_dream(renewed: Path) -> None:
    data = (renewed / "car_racing" / "dream.gif").read_bytes()
    with Image.open(io.BytesIO(data)) as film:
        assert film.n_frames == 17  # every third of 50 steps
        assert film.info["duration"] == 60
        pictures = []
        for index in range(film.n_frames):
            film.seek(index)
            pictures.append(np.asarray(film.convert("RGB")).astype(int))
    halves = [np.split(picture, 2, axis=1) for picture in pictures]
    assert np.abs(halves[0][0] - halves[0][1]).mean() > 5.0  # they are not the same picture ...
    for side in range(2):
        assert np.abs(halves[0][side] - halves[-1][side]).mean() > 0.1  # ... and both move


def test_the_readmes_animation_is_a_drive_in_these_models_dream(renewed: Path) -> None:
    with Image.open(renewed.parent / DRIVE) as film:
        assert film.n_frames > 50
        assert film.size[0] > 300


def test_without_a_controller_the_random_policy_drives(models: Models) -> None:
    calls = {key: call for key, call in models.calls.items() if key[0] != "controller"}
    episode = module._first_episode(dataclasses.replace(models, calls=calls), steps=5)
    assert (episode.policy, episode.steps) == ("random", 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "take_cover"}, "expected a score of car_racing, got 'take_cover'"),
        ({"policy": "random"}, "a score of the random policy"),
        ({"format_version": 99}, "score.json: format version 99, expected 1"),
    ],
)
def test_results_that_are_not_of_the_models_are_refused(
    saved_models: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    message: str,
) -> None:
    file = result_file(tmp_path, **changes)
    before = manifest.checksum(saved_models / "car_racing")
    assert main(["renew", str(saved_models), "--scores", str(file)]) == 2
    assert message in capsys.readouterr().err
    assert manifest.checksum(saved_models / "car_racing") == before


def test_other_files_are_no_results(
    saved_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.json"
    storage.write_json(file, {"task": "car_racing", "seed": 1})
    assert main(["renew", str(saved_models), "--scores", str(file)]) == 2
    assert "config.json: not a score of evaluate --json: no env, policy" in capsys.readouterr().err


def test_models_without_scores_claim_none() -> None:
    assert module.score_table([{"task": "car_racing", "scores": []}]).endswith("not been scored.")
