"""One dream over the SavedModels of a task: what the session needs of `wm_tf`, for a batch of one.

The same seed and place in a dream give the same chance always: the noise of a step is
`[state.seed, state.step]`, and so is the throw that decides a sampled end. Hence going back and
driving on, or replaying a recording, repeats exactly.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from wm_tf import seeding
from wm_tf.seeding import Purpose

if TYPE_CHECKING:
    from player.compiled import Compiled, Dreamt
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
        self._compiled: Compiled | None = None
        # What came with the last steps: as many as there are dreams at a time.
        self._latest: deque[tuple[DreamState, Dreamt]] = deque(maxlen=6)
        self.digest = _digest(models.manifest)

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

    def compile(self) -> None:
        """From now on a step is one call of TensorFlow; raises what TensorFlow raises."""
        from player.compiled import Compiled

        if Compiled.possible(self._models):
            self._compiled = Compiled(self._models)

    def step(
        self, state: DreamState, action: np.ndarray, temperature: float, shown: bool = True
    ) -> Outcome:
        """The dream after `action` [A]; `shown` says whether its picture will be asked for."""
        following, reward, probability = self._dreamt(state, action, temperature, shown)
        throw = np.random.default_rng([state.seed, state.step]).random(1)
        ended = self._dream.terminated(probability, throw)
        return Outcome(
            following, float(reward[0]), self._probability(float(probability[0])), bool(ended[0])
        )

    def _dreamt(
        self, state: DreamState, action: np.ndarray, temperature: float, shown: bool
    ) -> tuple[DreamState, np.ndarray, np.ndarray]:
        """(the next state, reward, probability of the end as trained)"""
        if self._compiled is None:
            result = self._dream.step(state, action[None], temperature)
            return result.state, result.reward, result.done_probability
        arrays = (state.latent, action[None], state.h, state.c)
        out = self._compiled.dream(arrays, temperature, (state.seed, state.step), shown)
        following = replace(
            state, latent=out.latent, h=out.h, c=out.c, step=(state.step + 1) % 2**31
        )
        self._latest.append((following, out))
        return following, out.reward, out.done_probability

    def _known(self, state: DreamState) -> Dreamt | None:
        """What came with the step to `state`, if it was one of the last."""
        return next((dreamt for there, dreamt in self._latest if there is state), None)

    def _probability(self, as_trained: float) -> float:
        """P(end), without the weight that endings had in the end head's loss."""
        from wm_tf.dream.world import without_weight

        return float(without_weight(as_trained, self._models.end.odds_correction))

    def frame(self, state: DreamState) -> np.ndarray:
        """The picture of a state, uint8 [64, 64, 3]."""
        known = self._known(state)
        if known is not None and known.frame is not None:
            return known.frame[0]
        return self._dream.frame(state)[0]

    def rest(self, seed: int) -> DreamState:
        """An empty state at an episode's beginning: M's state is zero."""
        from wm_tf.dream.world import DreamState

        latent = np.zeros((1, self.task.latent_size), np.float32)
        zero = np.zeros((1, self.task.hidden_size), np.float32)
        return DreamState(latent, zero, zero, seed=seed, step=0)

    def seen(self, frame: np.ndarray, state: DreamState) -> DreamState:
        """`state` with its latent sampled from what V sees in a frame, uint8 [64, 64, 3]."""
        return self._sampled(state, *self._models.encode(frame[None]))

    def followed(
        self, state: DreamState, action: np.ndarray, frame: np.ndarray
    ) -> tuple[np.ndarray, float, DreamState]:
        """A step of M beside a real one: `frame`, uint8 [64, 64, 3], is what came after `action`.

        Returns:
          The mean of the latent that M expected [1, Z], the probability that it gave to the end,
          and the next state: M's, and the latent sampled from what V sees in the frame.
        """
        arrays = (state.latent, action[None], state.h, state.c)
        if self._compiled is not None:
            out = self._compiled.follow(frame[None], arrays)
        else:
            mean, log_variance = self._models.encode(frame[None])
            out = self._models.step(*arrays)
            out = out | {"means": out["mean"], "mean": mean, "log_variance": log_variance}
        expected = (_softmax(out["logits"]) * out["means"]).sum(axis=-1)
        following = replace(state, h=out["h"], c=out["c"], step=state.step + 1)
        probability = self._probability(1.0 / (1.0 + float(np.exp(-float(out["done_logit"][0])))))
        return expected, probability, self._sampled(following, out["mean"], out["log_variance"])

    @staticmethod
    def _sampled(state: DreamState, mean: np.ndarray, log_variance: np.ndarray) -> DreamState:
        generator = np.random.default_rng([state.seed, state.step])
        normal = generator.standard_normal(mean.shape, np.float32)
        return replace(state, latent=mean + np.exp(0.5 * log_variance) * normal)

    def picture(self, latent: np.ndarray) -> np.ndarray:
        """The picture of a latent [1, Z], uint8 [64, 64, 3]."""
        return np.rint(self._models.decode(latent)[0] * 255.0).astype(np.uint8)

    def wish(self, state: DreamState) -> np.ndarray | None:
        """What the controller would do, [A]; None where there is none."""
        if not self.has_controller:
            return None
        known = self._known(state)
        if known is not None and known.wish is not None:
            return known.wish[0]
        return self._models.act(state.latent, state.h, state.c)[0]

    def expectation(self, state: DreamState, action: np.ndarray) -> dict[str, np.ndarray]:
        """M's mixture for the next latent: weights, mean and std, each [Z, K]."""
        result: dict[str, Any] = self._models.step(state.latent, action[None], state.h, state.c)
        return {
            "weights": _softmax(result["logits"][0]),
            "mean": result["mean"][0],
            "std": np.exp(result["log_std"][0]),
        }


def _digest(manifest: Mapping[str, Any]) -> str:
    """Of what shapes a dream: the weights, and how it ends; not of scores or the model card."""
    weights = {
        name: checksum for name, checksum in manifest["files"].items() if "/variables/" in name
    }
    content = json.dumps([weights, manifest["end"]], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


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
    world.compile()
    state = world.start(0, 0, 0)
    world.wish(state)
    world.frame(state)
    world.step(state, np.zeros(world.task.action_size, np.float32), world.temperature)
    return world
