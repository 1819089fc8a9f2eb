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
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from wm_tf import seeding
from wm_tf.seeding import Purpose

if TYPE_CHECKING:
    from wm_tf.dream.world import Dream, DreamState
    from wm_tf.serving.load import Models


@dataclass(frozen=True, eq=False)
class Source:
    """What a dream begins from: a recorded real frame, noise or a picture of one's own."""

    kind: Literal["real", "noise", "picture"] = "real"
    picture: np.ndarray | None = None  # uint8 [64, 64, 3]


REAL, NOISE = Source("real"), Source("noise")


@dataclass(frozen=True)
class Outcome:
    """What one step of the dream gave."""

    state: DreamState
    reward: float
    done_probability: float  # the weight of endings in the loss taken out
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

    def start(self, seed: int, place: int, chance: int, source: Source = REAL) -> DreamState:
        """The beginning of a dream; M's state is zero unless a recorded moment says otherwise.

        Args:
          seed: the player's seed.
          place: which of the endless stream of starts.
          chance: which of the dreams from that start.
          source: where its latent comes from.
        """
        generator = seeding.generator(seed, Purpose.PLAYER, place)
        state = self._dream.initial(generator, 1)
        if source.kind != "real":
            state = self._from_latent(state, self._latent_of(source, generator))
        stream = seeding.sequence(seed, Purpose.PLAYER, place, chance)
        return replace(state, seed=seeding.environment_seed(stream), step=0)

    def _latent_of(self, source: Source, generator: np.random.Generator) -> np.ndarray:
        normal = generator.standard_normal((1, self.task.latent_size), np.float32)
        if source.picture is None:
            return normal
        mean, log_variance = self._models.encode(source.picture[None])
        return mean + np.exp(0.5 * log_variance) * normal

    def _from_latent(self, state: DreamState, latent: np.ndarray) -> DreamState:
        return replace(state, latent=latent, h=np.zeros_like(state.h), c=np.zeros_like(state.c))

    def step(self, state: DreamState, action: np.ndarray, temperature: float) -> Outcome:
        """The dream after `action` [A]."""
        result = self._dream.step(state, action[None], temperature)
        throw = np.random.default_rng([state.seed, state.step]).random(1)
        ended = self._dream.terminated(result.done_probability, throw)
        return Outcome(
            result.state,
            float(result.reward[0]),
            self._probability(float(result.done_probability[0])),
            bool(ended[0]),
        )

    def _probability(self, as_trained: float) -> float:
        """P(end), without the weight that endings had in the end head's loss."""
        from wm_tf.dream.world import without_weight

        return float(without_weight(as_trained, self._models.end.odds_correction))

    def frame(self, state: DreamState) -> np.ndarray:
        """The picture of a state, uint8 [64, 64, 3]."""
        return self._dream.frame(state)[0]

    def rest(self, seed: int) -> DreamState:
        """An empty state at an episode's beginning: M's state is zero."""
        from wm_tf.dream.world import DreamState

        latent = np.zeros((1, self.task.latent_size), np.float32)
        zero = np.zeros((1, self.task.hidden_size), np.float32)
        return DreamState(latent, zero, zero, seed=seed, step=0)

    def seen(self, frame: np.ndarray, state: DreamState) -> DreamState:
        """`state` with its latent sampled from what V sees in a frame, uint8 [64, 64, 3]."""
        mean, log_variance = self._models.encode(frame[None])
        generator = np.random.default_rng([state.seed, state.step])
        normal = generator.standard_normal(mean.shape, np.float32)
        return replace(state, latent=mean + np.exp(0.5 * log_variance) * normal)

    def followed(self, state: DreamState, action: np.ndarray) -> tuple[np.ndarray, DreamState]:
        """M's step: (the mean of the latent that it expects [1, Z], its next state)."""
        result = self._models.step(state.latent, action[None], state.h, state.c)
        weights = _softmax(result["logits"])
        expected = (weights * result["mean"]).sum(axis=-1)
        return expected, replace(state, h=result["h"], c=result["c"], step=state.step + 1)

    def picture(self, latent: np.ndarray) -> np.ndarray:
        """The picture of a latent [1, Z], uint8 [64, 64, 3]."""
        return np.rint(self._models.decode(latent)[0] * 255.0).astype(np.uint8)

    def wish(self, state: DreamState) -> np.ndarray | None:
        """What the controller would do, [A]; None where there is none."""
        if not self.has_controller:
            return None
        return self._models.act(state.latent, state.h, state.c)[0]

    def expectation(self, state: DreamState, action: np.ndarray) -> dict[str, np.ndarray]:
        """M's mixture for the next latent: weights, mean and std, each [Z, K]."""
        result: dict[str, Any] = self._models.step(state.latent, action[None], state.h, state.c)
        return {
            "weights": _softmax(result["logits"][0]),
            "mean": result["mean"][0],
            "std": np.exp(result["log_std"][0]),
        }


def _softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


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
