"""CarRacingEnv against gymnasium's CarRacing: the same physics bit for bit, nearly its frames."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.box2d.car_racing import CarRacing
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

import wm_tf.envs
from wm_tf.envs import car_racing
from wm_tf.envs.car_renderer import Renderer, resize_official

Driver = Callable[[Any], Iterator[np.ndarray]]


class Official(CarRacing):
    """gymnasium's environment, drawn only when asked: its drawing is 95 % of its time."""

    drawn = False

    def _render(self, mode: str) -> Any:
        return super()._render(mode) if self.drawn else None


def follow_track(speed: float) -> Driver:
    """Drives along the middle of the road at up to `speed`, slower before curves."""

    def drive(env: Any) -> Iterator[np.ndarray]:
        track = np.array(env.track)  # [N, (alpha, beta, x, y)]
        while True:
            hull = env.car.hull
            x, y = hull.position
            nearest = int(np.argmin((track[:, 2] - x) ** 2 + (track[:, 3] - y) ** 2))
            _, _, aim_x, aim_y = track[(nearest + 5) % len(track)]
            heading = math.atan2(aim_y - y, aim_x - x) - (hull.angle + math.pi / 2)
            heading = math.remainder(heading, 2 * math.pi)
            betas = track[[(nearest + 2) % len(track), (nearest + 14) % len(track)], 1]
            curve = min(abs(math.remainder(betas[1] - betas[0], 2 * math.pi)), 1.3)
            excess = math.hypot(*hull.linearVelocity) - speed * (1 - 0.35 * curve)
            gas = 0.5 if excess < 0 and abs(heading) < 0.5 else 0.0
            steer = min(max(-2 * heading, -1.0), 1.0)
            yield np.array([steer, gas, 0.4 if excess > 8 else 0.0], np.float32)

    return drive


def straight_on(env: Any) -> Iterator[np.ndarray]:
    """Gas, but no more than the grass bears without spinning, to the end of the playfield."""
    while True:
        gas = 1.0 if math.hypot(*env.car.hull.linearVelocity) < 60 else 0.3
        yield np.array([0.0, gas, 0.0], np.float32)


def brake_and_skid(env: Any) -> Iterator[np.ndarray]:
    """Gas, locked wheels and full turns: every branch of the wheels' equations."""
    for step in range(10**6):
        gas, brake = (1.0, 0.0) if step % 100 < 60 else (0.0, 0.5 + 0.5 * (step % 200 >= 100))
        yield np.array([math.sin(step / 37), gas, brake], np.float32)


def at_random(seed: int) -> Driver:
    return lambda env: car_racing.random_policy(np.random.default_rng(seed))


def play(env: CarRacing, seed: int, driver: Driver) -> list[tuple[float, bool, bool, Any]]:
    """An episode's rewards, terminations, truncations (after 1000 steps) and infos."""
    env.reset(seed=seed)
    steps: list[tuple[float, bool, bool, Any]] = []
    for action in islice(driver(env), 1000):
        _, reward, terminated, truncated, info = env.step(action)
        steps.append((reward, terminated, truncated or len(steps) == 999, info))
        if terminated or truncated:
            break
    return steps


EPISODES = {
    "completed lap": (3, follow_track(70.0)),
    "leaves the playfield": (7, straight_on),
    "lap not in time": (1, follow_track(50.0)),
    "skids": (4, brake_and_skid),
    "random 5": (5, at_random(5)),
    "random 6": (6, at_random(6)),
}


@pytest.mark.parametrize("name", EPISODES)
def test_rewards_and_ends_are_gymnasiums_bit_for_bit(name: str) -> None:
    seed, driver = EPISODES[name]
    ours = play(car_racing.make(), seed, driver)
    assert ours == play(Official(), seed, driver)
    *_, (last_reward, terminated, truncated, info) = ours
    if name == "completed lap":
        assert terminated and info == {"lap_finished": True}
    if name == "leaves the playfield":
        assert terminated and last_reward == -100 and info == {"lap_finished": False}
    if name == "lap not in time":
        assert truncated and not terminated and len(ours) == 1000
        assert sum(reward for reward, *_ in ours) > 500


def test_a_used_environment_equals_a_fresh_one() -> None:
    used = car_racing.make()
    for seed in (11, 12, 13, 14):
        driver = follow_track(40.0 + 5 * seed)
        assert play(used, seed, driver) == play(car_racing.make(), seed, driver)


def frame_differences(seed: int, driver: Driver, drawn: Callable[[int, Any], bool]) -> Any:
    """The frames that `drawn` picks: mean absolute difference of each, ours and gymnasium's."""
    ours, official = car_racing.make(), Official()
    ours.reset(seed=seed)
    official.reset(seed=seed)
    differences, frames, official_frames = [], [], []
    for step, action in enumerate(islice(driver(official), 1000)):
        official.drawn = drawn(step, official)
        frame = ours.step(action)[0]
        observation, _, terminated, _, _ = official.step(action)
        if official.drawn:
            frames.append(frame)
            official_frames.append(resize_official(observation))
            differences.append(np.abs(frame.astype(int) - official_frames[-1]).mean())
        if terminated:
            break
    return differences, np.array(frames), np.array(official_frames)


def test_frames_are_close_to_gymnasiums() -> None:
    def near_the_end_of_the_playfield(step: int, env: Any) -> bool:
        return max(map(abs, env.car.hull.position)) > 290

    lap, ours, lap_frames = frame_differences(2, follow_track(60.0), lambda step, _: step < 340)
    grass, _, _ = frame_differences(5, at_random(5), lambda step, _: step % 6 == 0)
    edge, _, edge_frames = frame_differences(7, straight_on, near_the_end_of_the_playfield)

    kerb = (lap_frames[..., 0] > 230) & (lap_frames[..., 1] < 60)
    assert kerb.any(axis=(1, 2)).sum() > 20
    assert (edge_frames[-1] == 0).all(axis=-1).mean() > 0.2  # the black beyond the playfield
    visited = (lap_frames == 100).all(axis=-1)  # tiles change their colour when touched
    assert visited.sum() > 10_000 and (ours[visited] == 100).mean() > 0.9
    differences = np.array(lap + grass + edge)
    assert len(differences) >= 500
    assert differences.mean() < 0.5
    assert differences.max() < 2.0


def test_the_first_frame_and_official_frames_are_gymnasiums() -> None:
    official, drawn_by_gymnasium = Official(), car_racing.make(official_frames=True)
    official.drawn = True
    expected = resize_official(official.reset(seed=3)[0])
    np.testing.assert_array_equal(drawn_by_gymnasium.reset(seed=3)[0], expected)
    assert np.abs(car_racing.make().reset(seed=3)[0].astype(int) - expected).mean() < 1

    action = np.array([0.2, 0.5, 0.0], np.float32)
    for _ in range(3):
        expected = resize_official(official.step(action)[0])
        np.testing.assert_array_equal(drawn_by_gymnasium.step(action)[0], expected)


def test_visited_tiles_change_colour() -> None:
    square = [(-30.0, -30.0), (30.0, -30.0), (30.0, 30.0), (-30.0, 30.0)]
    renderer = Renderer([(square, (1, 2, 3))], (102, 204, 102), (102, 230, 102))
    corners = []
    for color in ((104, 104, 104), (102, 102, 102)):
        renderer.paint(0, color)
        frame = renderer.frame((0.0, 0.0), angle=0.3, zoom=30.0, wheels=[(0.0, 2.0)] * 4)
        corners.append(frame[0, 0].tolist())
    assert corners == [[102] * 3, [100] * 3]  # gymnasium's scaling takes 2 from every channel


def test_the_outlook_tells_where_car_and_road_are() -> None:
    env = car_racing.make()
    env.reset(seed=3)
    start = env.outlook()
    assert (start.shape, start.dtype) == ((39,), np.float32)
    visited, ahead, missed, *_ = start
    assert visited < 0.02 and ahead == 1.0 and not missed  # it stands on the first tiles
    aside, forwards = start[17:28] * 40.0, start[28:] * 40.0
    assert abs(aside[1]) < 1.0 and abs(forwards[1]) < 5.0  # the nearest tile
    assert forwards[0] < forwards[1] < forwards[2] < forwards[3]
    drive = follow_track(40.0)(env)
    for _ in range(200):
        env.step(next(drive))
    visited, ahead, missed, right, speed = env.outlook()[:5]
    assert 0.0 < visited < 0.5 < ahead < 1.0 and not missed
    assert visited + ahead == pytest.approx(1.0, abs=0.05)
    assert abs(right) < 0.2 < speed
    assert env.outlook()[12:16].sum() >= 3.0  # wheels on the road
    for _ in range(100):
        env.step(np.array([0.0, 1.0, 0.0], np.float32))
    outlook = env.outlook()
    assert not outlook[12:16].any() and outlook[16] > 0.3  # off it, and away from its middle
    env.close()


def test_the_reward_ahead_falls_by_what_a_tile_pays_or_would_have_paid() -> None:
    env = car_racing.make()
    env.reset(seed=3)
    ahead = env.reward_ahead()
    assert ahead == pytest.approx(1000.0)  # with the tiles that the first step pays for
    drive = follow_track(40.0)(env)
    while not env.reward_ahead() < 600.0:
        before = env.reward_ahead()
        _, reward, *_ = env.step(next(drive))
        assert reward + env.reward_ahead() - before == pytest.approx(-0.1)
    here = next(index for index, tile in enumerate(env.road) if not tile.road_visited)
    before = env.reward_ahead()
    assert not env.outlook()[2]
    env.tile_reached(env.road[here + 5])
    assert before - env.reward_ahead() == pytest.approx(5 * 1000.0 / len(env.track))
    assert env.outlook()[2]  # the lap does not end without the five that were skipped
    env.close()


def test_indicators_never_reach_the_frame() -> None:
    """The fastest wheels there are: full gas, on the road and then spinning on the grass."""
    env = car_racing.make()
    env.reset(seed=7)
    fastest = 0.0
    for _ in range(600):
        env.step(np.array([0.0, 1.0, 0.0]))
        fastest = max(fastest, *(abs(wheel.omega) for wheel in env.car.wheels))
    assert 50 < fastest < 400  # at 400 rad/s the bar would be 100 window pixels high


def test_gymnasium_makes_it_and_its_checker_passes() -> None:
    env = gymnasium.make("wm_tf/CarRacing-v0")
    check_env(env.unwrapped)
    assert isinstance(env.unwrapped, car_racing.CarRacingEnv)
    frame, _ = env.reset(seed=1)
    assert frame.shape == (64, 64, 3) and frame.dtype == np.uint8
    assert wm_tf.envs.task_module("car_racing") is car_racing


def test_a_copy_through_pickle_keeps_its_settings() -> None:
    env = pickle.loads(pickle.dumps(car_racing.make(official_frames=True)))
    expected = car_racing.make(official_frames=True).reset(seed=2)[0]
    np.testing.assert_array_equal(env.reset(seed=2)[0], expected)


def test_the_time_limit_counts_from_the_last_reset() -> None:
    env = gymnasium.make("wm_tf/CarRacing-v0")
    idle = np.zeros(3, np.float32)
    env.reset(seed=1)
    for _ in range(5):
        env.step(idle)
    env.reset(seed=1)
    truncations = [env.step(idle)[3] for _ in range(1000)]
    assert truncations == [False] * 999 + [True]


def test_render_gives_gymnasiums_picture() -> None:
    env: Any = gymnasium.make("wm_tf/CarRacing-v0", render_mode="rgb_array")
    env.reset(seed=1)
    for action in islice(brake_and_skid(env.unwrapped), 40):
        env.step(action)
    assert env.render().shape == (400, 600, 3)
    assert len(env.unwrapped.car.particles) > 0  # skid marks, as on gymnasium's
    with pytest.raises(ValueError, match=r"render_mode: expected .*rgb_array.*, got 'human'"):
        car_racing.CarRacingEnv(render_mode="human")


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ([0.0, 0.0], r"action: expected shape \[3\], got \[2\]"),
        ([[0.0, 0.0, 0.0]], r"action: expected shape \[3\], got \[1, 3\]"),
        ([0.0, math.nan, 0.0], r"action: expected finite values, got \[0.0, nan, 0.0\]"),
        ([math.inf, 0.0, 0.0], r"action: expected finite values"),
        (None, r"action: expected shape \[3\]"),
    ],
)
def test_bad_actions_are_refused(action: Any, message: str) -> None:
    env = car_racing.make()
    env.reset(seed=1)
    with pytest.raises(ValueError, match=message):
        env.step(action)


def test_a_step_before_the_first_episode_is_refused() -> None:
    with pytest.raises(ResetNeeded, match="call reset first"):
        car_racing.make().step(np.zeros(3))


def test_actions_out_of_range_are_clipped() -> None:
    results: list[Any] = []
    for action in ([-3.0, 2.0, -1.0], [-1.0, 1.0, 0.0]):
        env = car_racing.make()
        env.reset(seed=1)
        results.append([env.step(np.array(action))[1] for _ in range(60)])
        results.append([tuple(env.car.hull.position), env.car.hull.angle])
    assert results[:2] == results[2:]


def test_random_policy_drives_smoothly_and_is_seeded() -> None:
    actions = np.array(list(islice(car_racing.random_policy(np.random.default_rng(1)), 5000)))
    again = np.array(list(islice(car_racing.random_policy(np.random.default_rng(1)), 5000)))
    np.testing.assert_array_equal(actions, again)
    assert actions.dtype == np.float32
    steer, gas, brake = actions.T
    assert steer.min() < -0.5 and steer.max() > 0.5
    assert np.corrcoef(steer[1:], steer[:-1])[0, 1] > 0.8
    assert 0.2 < (gas > 0).mean() < 0.8 and 0.01 < (brake > 0).mean() < 0.2
    assert not ((gas > 0) & (brake > 0)).any()


def test_nothing_opens_a_window() -> None:
    import pygame

    env = car_racing.make(official_frames=True)
    env.reset(seed=1)
    env.step(np.zeros(3))
    assert not pygame.display.get_init()
