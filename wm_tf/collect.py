"""Gathers episodes in the real environment, in parallel, one file each.

Episode i of a round depends on the run's seed, the round and i alone. The episodes that are there
already are kept, so that the same command, typed again after an interruption, goes on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path

import numpy as np

from wm_tf import agent
from wm_tf.config import CollectConfig, Task
from wm_tf.data.episodes import episode_path
from wm_tf.execution import run_chunks
from wm_tf.precision import compute_dtype
from wm_tf.progress import Progress
from wm_tf.seeding import Purpose


def collect(
    executor: Executor,
    task: Task,
    folder: Path,
    config: CollectConfig,
    *,
    seed: int,
    round_index: int = 0,
    models: agent.ModelsAt | None = None,
    controllers: Sequence[np.ndarray] = (),
) -> list[agent.Outcome]:
    """Plays a round's episodes and writes those that are missing.

    Args:
      executor: runs the chunks.
      task: what to play.
      folder: where the episodes are written.
      config: how many, and how a controller's actions are disturbed.
      seed: of the run.
      round_index: of the round, counted from 0.
      models: whose V and M play; None: the task's random policy.
      controllers: parameters [N] of the controllers that play, in turn.

    Returns:
      What the newly played episodes gave, in the order of completion.
    """
    missing = [
        agent.Rollout(
            seed=seed,
            key=(int(Purpose.COLLECTION), round_index, index),
            parameters=controllers[index % len(controllers)] if controllers else None,
            noise=0.0 if models is None or _is_quiet(index, config) else config.noise,
            record=episode_path(folder, index),
        )
        for index in range(config.episodes)
        if not episode_path(folder, index).exists()
    ]
    work = agent.chunks(
        missing,
        agent.chunk_size(len(missing), executor),
        task=task.name,
        max_steps=task.max_steps,
        models=models,
        patience=config.patience,
        immortal=config.immortal,
        precision=compute_dtype("auto"),
    )
    return _play(executor, work, config.episodes)


def _is_quiet(index: int, config: CollectConfig) -> bool:
    """Spreads the share of quiet episodes evenly over pairs, so that controllers take turns too."""
    pair = index // 2
    return int((pair + 1) * config.quiet_fraction) > int(pair * config.quiet_fraction)


def _play(executor: Executor, work: Sequence[agent.Chunk], episodes: int) -> list[agent.Outcome]:
    outcomes: list[agent.Outcome] = []
    steps = 0
    start = time.monotonic()
    done = episodes - sum(len(chunk.rollouts) for chunk in work)
    with Progress("collect", episodes, "episodes", done=done) as progress:
        for _, results in run_chunks(executor, agent.play, work, describe=str):
            outcomes += results
            steps += sum(outcome.steps for outcome in results)
            progress.advance(
                len(results),
                steps_per_second=steps / (time.monotonic() - start),
                mean_return=sum(outcome.total for outcome in outcomes) / len(outcomes),
            )
    return outcomes
