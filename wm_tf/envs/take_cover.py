"""take_cover: dodge the fireballs (the paper's second experiment), from ViZDoom.

Monsters at the far end of a room throw fireballs at a player who can only step left and right. More
of them come the longer it lasts. The score is the number of tics (1/35 s) survived.

* Observation: uint8 [64, 64, 3], RGB: rows 0-99 of the engine's 160 x 120 picture (without status
  bar and flashes), averaged down by `cv2.INTER_AREA`.
* Action: float32 [1] in [-1, 1]: below -1/3 left, above 1/3 right, else stay; one tic each.
* Reward: 1 per tic, the fatal one included.
* End: the player's death terminates, 2100 tics truncate. The engine draws no picture after the
  fatal tic: the last one is repeated, and `info["last_frame_repeated"]` says so.

A fireball does not always kill. A hit takes 21 times one to eight of the 100 points of health, all
alike, and V sees nothing of it: of first hits one in two ends the game. `info["end_probability"]`
is how likely the action was to end it, given the hits but not the dice: what M learns of ends. An
immortal player, for whom nothing else is different, shows what comes after a death, too: rooms that
few games live to see, and many hits in each. He begins anew with all health after each death that
he was spared, which nobody who sees the pictures can know: his second hit is fatal in 0.66 of all
cases, where that of somebody who has survived the first is in 0.81.

The setting is that of vizdoom's own take_cover.cfg: skill 4 (of 5), with freedoom2.wad.

Survival in tics, mean ± standard deviation (standard error), vizdoom 1.3.2:

* `random_policy`: 326 ± 169 (8.5) over 400 episodes;
* `jitter_policy`: 216 ± 95 (3.9) over 600 episodes;
* random policy of the paper: 210 ± 108.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from wm_tf.config import FRAME_SIZE, TASKS
from wm_tf.envs.doom_engine import DoomEngine, import_vizdoom

SCENARIO = "take_cover.cfg"
SKILL = 4
RESOLUTION = (160, 120)  # width, height of the rendered picture
ROWS = 100  # of it, from the top, are seen by V
THRESHOLD = 1 / 3  # of the action, between staying and stepping aside
LONGEST_HOLD = 10  # tics for which `random_policy` keeps an action, at most
HEALTH = 100  # points at the beginning
DAMAGE = 21  # points of health that a hit takes, times the number of a die
SIDES = 8  # of the die
EXPLORING_HOLDS = (3, 300)  # the shortest and the longest hold that an episode may have at most

_TASK = TASKS["take_cover"]


def _vizdoom_version() -> str:
    try:
        return importlib.metadata.version("vizdoom")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


ENVIRONMENT: dict[str, Any] = {
    "id": f"VizdoomTakeCover / {SCENARIO}",
    "version": f"vizdoom {_vizdoom_version()}",
    "settings": {
        "game": "freedoom2.wad",
        "skill": SKILL,
        "max_steps": _TASK.max_steps,
        "tics_per_step": 1,
        "resolution": list(RESOLUTION),
        "rows": [0, ROWS],
        "screen_format": "RGB24",
        "render_hud": False,
        "render_screen_flashes": False,
    },
}
"""What was played, for manifests and scores."""

DEMONSTRATED: Mapping[str, tuple[float, ...]] = {"stay": (0.0,), "left": (-1.0,), "right": (1.0,)}
"""Actions whose dreams a contact sheet shows, by label."""


class TakeCoverEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """The real take_cover; see the module for observation, action, reward and end.

    The engine starts with the first reset. Ends with `close`; see `wm_tf.envs.doom_engine`.

    Args:
      render_mode: None or "rgb_array".
      immortal: the player goes on after a death, with all health.

    Raises:
      UserError: vizdoom is not installed.
      ValueError: unknown render_mode.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": _TASK.steps_per_second}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, immortal: bool = False) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode: expected None or 'rgb_array', got {render_mode!r}")
        import_vizdoom()
        self.render_mode = render_mode
        self.observation_space = spaces.Box(0, 255, (FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
        self.action_space = spaces.Box(-1.0, 1.0, (_TASK.action_size,), np.float32)
        self._engine: DoomEngine | None = None
        self._picture = np.zeros((RESOLUTION[1], RESOLUTION[0], 3), np.uint8)
        self._steps = 0
        self._immortal = immortal
        self._health = HEALTH
        self._damage = 0  # in the episode so far
        self._over = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begins an episode; the same seed begins the same one, whatever was played before.

        Returns:
          (frame uint8 [64, 64, 3], info)
        """
        super().reset(seed=seed)
        seed_of_episode = int(self.np_random.integers(1, 2**31))
        self._engine = self._running_engine()
        self._picture = self._engine.begin(seed_of_episode)
        self._steps = 0
        self._health, self._damage = HEALTH, 0
        if self._immortal:
            self._engine.spare()
        self._over = False
        return self._frame(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Plays one tic.

        Args:
          action: float [1]; values beyond [-1, 1] count as -1 or 1.

        Returns:
          (frame uint8 [64, 64, 3], reward, terminated, truncated, info)

        Raises:
          ValueError: the action has another shape or is not finite.
          ResetNeeded: the episode is over or was never begun.
          RunFailed: the engine has ended; a reset starts another one.
        """
        value = _checked(action)
        if self._over or self._engine is None:
            raise ResetNeeded("step: the episode is over or was never begun, call reset first")
        left, right = float(value < -THRESHOLD), float(value > THRESHOLD)
        reward, picture = self._engine.tic([left, right])
        self._steps += 1
        # The engine keeps no time limit here: so a truncated episode has a last picture.
        terminated = picture is None
        truncated = not terminated and self._steps >= _TASK.max_steps
        self._over = terminated or truncated
        info: dict[str, Any] = {"end_probability": self._hurt()}
        if picture is None:
            info["last_frame_repeated"] = True
        else:
            self._picture = picture
        return self._frame(), float(reward), terminated, truncated, info

    def render(self) -> np.ndarray | None:
        """The engine's whole picture, uint8 [120, 160, 3], or None without a render_mode."""
        return None if self.render_mode is None else self._picture.copy()

    def outlook(self) -> np.ndarray:
        """What is known beside the frames, for a critic: nothing, float32 [0]."""
        return np.zeros(0, np.float32)

    def reward_ahead(self) -> float:
        """What can be foreseen of the rewards to come: nothing."""
        return 0.0

    def close(self) -> None:
        """Ends the engine; a later reset starts another one."""
        if self._engine is not None:
            self._engine.close()
        self._engine = None
        self._over = True

    def _hurt(self) -> float:
        """Takes the health that this tic cost; how likely it was to be fatal."""
        assert self._engine is not None
        before, lost = self._health, self._engine.damage() - self._damage
        self._damage += lost
        self._health -= lost
        if self._immortal and self._health <= 0:
            self._health = HEALTH
        return _fatal(before, lost)

    def _running_engine(self) -> DoomEngine:
        if self._engine is not None and not self._engine.game.is_running():
            self.close()  # it crashed
        if self._engine is None:
            self._engine = DoomEngine(SCENARIO, RESOLUTION)
        return self._engine

    def _frame(self) -> np.ndarray:
        return cv2.resize(
            self._picture[:ROWS], (FRAME_SIZE, FRAME_SIZE), interpolation=cv2.INTER_AREA
        )


def make(official_frames: bool = False, immortal: bool = False) -> TakeCoverEnv:
    """The real environment, without wrappers.

    Args:
      official_frames: as for every task; without meaning here, where all frames are the engine's.
      immortal: see `TakeCoverEnv`.

    Raises:
      UserError: vizdoom is not installed.
    """
    del official_frames
    return TakeCoverEnv(immortal=immortal)


def random_policy(generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Uniform actions, each held for 1 to 10 tics: float32 [1], without end."""
    return _holding(generator, LONGEST_HOLD)


def exploring_policy(generator: np.random.Generator) -> Iterator[np.ndarray]:
    """As `random_policy`, but an episode's longest hold is drawn between 3 and 300 tics.

    Whoever holds an action long stands at a wall, where the first controllers go and where
    `random_policy` hardly ever is.

    Yields:
      float32 [1], without end.
    """
    low, high = np.log(EXPLORING_HOLDS)
    return _holding(generator, round(float(np.exp(generator.uniform(low, high)))))


def jitter_policy(generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Uniform actions, drawn anew for each tic: float32 [1], without end."""
    while True:
        yield _uniform(generator)


def _holding(generator: np.random.Generator, longest: int) -> Iterator[np.ndarray]:
    while True:
        action = _uniform(generator)
        for _ in range(generator.integers(1, longest + 1)):
            yield action.copy()


def _uniform(generator: np.random.Generator) -> np.ndarray:
    return generator.uniform(-1.0, 1.0, _TASK.action_size).astype(np.float32)


def _fatal(health: int, lost: int) -> float:
    """How likely the hits that cost `lost` points of `health` were to take all of it."""
    hits = math.ceil(lost / (DAMAGE * SIDES))  # nearly always one, if any
    chances = np.ones(1)  # of the sums of so many dice, from `hits` on
    for _ in range(hits):
        chances = np.convolve(chances, np.full(SIDES, 1.0 / SIDES))
    least = math.ceil(health / DAMAGE)
    return float(chances[max(least - hits, 0) :].sum())


def _checked(action: np.ndarray) -> float:
    values = np.asarray(action, dtype=np.float64)
    if values.shape != (_TASK.action_size,):
        raise ValueError(f"action: expected [{_TASK.action_size}], got {list(values.shape)}")
    if not np.isfinite(values[0]):
        raise ValueError(f"action: expected a finite number, got {values[0]}")
    return float(np.clip(values[0], -1.0, 1.0))
