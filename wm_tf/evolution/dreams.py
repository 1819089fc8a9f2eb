"""The dreams of a generation, in chunks for the processes of an executor.

A process computes on one thread, and two of them dream nearly twice as fast as one process with two
threads: the loop's matrix products are too small to be shared. Chunks are cut by the number of
dreams alone, so a generation's numbers are the same with any number of workers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wm_tf import agent, seeding
from wm_tf.config import ControllerConfig, get_task
from wm_tf.execution import map_chunks
from wm_tf.precision import Precision, compute_dtype
from wm_tf.seeding import Purpose
from wm_tf.serving import manifest, parcel
from wm_tf.serving.initial import InitialLatents

if TYPE_CHECKING:  # it imports TensorFlow, which `agent.load_models` starts
    from wm_tf.dream.population import DreamReturns, PopulationRollout

DREAMS = 256
"""In a chunk, about. More make a step's matrix products no faster."""


@dataclass(frozen=True)
class DreamChunk:
    """Some candidates of a generation, in all of its dreams."""

    task: str
    models: agent.ModelsAt
    candidates: np.ndarray = field(repr=False)
    """Their parameters, [P, N]."""
    seed: int
    purpose: Purpose
    generation: int
    """With `seed` and `purpose` it fixes where the dreams start, and every random number."""
    config: ControllerConfig
    expected: bool
    """See `PopulationRollout`."""

    def __str__(self) -> str:
        return (
            f"{self.task}: seed {self.seed}, {len(self.candidates)} candidates in the "
            f"{self.config.rollouts} dreams of generation {self.generation}"
        )

    @property
    def records(self) -> tuple[Path, ...]:
        """Files that it writes: none."""
        return ()

    def recording_at(self, _: Sequence[Path]) -> DreamChunk:
        """The same."""
        return self


def dream(chunk: DreamChunk) -> DreamReturns:
    """What a chunk's candidates reach."""
    task, config = get_task(chunk.task), chunk.config
    hidden = task.hidden_units(chunk.candidates.shape[1])
    rollout, starts = _dreams(chunk.models, chunk.task, config.precision, chunk.expected, hidden)
    if chunk.purpose is Purpose.EVALUATION:
        starts = starts.beginnings(task)
    from wm_tf.dream.population import Starts

    stream = seeding.sequence(chunk.seed, chunk.purpose, chunk.generation)
    random = np.random.default_rng(stream)
    return rollout(
        chunk.candidates,
        Starts(*starts.sample(random, config.rollouts, task.hidden_size)),
        seed=seeding.environment_seed(stream),
        horizon=config.horizon,
        temperature=config.temperature,
        dropout=config.dropout,
        patience=config.patience,
        goal=config.goal + config.goal_rise * chunk.generation,
    )


def dream_all(
    executor: Executor,
    candidates: np.ndarray,
    *,
    task: str,
    models: agent.ModelsAt,
    config: ControllerConfig,
    seed: int,
    purpose: Purpose,
    generation: int,
    expected: bool = True,
) -> DreamReturns:
    """What candidates [P, N] reach in the dreams of a generation, [P, R].

    Args:
      executor: dreams.
      candidates: their parameters.
      task: whose dreams they are.
      models: V and M, their starts and their rule of the end.
      config: how many dreams, how long and how they are.
      seed, purpose, generation: of the random numbers.
      expected: see `PopulationRollout`.
    """
    size = max(1, DREAMS // config.rollouts)
    # The same arithmetic everywhere, whatever the workers' processors gain from.
    config = dataclasses.replace(config, precision=compute_dtype(config.precision))
    work = [
        DreamChunk(
            task, models, candidates[first : first + size].astype(np.float32),
            seed, purpose, generation, config, expected,
        )
        for first in range(0, len(candidates), size)
    ]  # fmt: skip
    parts = map_chunks(executor, dream, work, describe=str)
    from wm_tf.dream.population import DreamReturns

    return DreamReturns(
        np.concatenate([part.returns for part in parts]),
        np.concatenate([part.lengths for part in parts]),
    )


@lru_cache(maxsize=16)
def _dreams(
    models: agent.ModelsAt, task: str, precision: Precision, expected: bool, hidden: int
) -> tuple[PopulationRollout, InitialLatents]:
    """This process's dreams, made anew only when the models change."""
    _, memory, _ = agent.load_models(models, task)
    folder = parcel.find(models.folder, task, models.checksum) / task
    from wm_tf.dream.population import PopulationRollout

    end = manifest.EndRule.of(manifest.read(folder, task))
    rollout = PopulationRollout(get_task(task), memory, end, precision, expected, hidden)
    return rollout, InitialLatents.read(folder, get_task(task))
