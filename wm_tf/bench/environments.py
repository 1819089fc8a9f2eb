"""The real environments against those that they are measured by, each on one core."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import gymnasium
import numpy as np

from wm_tf.bench.compare import Comparison, Disagreement, Goal, Side, close, compare, rate
from wm_tf.config import FRAME_SIZE
from wm_tf.envs import take_cover, task_module
from wm_tf.envs.car_renderer import resize_official
from wm_tf.envs.doom_engine import import_vizdoom
from wm_tf.extras import require
from wm_tf.seeding import Purpose, generator

STEPS = 300

GREY_LEVELS = 4.0
"""Mean difference up to which two ways of drawing show the same, of 255."""

Begin = Callable[[int], Any]
"""Begins the episode of a seed."""
Step = Callable[[np.ndarray], tuple[np.ndarray, float, bool]]
"""(frame uint8 [64, 64, 3], reward, terminated) of an action."""
Answer = tuple[np.ndarray, np.ndarray]
"""(rewards [T], frames [T, 64, 64, 3])"""


def car_racing_gymnasium() -> list[Comparison]:
    """car_racing against gymnasium's with the same crop and resize."""
    with contextlib.closing(gymnasium.make("CarRacing-v3").unwrapped) as peer:

        def step(action: np.ndarray) -> tuple[np.ndarray, float, bool]:
            observation, reward, terminated, *_ = peer.step(action)
            return resize_official(observation), float(reward), terminated

        name = "gymnasium's CarRacing-v3, same crop and resize"
        side = _side("car_racing", name, lambda seed: peer.reset(seed=seed), step)
        return [_compare("car_racing", side, _same, Goal(15))]


def car_racing_envpool() -> list[Comparison]:
    """car_racing against EnvPool's: one environment on one thread, which is its fastest on a core.

    EnvPool draws in its own way and has tracks of its own: what can be compared is that both show
    a road on grass, and give the frames and rewards of one.
    """
    require("envpool", "bench")
    import envpool

    peer = envpool.make("CarRacing-v3", env_type="gymnasium", num_envs=1, num_threads=1)

    def step(action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        observation, reward, terminated, *_ = peer.step(action[np.newaxis])
        return resize_official(observation[0]), float(reward[0]), bool(terminated[0])

    name = "EnvPool's CarRacing-v3, same crop and resize, one thread"
    side = _side("car_racing", name, lambda seed: peer.reset(), step)
    return [_compare("car_racing", side, both_drive_on_a_road, Goal(2))]


def take_cover_vizdoom() -> list[Comparison]:
    """take_cover against vizdoom's own with the same crop and resize, at two resolutions."""
    import_vizdoom()
    return [
        _take_cover("RES_320X240", "its default 320x240", _same, Goal(2)),
        _take_cover("RES_160X120", "our 160x120", close(0.0), Goal(1)),
    ]


def _take_cover(
    resolution: str, name: str, agree: Callable[[Answer, Answer], None], goal: Goal
) -> Comparison:
    import vizdoom
    import vizdoom.gymnasium_wrapper  # registers its environments

    with _empty_folder(), one_core():  # of the engine, too
        peer: Any = gymnasium.make(
            "VizdoomTakeCover-MultiBinary-v1",
            screen_resolution=getattr(vizdoom.ScreenResolution, resolution),
            screen_format=vizdoom.ScreenFormat.RGB24,
        ).unwrapped
        peer.reset()  # the first one starts the engine

        def begin(seed: int) -> None:
            # With the seed that our environment gives the engine for this episode.
            random, _ = gymnasium.utils.seeding.np_random(seed)
            peer.game.set_seed(int(random.integers(1, 2**31)))
            peer.game.new_episode()
            peer.state = peer.game.get_state()

        def step(action: np.ndarray) -> tuple[np.ndarray, float, bool]:
            left, right = action[0] < -take_cover.THRESHOLD, action[0] > take_cover.THRESHOLD
            observation, reward, terminated, *_ = peer.step(np.array([left, right], np.int8))
            picture = observation["screen"]
            rows = len(picture) * take_cover.ROWS // take_cover.RESOLUTION[1]
            size = (FRAME_SIZE, FRAME_SIZE)
            frame = cv2.resize(picture[:rows], size, interpolation=cv2.INTER_AREA)
            return frame, float(reward), terminated

        name = f"vizdoom's gymnasium wrapper at {name}, same crop and resize"
        try:
            return _compare("take_cover", _side("take_cover", name, begin, step), agree, goal)
        finally:
            peer.close()


def _compare(
    task: str, peer: Side, agree: Callable[[Answer, Answer], None], goal: Goal
) -> Comparison:
    with one_core(), contextlib.closing(task_module(task).make()) as environment:

        def step(action: np.ndarray) -> tuple[np.ndarray, float, bool]:
            frame, reward, terminated, *_ = environment.step(action)
            return frame, reward, terminated

        ours = _side(task, "ours", lambda seed: environment.reset(seed=seed), step)
        what = f"{task}, 64x64 frames out, one core"
        return compare(what, "steps/s", ours, peer, agree=agree, goal=goal)


def _side(task: str, name: str, begin: Begin, step: Step) -> Side:
    """Plays the same actions on every side, in as many episodes as it takes."""
    policy = task_module(task).random_policy(generator(0, Purpose.BENCHMARK))
    actions = [next(policy) for _ in range(STEPS)]

    def measure() -> float:
        begin(1)
        return rate(STEPS, lambda: _play(actions, begin, step))()

    def answer() -> Answer:
        begin(1)
        rewards, frames = zip(*_play(actions, begin, step), strict=True)
        return np.array(rewards), np.stack(frames)

    return Side(name, measure, answer)


def _play(actions: Sequence[np.ndarray], begin: Begin, step: Step) -> list[tuple[Any, Any]]:
    """What is seen after each action that is not an episode's last: (reward, frame)."""
    seen = []
    episode = 1
    for action in actions:
        frame, reward, terminated = step(action)
        if terminated:
            episode += 1
            begin(episode)
        else:
            seen.append((reward, frame))
    return seen


def _same(ours: Answer, peer: Answer) -> None:
    """The same rewards, and frames that hardly differ."""
    close(0.0)(ours[0], peer[0])
    difference = float(np.abs(ours[1].astype(int) - peer[1]).mean())
    if difference > GREY_LEVELS:
        raise Disagreement(f"frames differ by {difference:.1f} grey levels on average")


def both_drive_on_a_road(*answers: Answer) -> None:
    for rewards, frames in answers:
        road = float((np.ptp(frames.astype(int), axis=-1) < 12).mean())  # grey; grass is green
        if not 0.02 < road < 0.6:
            raise Disagreement(f"{road:.0%} of the pixels are road")
        # Some tiles are reached, at 1000 / N each; every step costs 0.1.
        if not 0.0 < rewards.max() < 20.0 or not np.isclose(rewards.min(), -0.1):
            raise Disagreement(f"rewards from {rewards.min():.2f} to {rewards.max():.2f}")


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Keeps this thread and what it starts on one core, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def _empty_folder() -> Iterator[None]:
    """vizdoom's environment writes its settings into the current folder."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        yield
