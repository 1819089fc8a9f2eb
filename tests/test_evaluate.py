"""What evaluate has played for it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from wm_tf import agent, storage
from wm_tf.errors import UserError
from wm_tf.evaluate import Frames, evaluate
from wm_tf.execution import SerialExecutor
from wm_tf.precision import Precision
from wm_tf.serving import manifest


@pytest.mark.parametrize("precision", [None, "float32", "bfloat16"])
def test_v_computes_in_float32_unless_told_otherwise(
    saved_models: Path, precision: Precision | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    played: list[agent.Chunk] = []

    def play(chunk: agent.Chunk) -> list[agent.Outcome]:
        played.append(chunk)
        return [agent.Outcome(1.0, 1, False, True) for _ in chunk.rollouts]

    monkeypatch.setattr(agent, "play", play)
    options: dict[str, Any] = {"env": "real", "episodes": 3, "seed": 0, "precision": precision}
    result = evaluate(SerialExecutor(), "car_racing", saved_models, **options)
    (chunk,) = played
    assert (chunk.precision, chunk.official_frames) == (precision or "float32", True)
    assert result["env"].get("precision", "float32") == chunk.precision


def test_a_task_that_is_drawn_one_way_is_scored_on_official_frames(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def play(chunk: agent.Chunk) -> list[agent.Outcome]:
        return [agent.Outcome(1.0, 1, False, True) for _ in chunk.rollouts]

    monkeypatch.setattr(agent, "play", play)
    options: dict[str, Any] = {"env": "real", "episodes": 1, "seed": 0, "random": True}
    for task, frames in (("take_cover", None), ("take_cover", "official"), ("car_racing", "fast")):
        result = evaluate(SerialExecutor(), task, Path("none"), frames=frames, **options)
        assert result["env"]["frames"] == (frames or "official")
        assert "models" not in result  # nobody looked at them
    with pytest.raises(UserError, match="--frames fast: take_cover is drawn one way"):
        evaluate(SerialExecutor(), "take_cover", Path("none"), frames="fast", **options)


def test_a_score_is_that_of_the_models_that_were_there_at_its_start(
    saved_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models"
    shutil.copytree(saved_models, models)
    folder = models / "car_racing"
    before = manifest.models_checksum(manifest.read(folder, "car_racing"))

    def play(chunk: agent.Chunk) -> list[agent.Outcome]:
        content = manifest.read(folder, "car_racing")
        files = dict.fromkeys(content["files"], "0" * 64)
        storage.write_json(folder / manifest.FILE_NAME, {**content, "files": files})
        return [agent.Outcome(1.0, 1, False, True) for _ in chunk.rollouts]

    monkeypatch.setattr(agent, "play", play)
    result = evaluate(SerialExecutor(), "car_racing", models, env="real", episodes=1, seed=0)
    assert result["models"] == before
    assert manifest.models_checksum(manifest.read(folder, "car_racing")) != before


@pytest.mark.parametrize(("frames", "longest"), [("official", 13), ("fast", 25)])
def test_slow_frames_are_played_in_smaller_chunks(
    saved_models: Path, frames: Frames, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def play(chunk: agent.Chunk) -> list[agent.Outcome]:
        sizes.append(len(chunk.rollouts))
        return [agent.Outcome(1.0, 1, False, True) for _ in chunk.rollouts]

    monkeypatch.setattr(agent, "play", play)
    monkeypatch.setattr(SerialExecutor, "workers", 2, raising=False)
    options: dict[str, Any] = {"env": "real", "episodes": 100, "seed": 0, "frames": frames}
    evaluate(SerialExecutor(), "car_racing", saved_models, **options)
    assert max(sizes) == longest and sum(sizes) == 100
