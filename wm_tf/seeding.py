"""Where every random number of a run comes from.

A stream is `numpy.random.SeedSequence(run_seed, spawn_key=(purpose, *key))`: it depends on what
the numbers are for and on their place in the work, never on the clock, the process or the order
in which work is finished. Streams of different purposes never meet, so that a controller is never
evaluated on a track that it was trained or selected on.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What random numbers are drawn for. The values are part of the results: never renumber."""

    COLLECTION = 1  # (round, episode)
    FITNESS = 2  # (generation, rollout)
    SELECTION = 3  # (episode,)
    EVALUATION = 4  # (episode,)
    VISION = 5  # (epoch,)
    MEMORY = 6  # (epoch,)
    EVOLUTION = 7  # (generation,)
    PLAYER = 8  # (episode,)
    BENCHMARK = 9


def sequence(seed: int, purpose: Purpose, *key: int) -> np.random.SeedSequence:
    """The seed sequence of a purpose and a place in the work."""
    return np.random.SeedSequence(seed, spawn_key=(int(purpose), *key))


def generator(seed: int, purpose: Purpose, *key: int) -> np.random.Generator:
    """A NumPy generator over `sequence`."""
    return np.random.default_rng(sequence(seed, purpose, *key))


def environment_seed(stream: np.random.SeedSequence) -> int:
    """A seed in [1, 2^31) for an environment's reset or for a `tf.random.stateless_*` call."""
    return int(stream.generate_state(1)[0]) % (2**31 - 1) + 1
