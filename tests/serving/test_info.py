"""info: the facts of a task's models."""

from __future__ import annotations

from pathlib import Path

from wm_tf.serving.info import info


def test_info_tells_what_is_there(saved_models: Path) -> None:
    facts = info(saved_models, "car_racing")
    assert facts["models"]["memory"] == ["step", "dream"]
    assert facts["environment"]["id"] == "CarRacing-v3"
    assert facts["bytes"] > 17_000_000  # V alone has 4.3 million float32 weights
