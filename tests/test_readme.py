"""What the README shows is run, and what it states is what the models' manifests state."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wm_tf.config import TASKS, get_task
from wm_tf.data.episodes import Episode, episode_path, write_episode
from wm_tf.renew import BEGIN, END, score_table
from wm_tf.serving import manifest

README = Path(__file__).parents[1] / "README.md"
TASK = get_task("car_racing")
STEPS = 30


def python_in(section: str) -> list[str]:
    """The Python blocks below a heading."""
    (text,) = re.findall(rf"^## {section}\n(.*?)^## ", README.read_text(), re.DOTALL | re.MULTILINE)
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def write_episodes(folder: Path, count: int) -> None:
    """Episodes in which a bar moves to the right and every move is rewarded."""
    generator = np.random.default_rng(1)
    frames = np.zeros((STEPS + 1, 64, 64, 3), np.uint8)
    for step, frame in enumerate(frames):
        frame[:, step : step + 8] = 200
    for index in range(count):
        actions = generator.uniform(size=(STEPS, TASK.action_size)).astype(np.float32)
        ends = {"terminated": False, "truncated": True, "last_frame_repeated": False}
        rewards = np.ones(STEPS, np.float32)
        episode = Episode(frames, actions, rewards, **ends, seed=index, policy="random")
        write_episode(episode_path(folder, index), episode, TASK)


def test_v_and_m_are_trained_by_the_lines_of_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import keras

    blocks = python_in("Train V and M in your own Keras scripts")
    assert [len([line for line in block.splitlines() if line]) <= 20 for block in blocks] == [
        True
    ] * 2
    monkeypatch.chdir(tmp_path)
    write_episodes(Path("runs/car_racing/rollouts/00"), count=1)
    keras.utils.set_random_seed(1)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    shown = re.findall(r"Epoch (\d+).*?[^_]loss: ([\d.]+)", capsys.readouterr().out, re.DOTALL)
    losses = [float(loss) for _, loss in shown]
    assert [int(epoch) for epoch, _ in shown] == [1, 2, 3, *range(1, 21)]
    assert losses[2] < losses[0]  # V
    assert losses[-1] < 0.8 * losses[3]  # M
    for name, epochs in (("vision", 3), ("memory", 20)):
        loaded: Any = keras.models.load_model(f"{name}.keras", safe_mode=True)
        assert int(loaded.optimizer.iterations) == epochs  # of one batch each
        for weight, expected in zip(loaded.get_weights(), names[name].get_weights(), strict=True):
            np.testing.assert_array_equal(weight, expected)


def test_the_scores_are_those_of_the_models() -> None:
    """`python -m wm_tf renew` writes them there."""
    folders = [README.parent / "saved_models" / task for task in TASKS]
    there = [manifest.read(folder, folder.name) for folder in folders if folder.exists()]
    assert f"{BEGIN}\n{score_table(there)}\n{END}" in README.read_text()


@pytest.mark.parametrize("name", ["README.md", "SECURITY.md"])
def test_what_is_named_is_there(name: str) -> None:
    """`wm_tf.module.function`, and with parentheses what can be called."""
    text = (README.parent / name).read_text()
    named = re.findall(r"`((?:wm_tf|player)(?:\.\w+)+)(\()?", text)
    assert named
    for path, called in named:
        found = pkgutil.resolve_name(path)
        assert callable(found) or not called, path
