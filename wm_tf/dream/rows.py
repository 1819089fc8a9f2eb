"""Rows of dreams: what the gymnasium environments of `wm_tf.dream.envs` have in common."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Literal, get_args

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded

from wm_tf import storage
from wm_tf.agent import action_range
from wm_tf.config import FRAME_SIZE, Task
from wm_tf.dream.world import Dream, DreamState, checked_temperature
from wm_tf.errors import UserError
from wm_tf.serving import manifest
from wm_tf.serving.load import Models, load

Observation = Literal["latent", "state", "frame"]


class Rows:
    """The dreams that an environment plays: their state, generators and step counts.

    A single environment is one row. Arguments are those of `wm_tf.dream.envs.DreamEnv`; `rows` is
    B, and `generators`, one for each row, are set by the environment before it starts a row.
    """

    def __init__(
        self,
        task: str,
        models: Models | Path | str,
        rows: int,
        temperature: float | None,
        horizon: int | None,
        observation: Observation,
    ) -> None:
        if observation not in get_args(Observation):
            accepted = ", ".join(get_args(Observation))
            raise UserError(f"observation: expected one of {accepted}, got {observation!r}")
        if horizon is not None and horizon < 1:
            raise UserError(f"horizon: expected at least 1, got {horizon}")
        if temperature is not None:
            checked_temperature(temperature)
        loaded = models if isinstance(models, Models) else _load(models, task)
        if loaded.task.name != task:
            raise UserError(f"models of task {loaded.task.name!r}, expected {task!r}")
        self.task = loaded.task
        self.dream = Dream(loaded)
        self.rows = rows
        self.temperature = loaded.temperature if temperature is None else temperature
        self.horizon = self.task.max_steps if horizon is None else horizon
        self.observation_space = _observation_space(self.task, observation)
        self.action_space = gymnasium.spaces.Box(*action_range(self.task))
        self.generators: list[np.random.Generator] = []
        self._observation = observation
        self._state: DreamState | None = None
        self._frames: np.ndarray | None = None  # of `_state`, once asked for
        self._steps = np.zeros(rows, np.int64)  # taken in each row's episode

    @property
    def state(self) -> DreamState:
        if self._state is None:
            raise ResetNeeded("the dream has not begun: call reset() first")
        return self._state

    def restart(self, rows: np.ndarray, new_noise: bool = False) -> None:
        """Begins an episode in the rows where `rows`, bool [B], is true; the first time, in all.

        The noise's seed is drawn by row 0 the first time and where `new_noise`; otherwise the noise
        goes on.
        """
        old = self._state
        if old is None:
            rows = np.ones(self.rows, bool)
        noise_seed = None if old is None or new_noise else old.seed
        starts = {}
        for row in np.flatnonzero(rows).tolist():
            starts[row] = self.dream.initial(self.generators[row], 1, noise_seed)
            noise_seed = starts[row].seed
        kept = {row: _row_of(old, row) for row in np.flatnonzero(~rows).tolist()} if old else {}
        states = [state for _, state in sorted({**starts, **kept}.items())]
        self._become(
            DreamState(
                latent=np.concatenate([state.latent for state in states]),
                h=np.concatenate([state.h for state in states]),
                c=np.concatenate([state.c for state in states]),
                seed=states[0].seed,
                step=0 if old is None or new_noise else old.step,
            )
        )
        self._steps[rows] = 0

    def advance(
        self, actions: np.ndarray, active: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """One step: (reward float64, terminated, truncated, done_probability), each [B].

        Rows where `active`, bool [B], is false are about to start again: their results are 0. Where
        no row is active the noise does not advance, as a single environment's would not.
        """
        state = self.state
        if not active.any():
            nothing = np.zeros(self.rows, bool)
            return np.zeros(self.rows), nothing, nothing.copy(), np.zeros(self.rows, np.float32)
        following, reward, probability = self.dream.step(state, actions, self.temperature)
        uniform = np.ones(self.rows)
        if self.dream.models.end.rule == "sampled":
            for row in np.flatnonzero(active):
                uniform[row] = self.generators[row].random()
        terminated = self.dream.terminated(probability, uniform) & active
        self._become(following)
        self._steps[active] += 1
        truncated = (self._steps >= self.horizon) & active
        probability = np.where(active, probability, np.float32(0.0))
        return np.where(active, reward, 0.0).astype(np.float64), terminated, truncated, probability

    def observe(self) -> np.ndarray:
        """The observations [B, ...]."""
        state = self.state
        if self._observation == "latent":
            return state.latent.copy()
        if self._observation == "frame":
            return self.frames().copy()
        parts = [state.latent, state.h]
        if self.task.controller_reads_cell:
            parts.append(state.c)
        return np.concatenate(parts, axis=-1)

    def frames(self) -> np.ndarray:
        """The decoded frames, uint8 [B, 64, 64, 3]."""
        if self._frames is None:
            self._frames = self.dream.frame(self.state)
        return self._frames

    def _become(self, state: DreamState) -> None:
        self._state = state
        self._frames = None


def _row_of(state: DreamState, row: int) -> DreamState:
    rows = slice(row, row + 1)
    return dataclasses.replace(state, latent=state.latent[rows], h=state.h[rows], c=state.c[rows])


def _load(models: Path | str, task: str) -> Models:
    """Models shared by all environments of a process, as long as their manifest is the same."""
    path = manifest.find_models(models, task) / manifest.FILE_NAME
    digest = storage.sha256(path) if path.is_file() else ""
    return _load_once(path.parent.absolute(), task, digest)


@functools.lru_cache(maxsize=4)
def _load_once(folder: Path, task: str, digest: str) -> Models:
    return load(folder.parent, task, controller=False)


def _observation_space(task: Task, observation: Observation) -> gymnasium.spaces.Box:
    if observation == "frame":
        return gymnasium.spaces.Box(0, 255, (FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
    size = task.latent_size if observation == "latent" else task.controller_inputs
    return gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
