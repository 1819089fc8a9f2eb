"""Four possible next seconds, and going on in one."""

from __future__ import annotations

import numpy as np
import pygame
import pytest

from player import recording
from player.commands import Command
from player.driving import HANDS_OFF, Driver, Hands
from player.recording import Recorder
from player.session import Session, View
from player.view.screen import futures_places, quarters
from wm_tf.errors import UserError


def shown(session: Session) -> None:
    """Lets the futures be dreamt to their end."""
    session.do(Command.FORK)
    while not session.futures.complete:
        assert not session.tick()


def drive(session: Session, steps: int, hands: Hands = HANDS_OFF) -> None:
    for _ in range(steps):
        session.tick(hands)


def test_four_different_seconds_from_one_moment(world):
    session = Session(world)
    drive(session, 5)
    shown(session)
    assert session.step == 5
    futures = session.futures.futures
    assert [len(future.moments) for future in futures] == [50] * 4
    last = [future.moments[-1].state.latent for future in futures]
    assert len({latent.tobytes() for latent in last}) == 4
    np.testing.assert_array_equal(futures[0].frames[3], world.frame(futures[0].moments[7].state))


def test_a_chosen_future_comes_true(world):
    session = Session(world)
    drive(session, 5)
    shown(session)
    moments = session.futures.futures[2].moments
    session.do(Command.FUTURE_3)
    assert session.futures is None
    drive(session, 50)
    assert session.step == 55
    np.testing.assert_array_equal(session.now.state.latent, moments[-1].state.latent)
    assert session.now.total == pytest.approx(27.5)
    drive(session, 3)
    assert session.step == 58


def test_one_may_leave_a_chosen_future(world):
    session = Session(world, driver=Driver.HUMAN)
    drive(session, 5)
    shown(session)
    moments = session.futures.futures[0].moments
    session.choose(0)
    drive(session, 10)
    drive(session, 10, Hands(steer=1.0))
    assert session.history.last_place == 25
    assert not np.array_equal(session.now.state.latent, moments[19].state.latent)


def test_who_acts_at_once_goes_on_with_the_chance_of_the_chosen_one(world):
    session = Session(world, driver=Driver.HUMAN)
    drive(session, 5)
    shown(session)
    before, chosen = session.now.state.seed, session.futures.futures[2].seed
    session.choose(2)
    drive(session, 1, Hands(gas=1.0))
    assert session.now.state.seed == chosen != before
    session.step_back()
    drive(session, 1, Hands(steer=1.0))  # from where the dream has its first chance
    assert session.now.state.seed == before


@pytest.mark.parametrize(
    "change",
    [
        lambda session: session.pin(0, 2.5),
        lambda session: session.do(Command.WARMER),
        lambda session: session.do(Command.NEXT_DRIVER),
    ],
)
def test_thumbnails_are_of_how_things_are_now(world, change):
    session = Session(world)
    drive(session, 5)
    session.do(Command.PAUSE)
    session.do(Command.FUTURES)
    drive(session, 60)
    change(session)
    drive(session, 60)
    assert session.futures.complete
    future = session.futures.futures[0]
    assert future.moments[0].temperature == session.temperature
    assert bool(future.moments[0].by_human.all()) == (session.driver is Driver.HUMAN)
    session.choose(0)  # they begin at a moment that is still there
    drive(session, 50)
    np.testing.assert_array_equal(session.now.state.latent, future.moments[-1].state.latent)


def test_a_recording_that_begins_after_a_fork_goes_back_to_it_with_the_choice(world):
    session = Session(world)
    recorder = Recorder()
    drive(session, 5)
    session.do(Command.FUTURES)
    drive(session, 30)
    recorder.begin(session.history)
    drive(session, 5)
    session.do(Command.FUTURE_2)
    assert session.step == 5
    for _ in range(50):
        assert recorder.follows(session.history)
        drive(session, 1)
    kept = recording.of(recorder.finish()[0], world.task.name, world.digest)
    assert kept.start.step == 5
    assert len(kept.steps) == 50


def test_closing_them_goes_on_as_before(world):
    session, other = Session(world), Session(world)
    drive(session, 5)
    shown(session)
    session.do(Command.FORK)
    drive(session, 5)
    drive(other, 10)
    np.testing.assert_array_equal(session.now.state.latent, other.now.state.latent)


def test_a_recording_follows_into_a_chosen_future(world, tmp_path):
    session = Session(world)
    recorder = Recorder()
    recorder.begin(session.history)
    drive(session, 5)
    shown(session)
    session.do(Command.FUTURE_2)
    drive(session, 20)
    session.do(Command.WARMER)
    drive(session, 5)
    recording.write(
        tmp_path / "a.jsonl", recording.of(recorder.finish()[0], world.task.name, world.digest)
    )
    again = Session(world)
    again.replay(recording.read(tmp_path / "a.jsonl", world.task, world.digest))
    while again.scripted:
        again.tick()
    assert again.step == 30
    np.testing.assert_array_equal(again.now.state.latent, session.now.state.latent)


def test_futures_are_of_the_dream_alone(world):
    session = Session(world)
    session._beside.view = View.BOTH
    for command in (Command.FUTURES, Command.FORK):
        with pytest.raises(UserError, match="dream"):
            session.do(command)


def test_thumbnails_are_dreamt_while_the_dream_goes_on_and_begin_anew(world):
    session, other = Session(world), Session(world)
    drive(session, 5)
    session.do(Command.FUTURES)
    first = session.futures
    drive(session, 100)
    assert first.complete
    assert session.step == 105
    drive(other, 105)
    np.testing.assert_array_equal(session.now.state.latent, other.now.state.latent)
    drive(session, 60)
    assert session.futures is not first
    session.do(Command.FUTURES)
    assert session.futures is None


def test_driving_does_not_close_the_thumbnails(world):
    session = Session(world)
    session.do(Command.FUTURES)
    drive(session, 5, Hands(steer=1.0))
    assert session.futures is not None


def test_forking_into_the_thumbnails_goes_back_to_where_they_begin(world):
    session = Session(world)
    drive(session, 5)
    session.do(Command.FUTURES)
    drive(session, 110)
    moments = session.futures.futures[1].moments
    session.do(Command.FORK)
    assert session.forked
    assert session.step == 5
    assert not session.tick()
    session.choose(1)
    drive(session, 50)
    np.testing.assert_array_equal(session.now.state.latent, moments[-1].state.latent)


def test_a_click_on_one_chooses_it(world, make_app):
    app = make_app(world)
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_b, mod=0))
    for _ in range(60):
        app.turn()
    future = app.session.futures.futures[3]
    place = quarters(app._layout.picture)[3]
    surface = pygame.display.get_surface()
    assert tuple(surface.get_at(place.center))[:3] in {tuple(f[32, 32]) for f in future.frames}
    pygame.event.post(
        pygame.event.Event(pygame.MOUSEBUTTONDOWN, pos=place.center, button=pygame.BUTTON_LEFT)
    )
    app.turn()
    np.testing.assert_array_equal(app.session.now.state.latent, future.moments[0].state.latent)


def test_a_thumbnail_shows_its_future_and_a_click_goes_on_in_it(world, make_app):
    app = make_app(world)
    for _ in range(5):
        app.turn()
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_k, mod=0))
    for _ in range(20):
        app.turn()
    assert app.session.step == 25
    future = app.session.futures.futures[2]
    place = futures_places(app._layout, app.session, app.show)[2]
    shown = tuple(pygame.display.get_surface().get_at(place.center))[:3]
    assert shown in {tuple(row) for row in future.frames[-1][30:35, 32]}
    pygame.event.post(
        pygame.event.Event(pygame.MOUSEBUTTONDOWN, pos=place.center, button=pygame.BUTTON_LEFT)
    )
    app.turn()
    assert app.session.step == 6
    np.testing.assert_array_equal(app.session.now.state.latent, future.moments[0].state.latent)


def test_held_latents_are_held_in_the_futures_too(world):
    session = Session(world)
    drive(session, 3)
    session.pin(2, 2.5)
    shown(session)
    latents = [f.moments[-1].state.latent[0, 2] for f in session.futures.futures]
    assert latents == [2.5] * 4
    session.do(Command.FUTURE_1)
    assert session.pins == {2: 2.5}
    drive(session, 60)
    assert {m.state.latent[0, 2] for m in session.history.moments[4:]} == {2.5}


def test_a_chosen_future_holds_what_was_held_when_it_began(world):
    session = Session(world)
    session.pin(2, 2.5)
    session.do(Command.FUTURES)
    drive(session, 10)
    session.pins = {}  # as a recording that is driven again may do
    session.choose(0)
    drive(session, 2)
    assert session.pins == {2: 2.5}
