"""The player over the committed SavedModels: what fakes cannot show."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from player import recording
from player.commands import Command
from player.driving import Hands
from player.recording import Recorder
from player.session import Session, View
from player.world import World, load

MODELS = Path(__file__).parents[2] / "saved_models"
TASK = "car_racing"

pytestmark = pytest.mark.skipif(not (MODELS / TASK).is_dir(), reason="no models are there yet")


@pytest.fixture(scope="module")
def world() -> World:
    return load(MODELS, TASK)


def drive(session: Session, steps: int, hands: Hands) -> list[np.ndarray]:
    frames = []
    for _ in range(steps):
        session.tick(hands)
        frames.append(session.frame())
    return frames


def test_rewinding_and_going_forward_gives_the_same_frames(world):
    session = Session(world)
    frames = drive(session, 60, Hands(gas=1.0))
    session.rewinding = True
    drive(session, 40, Hands())
    session.rewinding = False
    np.testing.assert_array_equal(drive(session, 40, Hands()), frames[20:])


def test_the_dream_answers_to_the_wheel(world):
    last = [drive(Session(world), 60, Hands(steer, 0.5))[-1] for steer in (-1.0, 1.0)]
    assert np.abs(last[0].astype(int) - last[1]).mean() > 3


def test_real_and_dream_begin_alike(world):
    from player.real import RealWorld, drift
    from wm_tf.envs import task_module

    session = Session(world, make_real=lambda: RealWorld(world, task_module(TASK).make()))
    session.do(Command.NEXT_VIEW)
    session.do(Command.NEXT_VIEW)
    assert session.view is View.BOTH
    drive(session, 30, Hands(gas=0.5))
    assert 0 < drift(session.now.real, session.now.state) < 5
    session.close()


def test_a_recording_replays_exactly_in_a_fresh_process(world, tmp_path):
    session = Session(world, seed=11)
    recorder = Recorder()
    recorder.begin(session.history)
    drive(session, 50, Hands(steer=0.3, gas=0.6))
    path = tmp_path / "a.jsonl"
    recording.write(path, recording.of(recorder.finish()[0], TASK, world.digest))
    result = subprocess.run(
        [
            *(sys.executable, "-m", "player", TASK, "--models", MODELS, "--headless"),
            *("--actions", path, "--json", tmp_path / "r.json", "--gif", tmp_path / "d.gif"),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["steps"] == 50
    assert report["return"] == pytest.approx(session.now.total, abs=1e-4)
    assert (tmp_path / "d.gif").stat().st_size < 3_000_000
