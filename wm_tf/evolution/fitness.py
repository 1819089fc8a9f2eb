"""The fitness of candidates: their mean return over rollouts that all of them share.

All candidates of a generation meet the same rollouts: real rollout r of generation g draws its
random numbers from (seed, FITNESS, g, r), the dreams of generation g from (seed, FITNESS, g).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from wm_tf import agent
from wm_tf.config import ControllerConfig, Task
from wm_tf.evolution.dreams import dream_all
from wm_tf.execution import map_chunks
from wm_tf.precision import Precision, compute_dtype
from wm_tf.seeding import Purpose


class Fitness(NamedTuple):
    """What a generation reached."""

    returns: np.ndarray  # [P], mean over the rollouts
    steps: int  # in all rollouts together; in dreams, as many as are expected to be lived


FitnessFunction = Callable[[np.ndarray, int], Fitness]
"""(candidates [P, N], generation) to their fitness."""


@dataclass(frozen=True)
class DreamFitness:
    """Dreams with the candidates, in chunks handed to an executor."""

    executor: Executor
    task: Task
    models: tuple[agent.ModelsAt, ...]
    """Whose Ms dream in equal shares."""
    config: ControllerConfig
    seed: int

    def __call__(self, candidates: np.ndarray, generation: int) -> Fitness:
        share = self.config.rollouts // len(self.models)
        parts = [
            dream_all(
                self.executor,
                candidates,
                task=self.task.name,
                models=models,
                config=dataclasses.replace(self.config, rollouts=share, members=1),
                seed=self.seed,
                purpose=Purpose.FITNESS,
                generation=generation,
            )
            for models in self.models
        ]
        # Summed in float64: the candidates' order must not depend on rounding.
        returns = np.concatenate([part.returns for part in parts], axis=1, dtype=np.float64)
        return Fitness(returns.mean(axis=1), sum(int(part.lengths.sum()) for part in parts))


@dataclass(frozen=True)
class RealFitness:
    """Plays the candidates in the real environment, in chunks handed to an executor."""

    executor: Executor
    task: Task
    models: agent.ModelsAt
    config: ControllerConfig
    seed: int

    def __call__(self, candidates: np.ndarray, generation: int) -> Fitness:
        rollouts = self.config.rollouts
        work = [
            # One array for all of a candidate's rollouts: a chunk of them holds it once.
            agent.Rollout(self.seed, (int(Purpose.FITNESS), generation, rollout), candidate)
            for candidate in candidates.astype(np.float32)
            for rollout in range(rollouts)
        ]
        outcomes = play_all(
            self.executor,
            work,
            task=self.task.name,
            max_steps=min(self.config.horizon, self.task.max_steps),
            models=self.models,
            patience=self.config.patience,
            precision=compute_dtype(self.config.precision),
        )
        totals = np.array([outcome.total for outcome in outcomes])
        steps = sum(outcome.steps for outcome in outcomes)
        return Fitness(totals.reshape(len(candidates), rollouts).mean(axis=1), steps)


def play_all(
    executor: Executor, rollouts: list[agent.Rollout], **common: Any
) -> list[agent.Outcome]:
    """Plays rollouts in chunks (`common` are the chunks' other fields); outcomes in order."""
    work = agent.chunks(rollouts, agent.chunk_size(len(rollouts), executor), **common)
    return [
        outcome
        for outcomes in map_chunks(executor, agent.play, work, describe=str)
        for outcome in outcomes
    ]


def real_returns(
    executor: Executor,
    task: Task,
    models: agent.ModelsAt,
    parameters: np.ndarray,
    *,
    seed: int,
    episodes: int,
    precision: Precision,
    purpose: Purpose = Purpose.SELECTION,
) -> np.ndarray:
    """A controller's returns in the real environment on the seeds of a purpose, [episodes]."""
    rollouts = [
        agent.Rollout(seed, (int(purpose), index), parameters.astype(np.float32))
        for index in range(episodes)
    ]
    outcomes = play_all(
        executor,
        rollouts,
        task=task.name,
        max_steps=task.max_steps,
        models=models,
        precision=compute_dtype(precision),
    )
    return np.array([outcome.total for outcome in outcomes])
