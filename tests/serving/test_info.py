"""info: the facts of a task's models."""

from __future__ import annotations

from pathlib import Path

import pytest

from wm_tf.serving.info import info, print_info


def test_info_tells_what_is_there(saved_models: Path) -> None:
    facts = info(saved_models, "car_racing")
    assert facts["models"]["memory"] == ["step", "dream"]
    assert facts["environment"]["id"] == "CarRacing-v3"
    assert facts["bytes"] > 17_000_000  # V alone has 4.3 million float32 weights


def test_a_folder_with_brackets_is_shown_as_it_is(
    saved_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "[red]").symlink_to(saved_models)
    print_info(info(tmp_path / "[red]", "car_racing"))
    assert "[red]/car_racing" in "".join(capsys.readouterr().out.split())
