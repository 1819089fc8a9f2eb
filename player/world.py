"""One dream over the SavedModels of a task: what the session needs of `wm_tf`, for a batch of one.

The same seed and place in a dream give the same chance always: the noise of a step is
`[state.seed, state.step]`, and so is the throw that decides a sampled end. Hence going back and
driving on, or replaying a recording, repeats exactly.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wm_tf import seeding
from wm_tf.seeding import Purpose

if TYPE_CHECKING:
    from wm_tf.dream.world import Dream, DreamState
    from wm_tf.serving.load import Models


@dataclass(frozen=True)
class Outcome:
    """What one step of the dream gave."""

    state: DreamState
    reward: float
    done_probability: float
    ended: bool


class World:
    """A dream with a batch of one: states in and out, actions [A], frames [64, 64, 3] uint8."""

    def __init__(self, models: Models, dream: Dream) -> None:
        self._models = models
        self._dream = dream
        self.task = models.task
        self.steps_per_second = float(models.manifest["steps_per_second"])
        self.temperature = models.temperature
        self.has_controller = models.has_controller
        manifest = json.dumps(dict(models.manifest), sort_keys=True)
        self.digest = hashlib.sha256(manifest.encode()).hexdigest()

    def start(self, seed: int, place: int, chance: int) -> DreamState:
        """The beginning of a dream.

        Args:
          seed: the player's seed.
          place: which of the endless stream of starts.
          chance: which of the dreams from that start.
        """
        state = self._dream.initial(seeding.generator(seed, Purpose.PLAYER, place), 1)
        stream = seeding.sequence(seed, Purpose.PLAYER, place, chance)
        return replace(state, seed=seeding.environment_seed(stream), step=0)

    def step(self, state: DreamState, action: np.ndarray, temperature: float) -> Outcome:
        """The dream after `action` [A]."""
        result = self._dream.step(state, action[None], temperature)
        throw = np.random.default_rng([state.seed, state.step]).random(1)
        ended = self._dream.terminated(result.done_probability, throw)
        return Outcome(
            result.state,
            float(result.reward[0]),
            float(result.done_probability[0]),
            bool(ended[0]),
        )

    def frame(self, state: DreamState) -> np.ndarray:
        """The picture of a state, uint8 [64, 64, 3]."""
        return self._dream.frame(state)[0]

    def wish(self, state: DreamState) -> np.ndarray | None:
        """What the controller would do, [A]; None where there is none."""
        if not self.has_controller:
            return None
        return self._models.act(state.latent, state.h, state.c)[0]

    def expectation(self, state: DreamState, action: np.ndarray) -> dict[str, np.ndarray]:
        """M's mixture for the next latent: weights, mean and std, each [Z, K]."""
        result: dict[str, Any] = self._models.step(state.latent, action[None], state.h, state.c)
        logits = result["logits"][0]
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return {
            "weights": weights / weights.sum(axis=-1, keepdims=True),
            "mean": result["mean"][0],
            "std": np.exp(result["log_std"][0]),
        }


def load(models: Path, task: str) -> World:
    """Loads a task's SavedModels and runs each signature once, so that the first step is quick.

    Raises:
      UserError: they are missing, damaged or of another task.
    """
    from wm_tf.dream.world import Dream
    from wm_tf.serving.load import load as load_models

    loaded = load_models(models, task)
    world = World(loaded, Dream(loaded))
    state = world.start(0, 0, 0)
    world.wish(state)
    action = np.zeros(world.task.action_size, np.float32)
    world.frame(world.step(state, action, world.temperature).state)
    return world
