"""The session without a window: time, drivers, beginnings, temperature."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from player.commands import Command
from player.driving import HANDS_OFF, Driver, Hands
from player.history import MEMORY_LIMIT, History, Moment
from player.recording import Planned
from player.session import Session
from player.world import REAL, Source
from wm_tf.errors import UserError

RIGHT = Hands(steer=1.0)
LEFT = Hands(steer=-1.0)


def run(session: Session, steps: int, hands: Hands = HANDS_OFF) -> list[np.ndarray]:
    frames = []
    for _ in range(steps):
        session.tick(hands)
        frames.append(session.frame())
    return frames


def test_needs_no_pygame():
    code = "import player.session, player.recording, sys; sys.exit('pygame' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_counts_steps_and_return(world):
    session = Session(world)
    run(session, 4)
    assert session.step == 4
    assert session.now.total == pytest.approx(2.0)


def test_same_seed_same_dream_other_seed_another(world):
    first, again, other = (run(Session(world, seed=seed), 5) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[-1], other[-1])


def test_pause_stands_still_and_dot_and_comma_step(world):
    session = Session(world)
    run(session, 3)
    session.do(Command.PAUSE)
    assert not session.tick(RIGHT)
    session.do(Command.STEP_FORWARD)
    assert session.step == 4
    session.do(Command.STEP_BACK)
    session.do(Command.STEP_BACK)
    assert session.step == 2
    session.do(Command.PAUSE)
    run(session, 1)
    assert session.step == 3


def test_rewinding_and_going_forward_gives_the_same_frames(world):
    session = Session(world, driver=Driver.HUMAN)
    frames = run(session, 30, RIGHT)
    session.rewinding = True
    run(session, 20)
    assert session.step == 10
    session.rewinding = False
    np.testing.assert_array_equal(run(session, 20), frames[10:])
    assert not session.history.has_future


def test_acting_after_a_rewind_begins_a_new_future(world):
    session = Session(world, driver=Driver.HUMAN)
    frames = run(session, 30, RIGHT)
    session.rewinding = True
    run(session, 20)
    session.rewinding = False
    others = run(session, 20, LEFT)
    assert session.history.last_place == 30
    assert not np.array_equal(others[-1], frames[-1])


def test_the_same_action_after_a_rewind_meets_the_same_chance(world):
    session = Session(world, driver=Driver.HUMAN)
    frames = run(session, 10, RIGHT)
    session.rewinding = True
    run(session, 5)
    session.rewinding = False
    np.testing.assert_array_equal(run(session, 5, RIGHT), frames[5:])


def test_a_key_that_the_task_does_not_know_begins_no_new_future(fake_world):
    """take_cover has no gas."""
    session = Session(fake_world(task_name="take_cover"))
    frames = run(session, 10)
    session.rewinding = True
    run(session, 5)
    session.rewinding = False
    np.testing.assert_array_equal(run(session, 5, Hands(gas=1.0)), frames[5:])
    assert not session.history.has_future
    assert session.history.last_place == 10


@pytest.mark.parametrize("command", [Command.WARMER, Command.COOLER, Command.NEXT_DRIVER])
def test_what_changes_the_dream_begins_a_new_future_after_a_rewind(world, command):
    session = Session(world)
    run(session, 10)
    session.rewinding = True
    run(session, 6)
    session.rewinding = False
    session.do(command)
    run(session, 1)
    assert session.history.last_place == 5


def test_beginnings(world):
    session = Session(world)
    first = run(session, 5)
    session.do(Command.BEGIN_SAME)
    assert session.step == 0
    np.testing.assert_array_equal(run(session, 5), first)
    start = Session(world).now.state.latent
    session.do(Command.BEGIN_AGAIN)
    np.testing.assert_array_equal(session.now.state.latent, start)
    assert not np.array_equal(run(session, 5)[-1], first[-1])
    session.do(Command.BEGIN_ELSEWHERE)
    assert not np.array_equal(session.now.state.latent, start)


def test_a_dream_may_begin_in_noise_or_in_a_picture(world):
    session = Session(world)
    real = session.now.state.latent
    session.do(Command.BEGIN_IN_NOISE)
    noise = session.now.state.latent
    assert 0.5 < noise.std() < 1.5  # V's prior is N(0, 1), the fake's starts are narrower
    assert not session.now.state.h.any()
    session.do(Command.BEGIN_SAME)
    np.testing.assert_array_equal(session.now.state.latent, noise)
    session.do(Command.BEGIN_ELSEWHERE)
    assert session.now.state.latent.std() < 0.5
    frame = np.full((64, 64, 3), 255, np.uint8)
    from_picture = Session(world, source=Source("picture", frame)).now.state.latent
    np.testing.assert_allclose(from_picture[0, :3], 1.0, atol=0.3)
    assert not np.array_equal(from_picture, real)


def test_drivers_change_without_a_reset(world):
    session = Session(world)
    run(session, 3)
    np.testing.assert_allclose(session.now.action, [-0.5, 0.25, 0.0])
    session.do(Command.NEXT_DRIVER)
    assert session.driver is Driver.HUMAN
    run(session, 1)
    assert session.step == 4
    assert session.now.by_human.all()
    assert session.now.wish is not None
    np.testing.assert_allclose(session.now.wish, [-0.5, 0.25, 0.0])


def test_letting_go_gives_the_wheel_back(world):
    session = Session(world)
    run(session, 1, RIGHT)
    assert session.now.by_human.tolist() == [True, False, False]
    run(session, 1)
    np.testing.assert_allclose(session.now.action, [-0.5, 0.25, 0.0])


def test_without_a_controller_the_human_drives(fake_world):
    session = Session(fake_world(controller=False))
    assert session.driver is Driver.HUMAN
    session.do(Command.NEXT_DRIVER)
    assert session.driver is Driver.HUMAN
    with pytest.raises(UserError, match="no controller"):
        Session(fake_world(controller=False), driver=Driver.CONTROLLER)


def test_the_dream_ends_by_the_manifests_rule_and_begins_again(mortal_world):
    session = Session(mortal_world, driver=Driver.HUMAN)
    run(session, 60, Hands(gas=1.0))
    assert session.ended
    ended_at = session.step
    assert not session.tick(Hands(gas=1.0))
    assert session.step == ended_at < 60
    session.do(Command.BEGIN_AGAIN)
    assert not session.ended
    assert session.tick()


def test_one_can_go_back_before_the_end_and_drive_another_way(mortal_world):
    session = Session(mortal_world, driver=Driver.HUMAN)
    run(session, 60, Hands(gas=1.0))
    session.rewinding = True
    run(session, 10)
    session.rewinding = False
    run(session, 10, Hands(steer=1.0))
    assert not session.ended


def test_a_sampled_end_repeats_exactly(fake_world):
    world = fake_world(end={"rule": "sampled", "value": None})
    lengths = set()
    for _ in range(2):
        session = Session(world, driver=Driver.HUMAN)
        run(session, 80, Hands(gas=1.0))
        assert session.ended
        lengths.add(session.step)
    assert len(lengths) == 1


def test_temperature_steps_and_reaches_the_dream(world):
    session = Session(world, temperature=1.0)
    session.do(Command.WARMER)
    assert session.temperature == 1.1
    session.do(Command.COOLER)
    session.do(Command.COOLER)
    assert session.temperature == 0.9
    for _ in range(40):
        session.do(Command.COOLER)
    assert session.temperature > 0
    calm, wild = Session(world, temperature=0.1), Session(world, temperature=1.5)
    np.testing.assert_array_equal(calm.now.state.latent, wild.now.state.latent)
    run(calm, 1), run(wild, 1)
    assert not np.array_equal(calm.now.state.latent, wild.now.state.latent)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_a_temperature_that_is_not_positive(world, temperature):
    with pytest.raises(UserError, match="temperature"):
        Session(world, temperature=temperature)


def test_speed_steps_between_its_limits(world):
    session = Session(world)
    session.do(Command.SLOWER)
    assert session.speed == 0.5
    assert session.pictures_per_second == world.steps_per_second / 2
    for _ in range(10):
        session.do(Command.FASTER)
    assert session.speed == 4.0
    assert session.pictures_per_second == world.steps_per_second  # of four steps each


def test_a_kept_moment_is_come_back_to_with_its_past(world):
    session = Session(world, driver=Driver.HUMAN)
    run(session, 5, RIGHT)
    kept = session.frame()
    session.do(Command.SAVE_STATE)
    run(session, 10, LEFT)
    session.do(Command.BEGIN_ELSEWHERE)
    session.do(Command.LOAD_STATE)
    assert session.step == 5
    np.testing.assert_array_equal(session.frame(), kept)
    session.rewinding = True
    run(session, 5)
    assert session.step == 0


def test_a_script_drives_first(world):
    script = [Planned(np.array([0.3, 0.2, 0.1], np.float32), np.ones(3, bool))] * 3
    session = Session(world, script=script, driver=Driver.ASSIST)
    run(session, 3)
    np.testing.assert_allclose(session.now.action, [0.3, 0.2, 0.1])
    assert not session.scripted
    run(session, 1)
    np.testing.assert_allclose(session.now.action, [-0.5, 0.25, 0.0])


def test_a_pinned_latent_stays_until_it_is_let_go(world):
    session = Session(world)
    run(session, 2)
    before = session.frame()
    session.pin(2, 2.5)
    assert not np.array_equal(session.frame(), before)
    run(session, 5)
    assert session.now.state.latent[0, 2] == 2.5
    session.do(Command.FREE_LATENT)
    run(session, 5)
    assert session.now.state.latent[0, 2] != 2.5


def test_history_forgets_the_oldest_when_its_memory_is_full(world):
    first = Session(world).now
    history = History(first, limit=first.bytes * 20)
    for index in range(100):
        history.append(Moment(first.state, first.action, first.by_human, total=float(index)))
    assert len(history.moments) <= 20
    assert history.now.total == 99
    assert history.number == 100
    assert [moment.total for moment in history.since(98)] == [97, 98, 99]
    assert history.since(5) == history.moments


@pytest.mark.parametrize("task", ["car_racing", "take_cover"])
def test_ten_minutes_fit_into_200_mb_and_into_the_memory_of_a_history(fake_world, task):
    session = Session(fake_world(task_name=task))
    run_steps = 500
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(run_steps):
        session.tick()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    measured = (after - before) / run_steps  # bytes that a moment really takes
    steps = round(600 * session.world.steps_per_second)
    assert measured * steps < 200e6
    assert measured < session.now.bytes  # what the limit counts is no less
    assert MEMORY_LIMIT / session.now.bytes > steps  # nothing is forgotten in ten minutes


def test_ten_minutes_are_rewound_exactly(world):
    session = Session(world)
    steps = round(600 * session.world.steps_per_second)
    for _ in range(steps):
        session.tick()
    last = session.now
    session.rewinding = True
    while session.tick():
        pass
    assert session.step == 0
    session.rewinding = False
    for _ in range(steps):
        session.tick()
    assert session.now is last
    assert not session.history.has_future


def test_the_same_dream_after_coming_back_is_that_of_the_kept_moment(world):
    session = Session(world)
    first = session.now.state.latent
    session.do(Command.SAVE_STATE)
    session.do(Command.BEGIN_IN_NOISE)
    session.do(Command.LOAD_STATE)
    session.do(Command.BEGIN_SAME)
    np.testing.assert_array_equal(session.now.state.latent, first)
    assert session.source is REAL


def test_a_step_forward_is_driven_by_what_is_held(world):
    session = Session(world, driver=Driver.HUMAN)
    session.do(Command.STEP_FORWARD, RIGHT)
    assert session.paused
    assert session.now.action[0] > 0
