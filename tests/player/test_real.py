"""The real environment beside the dream, over an environment that cannot go back."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pygame
import pytest

from player import app as loop
from player import recording
from player.commands import Command
from player.driving import Driver, Hands
from player.history import MEMORY_LIMIT, Moment
from player.real import RealWorld, drift
from player.recording import Recorder
from player.session import Session, View
from player.world import Source
from wm_tf.data.episodes import read_episode
from wm_tf.errors import RunFailed, UserError

RIGHT = Hands(steer=1.0)


class Ring:
    """A real environment: the frame's red is where one has steered, its green is the time."""

    def __init__(self, length: int = 1000, fails_at: int | None = None) -> None:
        """`fails_at`: the step of the first episode that finds the engine dead, 0: its reset."""
        self.length = length
        self.fails_at = fails_at
        self.resets = 0
        self.closed = False

    def reset(self, *, seed: int):
        self.resets += 1
        if self.fails_at == 0:
            raise RunFailed("the engine cannot start")
        self.steps, self.place = 0, float(seed % 50) + 100
        return self._frame(), {}

    def step(self, action: np.ndarray):
        self.steps += 1
        if self.resets == 1 and self.steps == self.fails_at:
            raise RunFailed("the engine ended")
        self.place += float(action[0])
        terminated = self.steps == self.length
        info = {"last_frame_repeated": terminated, "end_probability": self.steps / 4096}
        return self._frame(), 1.0, terminated, False, info

    def close(self) -> None:
        self.closed = True

    def _frame(self) -> np.ndarray:
        frame = np.zeros((64, 64, 3), np.uint8)
        frame[..., 0], frame[..., 1] = round(self.place), self.steps % 256
        return frame


@pytest.fixture
def ring() -> Ring:
    return Ring()


def make(world, ring: Ring, view: View, **arguments) -> Session:
    session = Session(world, make_real=lambda: RealWorld(world, ring), **arguments)
    while session.view is not view:
        session.do(Command.NEXT_VIEW)
    return session


def drive(session: Session, steps: int, hands: Hands = RIGHT) -> None:
    for _ in range(steps):
        session.tick(hands)


def test_both_begin_at_the_same_frame_and_drift_apart(world, ring):
    session = make(world, ring, View.BOTH)
    assert drift(session.now.real, session.now.state) == 0
    drive(session, 20)
    assert session.now.real.step == session.step == 20
    assert drift(session.now.real, session.now.state) > 0.05
    assert session.now.real.frame[0, 0, 1] == 20
    assert session.now.real.expected.shape == (1, 32)


def test_synchronising_puts_the_dream_where_the_real_one_is(world, ring):
    session = make(world, ring, View.BOTH)
    drive(session, 20)
    session.do(Command.SYNCHRONISE)
    assert drift(session.now.real, session.now.state) == 0
    drive(session, 5)
    assert drift(session.now.real, session.now.state) > 0


def test_without_anything_real_y_says_so(world, ring):
    for view in (View.DREAM, View.REAL):
        session = make(world, ring, view)
        drive(session, 2)
        with pytest.raises(UserError, match="nothing real"):
            session.do(Command.SYNCHRONISE)


def test_the_real_view_shows_the_real_frame_and_its_rewards(world, ring):
    session = make(world, ring, View.REAL)
    drive(session, 7)
    np.testing.assert_array_equal(session.frame(), session.now.real.frame)
    assert session.now.total == 7.0
    assert session.now.done_probability == 0.5  # what M gives to an end, for plot and heartbeat
    np.testing.assert_array_equal(session.now.state.latent, session.now.real.state.latent)


def test_rewinding_shows_stored_frames_and_driving_on_simulates_from_the_seed(world, ring):
    session = make(world, ring, View.BOTH, driver=Driver.HUMAN)
    drive(session, 20)
    frames = [m.real.frame for m in session.history.moments]
    session.rewinding = True
    drive(session, 10)
    session.rewinding = False
    np.testing.assert_array_equal(session.now.real.frame, frames[10])
    assert ring.resets == 1
    drive(session, 10)  # the same actions: the same frames, by simulation
    assert ring.resets == 2
    np.testing.assert_array_equal(session.now.real.frame, frames[20])
    session.do(Command.STEP_BACK)
    session.do(Command.PAUSE)
    drive(session, 1, Hands(steer=-1.0, analog=frozenset({"steer"})))
    assert session.now.real.step == 20
    assert session.now.real.frame[0, 0, 0] < frames[20][0, 0, 0]


def test_a_kept_moment_of_an_earlier_episode_drives_on_in_that_episode(world, ring):
    session = make(world, ring, View.BOTH, driver=Driver.HUMAN)
    drive(session, 5)
    session.do(Command.SAVE_STATE)
    drive(session, 1)
    after = session.now.real.frame
    session.do(Command.BEGIN_AGAIN)
    drive(session, 3)
    session.do(Command.LOAD_STATE)
    drive(session, 1)
    np.testing.assert_array_equal(session.now.real.frame, after)


def test_a_moment_kept_in_the_dream_comes_back_as_a_dream(world, ring):
    session = make(world, ring, View.DREAM)
    drive(session, 3)
    session.do(Command.SAVE_STATE)
    for view in (View.REAL, View.BOTH):
        while session.view is not view:
            session.do(Command.NEXT_VIEW)
        session.do(Command.LOAD_STATE)
        assert session.view is View.DREAM  # and not a dream that is called real
        assert session.step == 3


@pytest.mark.parametrize("source", ["noise", "picture"])
def test_nothing_real_begins_in_noise_or_in_a_picture(world, ring, source):
    session = make(world, ring, View.BOTH)
    session.begin_from(Source(source, np.full((64, 64, 3), 90, np.uint8)))
    assert session.view is View.DREAM
    assert session.now.real is None


def test_ten_minutes_beside_the_real_one_are_remembered(world):
    """A real episode ends after 1000 steps; its last frame does not count again and again."""
    length = 100
    session = make(world, Ring(length), View.BOTH)
    tracemalloc.start()
    taken = [tracemalloc.get_traced_memory()[0]]
    for _ in range(2):
        drive(session, length, Hands(steer=0.0))
        taken.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    beside, alone = np.diff(taken) / length  # bytes of a moment, during the episode and after it
    steps = round(600 * world.steps_per_second)
    assert 1000 * beside + (steps - 1000) * alone < MEMORY_LIMIT
    for _ in range(steps):
        session.history.append(session.now)
    assert session.history.moments[0].state.step == 0


def test_leaving_the_views_dreams_on_from_there(world, ring):
    session = make(world, ring, View.BOTH)
    drive(session, 5)
    session.do(Command.NEXT_VIEW)
    assert session.view is View.DREAM
    drive(session, 1)
    assert session.step == 6
    assert session.now.real is None


def test_a_real_episode_that_has_ended_stays_while_the_dream_goes_on(world):
    session = make(world, Ring(length=4), View.BOTH)
    drive(session, 8)
    assert session.now.real.ended
    assert session.now.real.step == 4
    assert session.step == 8


def test_without_a_real_environment_the_dream_stays(world):
    def missing() -> RealWorld:
        raise UserError("no real environment: vizdoom is not installed")

    session = Session(world, make_real=missing)
    with pytest.raises(UserError, match="vizdoom"):
        session.do(Command.NEXT_VIEW)
    assert session.view is View.DREAM
    drive(session, 2)
    assert session.step == 2


def test_a_recording_beside_the_real_one_repeats_the_dream_since_it_was_synchronised(world, ring):
    session = make(world, ring, View.BOTH)
    recorder = Recorder()
    recorder.begin(session.history)
    drive(session, 10)
    session.do(Command.SYNCHRONISE)
    drive(session, 6)
    moments = recording.repeatable(recorder.finish()[0])
    assert len(moments) == 7
    assert leads_to(world, moments, session)


@pytest.fixture
def app(world, ring, make_app):
    return make_app(
        world,
        lambda w: Session(w, make_real=lambda: RealWorld(w, ring), driver=Driver.HUMAN),
    )


def press(app: loop.App, *keys: int) -> None:
    for key in keys:
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key, mod=0))
    app.turn()


def test_the_window_shows_real_and_dream_side_by_side(app):
    from player.view.screen import both_places

    press(app, pygame.K_v, pygame.K_v)
    for _ in range(5):
        app.turn()
    left, right, _, _ = both_places(app._layout.picture)
    surface = pygame.display.get_surface()
    real = tuple(app.session.now.real.frame[32, 32])
    dream = tuple(app.session.world.frame(app.session.now.state)[60, 32])
    assert tuple(surface.get_at(left.center))[:3] == real
    row = right.top + round(right.height * 60.5 / 64)
    assert tuple(surface.get_at((right.centerx, row)))[:3] == dream


def test_a_drive_on_real_frames_becomes_an_episode_to_train_on(app, world, tmp_path):
    press(app, pygame.K_v, pygame.K_F2, pygame.K_RIGHT)
    for _ in range(9):
        app.turn()
    press(app, pygame.K_F2)
    kept = tmp_path / "recordings" / "car_racing-real" / "episode-900001.npz"
    episode = read_episode(kept, world.task)
    assert episode.frames.shape == (11, 64, 64, 3)
    np.testing.assert_array_equal(episode.frames[:, 0, 0, 1], np.arange(11))
    assert episode.actions[0, 0] > 0
    assert episode.rewards.tolist() == [1.0] * 10
    np.testing.assert_array_equal(episode.end_probability, np.arange(1, 11) / 4096)
    assert episode.policy == "player: human"
    assert not list((tmp_path / "recordings").glob("*.jsonl"))


def test_a_recording_that_goes_on_in_an_episode_takes_the_place_of_the_one_before(
    app, world, tmp_path
):
    folder = tmp_path / "recordings" / "car_racing-real"
    press(app, pygame.K_v, pygame.K_F2, pygame.K_RIGHT)
    for _ in range(2):
        for _ in range(5):
            app.turn()
        press(app, pygame.K_F2)
        press(app, pygame.K_F2)
    (kept,) = folder.iterdir()
    assert len(read_episode(kept, world.task).actions) == app.session.step - 2  # since F2, F2
    for _ in range(4):
        app.session.do(Command.STEP_BACK)
    app.session.do(Command.PAUSE)
    press(app, pygame.K_LEFT)  # the same beginning, another end
    press(app, pygame.K_F2)
    assert len(list(folder.iterdir())) == 2


def test_the_title_screen_dreams_at_its_own_speed_whatever_was_looked_at(app, ring):
    press(app, pygame.K_v)
    assert app.session.view is View.REAL
    press(app, *[pygame.K_MINUS] * 3)
    press(app, pygame.K_t)
    assert app.titled
    began = ring.steps
    for _ in range(5):
        app.turn()
    assert (app.session.view, app.session.speed, ring.steps) == (View.DREAM, 1.0, began)


def test_an_episode_that_cannot_be_written_does_not_cost_the_recording(app, tmp_path, monkeypatch):
    def fail(*arguments):
        raise RunFailed("cannot write: No space left on device")

    monkeypatch.setattr("wm_tf.data.episodes.write_episode", fail)
    press(app, pygame.K_F2, pygame.K_RIGHT)
    for _ in range(5):
        app.turn()
    press(app, pygame.K_v)
    for _ in range(5):
        app.turn()
    press(app, pygame.K_F2)
    assert len(list((tmp_path / "recordings").glob("*.jsonl"))) == 1


def test_the_kept_episode_is_encoded_and_cut_for_training(app, world, tmp_path):
    from wm_tf.data.episodes import episode_paths
    from wm_tf.data.latents import from_episode, read_latents, write_latents
    from wm_tf.data.streams import cut_sequences

    press(app, pygame.K_v, pygame.K_F2, pygame.K_RIGHT)
    for _ in range(29):
        app.turn()
    press(app, pygame.K_F2)
    (path,) = episode_paths(tmp_path / "recordings" / "car_racing-real")
    episode = read_episode(path, world.task)
    mean, log_variance = world._models.encode(episode.frames)
    write_latents(tmp_path / "z.npz", from_episode(episode, mean, log_variance, "v"), world.task)
    encoded = read_latents(tmp_path / "z.npz", world.task)
    sequences = cut_sequences(encoded, 10, np.random.default_rng(1))
    driven = np.concatenate([s["action"][s["mask"] > 0] for s in sequences])
    np.testing.assert_array_equal(driven, episode.actions)
    ends = np.concatenate([s["done"][s["mask"] > 0] for s in sequences])
    np.testing.assert_array_equal(ends, np.arange(1, len(ends) + 1) / 4096)


def test_dreamt_frames_never_become_an_episode(app, tmp_path):
    press(app, pygame.K_F2, pygame.K_RIGHT)
    for _ in range(5):
        app.turn()
    press(app, pygame.K_F2)
    assert not list((tmp_path / "recordings").rglob("*.npz"))
    assert len(list((tmp_path / "recordings").glob("*.jsonl"))) == 1


@pytest.mark.parametrize(
    "keys", [(pygame.K_F2, pygame.K_F2), (pygame.K_v, pygame.K_F2, pygame.K_F2), (pygame.K_F12,)]
)
def test_what_cannot_be_kept_is_said_and_the_dream_goes_on(app, tmp_path, keys):
    (tmp_path / "recordings").write_text("a file where the folder should be")
    for key in keys:
        press(app, key)
    assert app.show.message.startswith("not kept: ")
    step = app.session.step
    app.turn()
    assert app.session.step == step + 1


def repeats(world, recorder: Recorder, session: Session) -> bool:
    """Whether what was recorded ends, driven again, in the session's present."""
    return leads_to(world, recording.repeatable(recorder.finish()[0]), session)


def leads_to(world, moments: Sequence[Moment], session: Session) -> bool:
    again = Session(world)
    again.replay(recording.of(moments, "car_racing", world.digest))
    while again.scripted:
        again.tick()
    return np.array_equal(again.now.state.latent, session.now.state.latent)


def test_a_latent_held_where_the_dream_was_synchronised_hides_not_that_it_was(world, ring):
    session = make(world, ring, View.BOTH)
    recorder = Recorder()
    recorder.begin(session.history)
    drive(session, 5)
    session.do(Command.SYNCHRONISE)
    session.pin(4, 1.0)
    drive(session, 5)
    assert repeats(world, recorder, session)


def test_a_latent_let_go_before_synchronising_does_not_come_back(world, ring):
    session = make(world, ring, View.BOTH)
    session.pin(3, 2.0)
    session.unpin(3)
    session.do(Command.SYNCHRONISE)
    session.pin(4, 1.0)
    assert session.now.state.latent[0, 3] == session.now.real.state.latent[0, 3]


def test_a_recording_goes_on_where_synchronising_sets_the_count_of_steps_back(world):
    """The real episode ended long before the recording began."""
    session = make(world, Ring(length=4), View.BOTH)
    drive(session, 12)
    recorder = Recorder()
    recorder.begin(session.history)
    drive(session, 6)
    session.do(Command.SYNCHRONISE)
    assert session.step == 4
    drive(session, 20)
    assert repeats(world, recorder, session)


def test_an_episode_that_has_ended_gives_its_last_reward_once(world):
    session = make(world, Ring(length=4), View.BOTH)
    drive(session, 8)
    total = session.now.total
    while session.view is not View.REAL:
        session.do(Command.NEXT_VIEW)
    drive(session, 1)
    assert session.ended
    assert session.now.total == total


def test_an_environment_that_fails_leaves_the_dream_and_can_be_wanted_again(world, make_app):
    ring = Ring(fails_at=4)
    app = make_app(world, lambda w: Session(w, make_real=lambda: RealWorld(w, ring)))
    press(app, pygame.K_v, pygame.K_F2)
    for _ in range(3):
        app.turn()
    assert app.session.view is View.DREAM
    assert app.show.message == "the engine ended"
    assert app.session.step == 4
    assert app.session.now.real is None
    press(app, pygame.K_COMMA)
    press(app, pygame.K_v, pygame.K_SPACE)  # from the last real moment: simulated from the seed
    assert app.session.view is View.REAL
    assert app.session.now.real.step == 4
    app.running = False
    app.run()
    (kept,) = Path("recordings").rglob("*.npz")
    assert len(read_episode(kept, world.task).actions) == 4


def test_an_environment_that_cannot_begin_leaves_the_dream_as_it_is(world, make_app):
    ring = Ring(fails_at=0)
    app = make_app(world, lambda w: Session(w, make_real=lambda: RealWorld(w, ring)))
    for _ in range(5):
        app.turn()
    press(app, pygame.K_v)
    assert app.session.view is View.DREAM
    assert app.show.message == "the engine cannot start"
    assert app.session.step == 6


def test_what_ends_the_player_does_not_end_its_recording(world, ring, make_app, monkeypatch):
    app = make_app(world)
    press(app, pygame.K_F2)
    for _ in range(5):
        app.turn()
    monkeypatch.setattr(app.session, "tick", lambda hands: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        app.run()
    assert len(list(Path("recordings").glob("*.jsonl"))) == 1
