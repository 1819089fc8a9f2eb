"""The dream as gymnasium environments.

    env = gymnasium.make("wm_tf/CarRacingDream-v0", observation="state", temperature=1.15)
    envs = gymnasium.make_vec("wm_tf/CarRacingDream-v0", num_envs=64)

Observation, by ``observation``:

* ``latent``: z_t, float32 [Z].
* ``state``: exactly what C sees, [z_t, h_t] or [z_t, h_t, c_t], float32.
* ``frame``: z_t decoded, uint8 [64, 64, 3], RGB.

Action: the task's own, float32 [A]; values out of range are clipped. Reward: M's prediction of the
reward of that action. ``terminated`` follows the manifest's end rule; ``truncated`` comes after
``horizon`` steps. ``info["done_probability"]`` is the end head's output.

An episode starts at a moment drawn by the environment's generator. The noise of the steps is
seeded by ``reset(seed=...)``; its step counter goes on when an episode is reset without a seed, so
that no two episodes of a seed share their noise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from wm_tf.dream.rows import Observation, Rows
from wm_tf.dream.world import Dream, DreamState
from wm_tf.errors import UserError
from wm_tf.serving.load import Models


class DreamEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """One dream.

    Args:
      task: the task's name.
      models: the folder of the task's folder (``saved_models``), or models that are loaded.
      temperature: greater than 0; None takes the manifest's.
      horizon: steps after which an episode is truncated; None takes the task's time limit.
      observation: see the module's docstring.
      render_mode: ``rgb_array`` or None.

    Raises:
      UserError: an argument that is not accepted, or models that cannot be used.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012

    def __init__(
        self,
        task: str,
        models: Models | Path | str = "saved_models",
        temperature: float | None = None,
        horizon: int | None = None,
        observation: Observation = "latent",
        render_mode: str | None = "rgb_array",
    ) -> None:
        self._rows = Rows(task, models, 1, temperature, horizon, observation)
        self.metadata = {**self.metadata, "render_fps": self._rows.task.steps_per_second}
        self.render_mode = _checked_render_mode(render_mode)
        self.observation_space = self._rows.observation_space
        self.action_space = self._rows.action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode at a real moment; `seed` seeds the noise too."""
        super().reset(seed=seed)
        self._rows.generators = [self.np_random]
        self._rows.restart(np.array([True]), new_noise=seed is not None)
        return self._rows.observe()[0], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step of the dream; ValueError for an action that is misshapen or not finite."""
        checked = _checked_actions(action, self.action_space)
        reward, terminated, truncated, probability = self._rows.advance(
            checked[np.newaxis], np.array([True])
        )
        info = {"done_probability": float(probability[0])}
        return (
            self._rows.observe()[0],
            float(reward[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            info,
        )

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """The decoded frame, uint8 [64, 64, 3]."""
        return None if self.render_mode is None else self._rows.frames()[0]

    @property
    def dream(self) -> Dream:
        """The dream that is played."""
        return self._rows.dream

    @property
    def state(self) -> DreamState:
        """The dream's state, of one row."""
        return self._rows.state


class DreamVectorEnv(gymnasium.vector.VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Many dreams of the same models with one network call per step; of one, it equals DreamEnv.

    Args:
      num_envs: rows B.
      task, models, temperature, horizon, observation, render_mode: as of `DreamEnv`.
      autoreset_mode: what follows the end of a row's episode, as in gymnasium's vector
        environments: ``NextStep``: the row's next step ignores its action and starts an episode;
        ``SameStep``: it starts at once, the last observation is in ``final_obs``; ``Disabled``: the
        caller resets rows by ``reset(options={"reset_mask": bool [B]})``.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": ["rgb_array"],
        "render_fps": 50,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int,
        task: str,
        models: Models | Path | str = "saved_models",
        temperature: float | None = None,
        horizon: int | None = None,
        observation: Observation = "latent",
        render_mode: str | None = "rgb_array",
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ) -> None:
        if num_envs < 1:
            raise UserError(f"num_envs: expected at least 1, got {num_envs}")
        self._rows = Rows(task, models, num_envs, temperature, horizon, observation)
        self._autoreset_mode = AutoresetMode(autoreset_mode)
        self._ended = np.zeros(num_envs, bool)
        self.num_envs = num_envs
        self.render_mode = _checked_render_mode(render_mode)
        self.metadata = {
            **self.metadata,
            "render_fps": self._rows.task.steps_per_second,
            "autoreset_mode": self._autoreset_mode,
        }
        self.single_observation_space = self._rows.observation_space
        self.single_action_space = self._rows.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(  # type: ignore[override]
        self,
        *,
        seed: int | list[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode in every row, or in those of ``options["reset_mask"]``, bool [B].

        An integer seed gives row i the generator of ``seed + i``, as gymnasium does; the noise of
        all rows is seeded by row 0.
        """
        rows = _checked_mask((options or {}).get("reset_mask"), self.num_envs)
        generators = self._rows.generators
        if seed is not None or not generators:
            seeds = self._row_seeds(seed)
            fresh = [seeding.np_random(row_seed)[0] for row_seed in seeds]
            generators = [
                new if reset or not generators else generators[row]
                for row, (new, reset) in enumerate(zip(fresh, rows, strict=True))
            ]
            self._np_random_seed = -1 if seeds[0] is None else seeds[0]
        self._rows.generators = generators
        self._np_random = generators[0]
        self._rows.restart(rows, new_noise=seed is not None and bool(rows[0]))
        self._ended = self._ended & ~rows
        return self._rows.observe(), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One step of every row.

        Raises:
          ValueError: an action that is misshapen or not finite, or a row whose episode has ended
            while rows are not reset by themselves.
        """
        actions = _checked_actions(actions, self.action_space)
        if self._autoreset_mode is AutoresetMode.DISABLED and self._ended.any():
            rows = np.flatnonzero(self._ended).tolist()
            raise ValueError(f"rows {rows} have ended: expected a reset with a reset_mask first")
        starting = self._ended
        reward, terminated, truncated, probability = self._rows.advance(actions, ~starting)
        if starting.any():
            self._rows.restart(starting)
        infos: dict[str, Any] = {
            "done_probability": probability,
            "_done_probability": ~starting,
        }
        ended = terminated | truncated
        if self._autoreset_mode is AutoresetMode.SAME_STEP:
            if ended.any():
                infos |= self._final(ended, infos)
                self._rows.restart(ended)
            ended = np.zeros(self.num_envs, bool)
        self._ended = ended
        return self._rows.observe(), reward, terminated, truncated, infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        """The decoded frames, one per row."""
        return None if self.render_mode is None else tuple(self._rows.frames())

    @property
    def dream(self) -> Dream:
        """The dream that is played."""
        return self._rows.dream

    @property
    def state(self) -> DreamState:
        """The dreams' state, of B rows."""
        return self._rows.state

    def _row_seeds(self, seed: int | list[int] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int | np.integer):
            return [int(seed) + row for row in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"seed: expected {self.num_envs} seeds, got {len(seed)}")
        return list(seed)

    def _final(self, ended: np.ndarray, infos: dict[str, Any]) -> dict[str, Any]:
        """The last observations and infos of rows that start again within the same step."""
        observed = self._rows.observe()
        final_obs = np.full(self.num_envs, None, object)
        for row in np.flatnonzero(ended):
            final_obs[row] = observed[row]
        return {
            "final_obs": final_obs,
            "_final_obs": ended,
            "final_info": dict(infos),
            "_final_info": ended,
        }


def _checked_actions(actions: Any, space: gymnasium.spaces.Space) -> np.ndarray:
    assert isinstance(space, gymnasium.spaces.Box)  # made above
    array = np.asarray(actions, np.float32)
    if array.shape != space.shape:
        raise ValueError(f"action: expected {list(space.shape)}, got {list(array.shape)}")
    if not np.isfinite(array).all():
        raise ValueError(f"action: expected finite values, got {array.tolist()}")
    return np.clip(array, space.low, space.high)


def _checked_mask(mask: Any, rows: int) -> np.ndarray:
    if mask is None:
        return np.ones(rows, bool)
    mask = np.asarray(mask)
    if mask.shape != (rows,) or mask.dtype != bool:
        raise ValueError(f"reset_mask: expected bool [{rows}], got {mask.dtype} {list(mask.shape)}")
    return mask


def _checked_render_mode(render_mode: str | None) -> str | None:
    if render_mode not in (None, "rgb_array"):
        raise UserError(f"render_mode: expected 'rgb_array' or None, got {render_mode!r}")
    return render_mode
