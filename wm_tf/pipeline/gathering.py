"""The stage that plays: a round's episodes. The random policy's need no TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path

import numpy as np

from wm_tf.collect import collect
from wm_tf.config import CollectConfig
from wm_tf.data.episodes import collected, episode_path, intact_episodes, read_rewards
from wm_tf.errors import UserError
from wm_tf.pipeline.checkpoints import controllers, last_controller, networks
from wm_tf.pipeline.run import Run, Values, array_digest, identity
from wm_tf.runtime import import_tensorflow


def collect_round(run: Run, executor: Executor, round_index: int, config: CollectConfig) -> Values:
    """Gathers a round's episodes.

    The controller's are driven in turn by the best and by the last mean of the round before: the
    first drives well, the second shows M where the dream was wrong.
    """
    task, folder = run.config.task, run.rollouts(round_index)
    if config.immortal and not task.mortal:
        raise UserError(f"--immortal: expected a task whose players die, got {task.name}")
    inputs = {**identity(config, "episodes"), "seed": run.config.seed}
    made, drivers = None, []
    if config.policy == "controller":
        import_tensorflow()
        made = last_controller(run, round_index, "dream")
        if made is None:
            later = controllers(run)
            advice = "train one"
            if later:
                advice = f"--round {later[-1].round_index + 1} collects with its last one"
            raise UserError(
                f"{run.folder}: there is no controller to collect with before round {round_index}; "
                f"{advice}"
            )
        drivers = [made.parameters, made.last]
        inputs["networks"] = networks(run, made.round_index)
        inputs["drivers"] = [array_digest(driver) for driver in drivers]

    def work() -> tuple[list[Path], Values]:
        models = None
        if made is not None:
            from wm_tf.pipeline.exports import export_round, exported_models

            export_round(run, made.round_index, made.parameters)
            models = exported_models(run)
        collect(
            executor,
            task,
            folder,
            config,
            seed=run.config.seed,
            round_index=round_index,
            models=models,
            controllers=drivers,
        )
        files = [episode_path(folder, index) for index in range(config.episodes)]
        if run.skip_corrupt:
            files = intact_episodes(files, task, skip_corrupt=True)
        return files, _figures(files)

    return run.stage(
        "collect",
        round_index,
        inputs,
        work,
        goal=config.episodes,
        partial=lambda: _collected(run, round_index),
    )


def _figures(episodes: Sequence[Path]) -> Values:
    """``mean_return`` and ``steps`` of a round, whenever its episodes were played."""
    rewards = [read_rewards(path) for path in episodes]
    returns = [reward.sum(dtype=np.float64) for reward in rewards]
    return {"mean_return": float(np.mean(returns)), "steps": sum(map(len, rewards))}


def _collected(run: Run, round_index: int) -> list[Path]:
    """The episodes that the stage made, encoded ones too: not imported and not a person's ones."""
    if run.record("collect", round_index) is None:
        return []
    folder, latents = run.rollouts(round_index), run.latents(round_index)
    paths = [path for place in (folder, latents) for path in place.glob("episode-*.npz")]
    return collected(paths, folder)
