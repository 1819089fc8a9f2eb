"""A run's episodes: which are trained on, and all of them as V of a round sees them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wm_tf.pipeline.checkpoints import load_vision
from wm_tf.pipeline.run import Run

HELD_OUT = 20
"""One episode in so many is kept for measuring and never trained on."""


def training_part(episodes: Sequence[Path]) -> list[Path]:
    """The episodes to train on."""
    return [path for index, path in enumerate(episodes) if index % HELD_OUT]


def held_out_part(episodes: Sequence[Path]) -> list[Path]:
    """The episodes to measure on; disjoint from `training_part`."""
    return [path for index, path in enumerate(episodes) if index % HELD_OUT == 0]


def encode_rounds(run: Run, round_index: int) -> list[Path]:
    """Encodes all episodes so far with V of that round; returns the encoded ones."""
    from wm_tf.training.encode import encode_episodes

    episodes = run.episodes(round_index)
    encoded = [run.latents(int(path.parent.name)) / path.name for path in episodes]
    encode_episodes(load_vision(run, round_index), episodes, encoded, run.config.task)
    return encoded
