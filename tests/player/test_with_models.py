"""The player over the committed SavedModels: what fakes cannot show."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pygame
import pytest

from player import play, recording
from player.commands import Command
from player.driving import Hands
from player.options import Options
from player.recording import Recorder
from player.session import Session, View
from player.world import World, load

MODELS = Path(os.environ.get("WM_TF_MODELS", Path(__file__).parents[2] / "saved_models"))
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


def test_one_call_per_step_gives_the_numbers_of_the_single_calls(world):
    single = World(world._models, world._dream)
    both = [Session(w, seed=5) for w in (world, single)]
    for step in range(40):
        for session in both:
            session.tick(Hands(steer=0.5) if step % 3 else Hands(gas=1.0))
        first, second = (session.now for session in both)
        for name in ("latent", "h", "c"):
            np.testing.assert_array_equal(getattr(first.state, name), getattr(second.state, name))
        assert (first.reward, first.done_probability) == (second.reward, second.done_probability)
        np.testing.assert_array_equal(both[0].frame(), both[1].frame())
        if world.has_controller:
            np.testing.assert_array_equal(world.wish(first.state), single.wish(second.state))


def test_following_real_frames_is_encode_and_step(world):
    single = World(world._models, world._dream)
    frame = np.random.default_rng(3).integers(0, 256, (64, 64, 3), np.uint8)
    action = np.array([0.3, 0.5, 0.0], np.float32)
    state = world.start(1, 0, 0)
    (first, ending, now), (second, end, then) = (
        w.followed(state, action, frame) for w in (world, single)
    )
    np.testing.assert_allclose(first, second, atol=1e-6)
    assert ending == pytest.approx(end, abs=1e-6)
    assert 0 < end < 1
    for name in ("latent", "h", "c"):
        np.testing.assert_allclose(getattr(now, name), getattr(then, name), atol=1e-6)


def test_films_are_made_by_the_window_in_a_process_of_its_own(world, make_app):
    app = make_app(
        world,
        export=lambda task, path: play._export(
            Options(models=MODELS.absolute()), task, path, app.say
        ),
    )
    for _ in range(2):
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_F2, mod=0))
        for _ in range(20):
            app.turn()
    (path,) = Path("recordings").glob("*.jsonl")
    films = [path.with_suffix(suffix) for suffix in (".gif", ".mp4")]
    deadline = time.monotonic() + 120
    while not all(film.exists() for film in films):
        assert time.monotonic() < deadline
        app.turn()
        time.sleep(0.02)


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
