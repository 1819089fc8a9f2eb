"""A run's episodes: which are trained on, and all of them as V of a round sees them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wm_tf.pipeline.checkpoints import load_vision
from wm_tf.pipeline.run import Run

HELD_OUT = 20
"""One episode in so many is kept for measuring and never trained on. Its number in its round tells
which, so that it stays the same one whatever else comes to be there: the first of the first twenty,
the second of the second, ... the fourth of the fourth, and so on from the first again. So they are
of both drivers of a round, and with and without noise (see `wm_tf.collect`)."""


def training_part(episodes: Sequence[Path]) -> list[Path]:
    """The episodes to train on."""
    held_out = set(held_out_part(episodes))
    return [path for path in episodes if path not in held_out]


def held_out_part(episodes: Sequence[Path]) -> list[Path]:
    """The episodes to measure on, one at least; disjoint from `training_part`."""
    chosen = [path for path in episodes if _is_held_out(_number(path))]
    return chosen or list(episodes[:1])


def _is_held_out(number: int) -> bool:
    return number % HELD_OUT == number // HELD_OUT % 4


def _number(path: Path) -> int:
    """Of an episode's file in its folder; -1 of one that somebody has named otherwise."""
    tail = path.stem.rpartition("-")[2]
    return int(tail) if tail.isdecimal() else -1


def encode_rounds(run: Run, round_index: int) -> list[Path]:
    """Encodes all episodes so far with V of that round; returns the encoded ones."""
    from wm_tf.training.encode import encode_episodes

    episodes = run.episodes(round_index)
    encoded = [run.latents(int(path.parent.name)) / path.name for path in episodes]
    encode_episodes(load_vision(run, round_index), episodes, encoded, run.config.task)
    return encoded
