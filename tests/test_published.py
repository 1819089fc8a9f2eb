"""The committed models: controllers play as well as their cards say, which are up to date."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wm_tf.evaluate import Frames, evaluate
from wm_tf.execution import LocalExecutor
from wm_tf.serving import card, manifest

MODELS = Path(__file__).parents[1] / "saved_models"


@pytest.mark.parametrize("task", ["car_racing", "take_cover"])
def test_a_card_says_what_the_manifest_does(task: str) -> None:
    content = manifest.read(MODELS / task, task)
    written = (MODELS / task / card.FILE_NAME).read_text(encoding="utf-8")
    assert written == card.render(content, content["files"])


@pytest.mark.parametrize(("task", "episodes"), [("car_racing", 8), ("take_cover", 16)])
def test_a_controller_reaches_the_score_of_its_card(task: str, episodes: int) -> None:
    """On the first seeds of that score, up to three standard errors of so few episodes.

    Which car leaves the road depends on the processor's rounding, and one of eight that does costs
    more than three standard errors of the card: the deviation of what was played counts, too.
    """
    if task == "take_cover":
        pytest.importorskip("vizdoom")
    score = manifest.read(MODELS / task, task)["scores"][-1]
    frames: Frames | None = "fast" if task == "car_racing" else None  # in half the time
    with LocalExecutor(2, timeout=600) as executor:
        played = evaluate(
            executor, task, MODELS, env="real", episodes=episodes, seed=score["seed"], frames=frames
        )
    deviation = max(score["std"], played["std"])
    floor = score["mean"] - 3.0 * deviation / np.sqrt(episodes)
    assert played["mean"] > floor, f"{played['mean']:.0f} on {episodes} seeds, floor {floor:.0f}"
