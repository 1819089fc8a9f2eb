"""The real car_racing task: gymnasium's CarRacing-v3 with 64x64 frames and a fast renderer.

Observation: uint8 [64, 64, 3] RGB, the rows 0-83 of the official 96x96 observation (the indicator
bar begins at row 84) averaged to 64x64. Action: float [3], steer in [-1, 1] (right is positive),
gas and brake in [0, 1]. Reward: -0.1 a step, 1000/N for each of the N tiles when a wheel first
touches it, -100 for leaving the playfield. End: `terminated` when the lap is complete (all tiles
are visited) or the car leaves the playfield; `truncated` after 1000 steps. Rewards and ends are,
bit for bit, those of gymnasium, whose rule that 95 % of the tiles are a lap never comes into play:
it asks for the first touch of tile 0, on which the car stands at the start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.box2d.car_racing import FPS, PLAYFIELD, SCALE, ZOOM, CarRacing
from gymnasium.error import ResetNeeded
from gymnasium.utils import EzPickle

from wm_tf.config import FRAME_SIZE, TASKS
from wm_tf.envs.car_physics import FastCar, TileContacts
from wm_tf.envs.car_renderer import ROWS, Renderer, resize_official

LAP_COMPLETE_PERCENT = 0.95
MAX_STEPS = TASKS["car_racing"].max_steps

ENVIRONMENT: dict[str, Any] = {
    "id": "CarRacing-v3",
    "version": gymnasium.__version__,
    "settings": {
        "lap_complete_percent": LAP_COMPLETE_PERCENT,
        "domain_randomize": False,
        "max_steps": MAX_STEPS,
        "frame_rows": [0, ROWS],
        "frame_size": [FRAME_SIZE, FRAME_SIZE],
    },
}
"""What was played, for manifests and scores."""

DEMONSTRATED: Mapping[str, tuple[float, ...]] = {
    "gas": (0.0, 0.4, 0.0),
    "left": (-0.6, 0.3, 0.0),
    "right": (0.6, 0.3, 0.0),
}
"""Actions whose dreams a contact sheet shows, by label."""

_OUTLOOK = np.array([-3, 0, 3, 6, 9, 12, 16, 20, 25, 30, 36])
"""Tiles of an outlook, counted from the nearest one."""


class CarRacingEnv(CarRacing):
    """CarRacing-v3 with the frames that V sees.

    Args:
      official_frames: draw with gymnasium's own (slow) code instead of the fast renderer.
      render_mode: None, or what `render()` gives of gymnasium's own drawing: "rgb_array", its
        picture for people, uint8 [400, 600, 3], or "state_pixels", its observation [96, 96, 3].
    """

    car: FastCar
    road: list[Any]  # type: ignore[assignment]  # None in gymnasium until the first reset

    metadata = {"render_modes": ["rgb_array", "state_pixels"], "render_fps": FPS}  # noqa: RUF012

    def __init__(self, official_frames: bool = False, render_mode: str | None = None) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            accepted = ", ".join(self.metadata["render_modes"])
            raise ValueError(f"render_mode: expected None, {accepted}, got {render_mode!r}")
        super().__init__(render_mode=render_mode, lap_complete_percent=LAP_COMPLETE_PERCENT)
        EzPickle.__init__(self, official_frames, render_mode)
        self.observation_space = spaces.Box(0, 255, (FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
        self._official_frames = official_frames
        self._steps = 0
        self._farthest = -1  # tile that was visited
        self._behind = 0  # tiles that were visited behind the start

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A new track; the same seed gives the same one."""
        gymnasium.Env.reset(self, seed=seed)
        self._destroy()
        # Anew each time, because a copy through pickle takes over the listener of another object.
        self.world.contactListener = listener = TileContacts(self)
        self.contactListener_keepref = listener
        self.reward = self.prev_reward = 0.0
        self.tile_visited_count = 0
        self.t = 0.0
        self.new_lap = False
        self._steps = 0
        self._farthest, self._behind = -1, 0
        self.road_poly: list[Any] = []
        while not self._create_track():
            pass
        self._index_tiles()
        _, angle, x, y = self.track[0]
        self.car = FastCar(self.world, angle, x, y, skids=self.render_mode is not None)
        self._advance()
        self.state = self._frame()
        return self.state, {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One fiftieth of a second. Values beyond the action space are clipped to it.

        Raises:
          ValueError: the action has another shape than [3] or is not finite.
          ResetNeeded: the first episode was never begun.
        """
        if self.car is None:
            raise ResetNeeded("step: the episode was never begun, call reset first")
        self.car.control(*_controls(action))
        self._advance()
        self.state = self._frame()

        self._steps += 1
        self.reward -= 0.1
        reward = self.reward - self.prev_reward
        self.prev_reward = self.reward
        terminated = False
        info: dict[str, Any] = {}
        if self.tile_visited_count == len(self.track) or self.new_lap:
            terminated, info["lap_finished"] = True, True
        x, y = self.car.hull.position
        if abs(x) > PLAYFIELD or abs(y) > PLAYFIELD:
            terminated, info["lap_finished"] = True, False
            reward = -100.0
        return self.state, reward, terminated, self._steps >= MAX_STEPS, info

    def outlook(self) -> np.ndarray:
        """What the simulator knows of the car and of the road, float32 [39], of about unit size.

        For a critic, which may see more than who acts (Pinto et al. 2018): shares of the road's
        tiles visited and still ahead; whether one was missed, and the lap will not end before it is
        fetched; speeds to the right and forwards, and turning; the front wheels' angle; the wheels'
        speeds, and which of them are on the road; the share of the last tiles that were missed; the
        distance from the road's middle; and where the middle runs, from 3 tiles behind to 36 ahead:
        to the right, then forwards.
        """
        count = len(self._middle)
        hull, visited = self.car.hull, self.tile_visited_count / count
        place = np.array(hull.position)
        near = int(np.argmin(((self._middle - place) ** 2).sum(1)))
        cosine, sine = np.cos(hull.angle), np.sin(hull.angle)
        turn = np.array([[cosine, sine], [-sine, cosine]])
        speed = turn @ np.array(hull.linearVelocity)
        road = turn @ (self._middle[(near + _OUTLOOK) % count] - place).T
        missed = self._farthest + 1 > self.tile_visited_count - self._behind
        lately = [not self.road[index % count].road_visited for index in range(near - 11, near - 2)]
        wheels = self.car.wheels
        return np.concatenate(
            [
                [visited, (count - near) % count / count if visited > 0.02 else 1.0, missed],
                [*(speed / 50.0), hull.angularVelocity, wheels[0].joint.angle],
                [wheel.omega / 50.0 for wheel in wheels],
                [float(bool(wheel.tiles)) for wheel in wheels],
                [np.mean(lately) if visited > 0.05 else 0.0, np.hypot(*road[:, 1]) / 30.0],
                road.ravel() / 40.0,
            ],
            dtype=np.float32,
        )

    def reward_ahead(self) -> float:
        """The reward of all tiles beyond the farthest one that was visited.

        It falls by as much as a visited tile pays, and by as much as a missed one would have paid.
        """
        tiles = len(self.track)
        not_paid_yet = self.reward - self.prev_reward  # of those that the car stands on at first
        return not_paid_yet + 1000.0 * (tiles - 1 - self._farthest - self._behind) / tiles

    def tile_touched(self, tile: Any) -> None:
        """The car touches or leaves a tile, whose colour is the road's from now on."""
        tile.color[:] = self.road_color
        self._renderer.paint(self._polygon_of_tile[tile.idx], self.road_color)

    def tile_reached(self, tile: Any) -> None:
        """A wheel touches a tile for the first time."""
        tile.road_visited = True
        self.reward += 1000.0 / len(self.track)
        self.tile_visited_count += 1
        if tile.idx - self._farthest > len(self.track) / 2:
            self._behind += 1
        else:
            self._farthest = max(self._farthest, tile.idx)
        visited = self.tile_visited_count / len(self.track)
        if tile.idx == 0 and visited > self.lap_complete_percent:
            self.new_lap = True

    def _index_tiles(self) -> None:
        self._middle = np.array([point[2:4] for point in self.track])
        self._renderer = Renderer(self.road_poly, self.bg_color, self.grass_color)
        tile_colors = {id(tile.color): tile.idx for tile in self.road}
        self._polygon_of_tile = {
            tile_colors[id(color)]: index
            for index, (_, color) in enumerate(self.road_poly)
            if id(color) in tile_colors
        }

    def _advance(self) -> None:
        self.car.step(1.0 / FPS)
        self.world.Step(1.0 / FPS, 6 * 30, 2 * 30)
        self.t += 1.0 / FPS

    def _frame(self) -> np.ndarray:
        if self._official_frames:
            return resize_official(self._render("state_pixels"))
        hull = self.car.hull
        zoom = 0.1 * SCALE * max(1 - self.t, 0) + ZOOM * SCALE * min(self.t, 1)
        wheels = [(wheel.joint.angle, wheel.phase) for wheel in self.car.wheels]
        return self._renderer.frame(tuple(hull.position), hull.angle, zoom, wheels)


def make(official_frames: bool = False, immortal: bool = False) -> CarRacingEnv:
    """The environment without gymnasium's wrappers; it counts its time limit itself.

    Args:
      official_frames: gymnasium's own renderer, see the module.
      immortal: as for every task; without meaning here, where nobody dies.
    """
    del immortal
    return CarRacingEnv(official_frames=official_frames)


def random_policy(generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Smooth random driving: an endless stream of float32 [3] actions.

    It sees nothing. Tracks run anticlockwise, so that a slight pull to the left, held for some
    seconds and now and then to the right, brings the car back to the road where straight driving
    would soon leave the playfield.
    """
    for steer, (gas, brake) in zip(_steering(generator), _pedals(generator), strict=True):
        yield np.array([steer, gas, brake], np.float32)


exploring_policy = random_policy


def _steering(generator: np.random.Generator) -> Iterator[float]:
    """A slow pull plus turns, gentle and long or sharp and short, often countered at once."""
    wildness = generator.uniform(0.1, 0.5)
    steer = pull = turn = 0.0
    turn_steps = left_of_turn = 0
    left_of_pull = int(generator.integers(0, 120))  # the first stretch of a track is straight
    while True:
        if left_of_pull == 0:
            side = -1 if generator.random() < 0.95 else 1
            pull = side * generator.uniform(0.02, 0.15)
            left_of_pull = int(generator.integers(100, 400))
        if left_of_turn == 0:
            if turn and generator.random() < 0.5:
                turn, left_of_turn = -turn, turn_steps
            elif generator.random() < 0.35:
                turn, left_of_turn = 0.0, int(generator.integers(5, 40))
            else:
                strength = 0.03 ** generator.random()  # log-uniform in [0.03, 1]
                turn = strength * generator.choice([-1, 1])
                steps = 3 * wildness / strength * generator.uniform(0.3, 1)
                turn_steps = left_of_turn = int(min(max(steps, 3), 40))
        left_of_pull -= 1
        left_of_turn -= 1
        steer += 0.25 * (min(max(turn + pull, -1.0), 1.0) - steer)
        yield steer


def _pedals(generator: np.random.Generator) -> Iterator[tuple[float, float]]:
    """Random stretches of gas, coasting, braking and, rarely, full gas: (gas, brake)."""
    power = generator.uniform(0.1, 0.3)
    while True:
        gas = brake = 0.0
        steps = int(generator.integers(5, 40))
        kind = generator.random()
        if kind < 0.12:
            brake, steps = generator.uniform(0.1, 1.0), int(generator.integers(3, 15))
        elif kind < 0.15:
            gas, steps = 1.0, int(generator.integers(5, 20))
        elif kind > 0.4:
            gas = power * generator.uniform(0.2, 1)
        for _ in range(steps):
            yield gas, brake


def _controls(action: Any) -> tuple[float, float, float]:
    """Checks an action; gives steer (positive is left, as Box2D counts), gas and brake."""
    values = np.asarray(action, np.float64)
    if values.shape != (3,):
        raise ValueError(f"action: expected shape [3], got {list(values.shape)}")
    steer, gas, brake = values.tolist()
    if not abs(steer) + abs(gas) + abs(brake) < float("inf"):
        raise ValueError(f"action: expected finite values, got {values.tolist()}")
    return -min(max(steer, -1.0), 1.0), min(max(gas, 0.0), 1.0), min(max(brake, 0.0), 1.0)
