"""The dream, with explicit state in and out: z_{t+1} ~ M(z_t, a_t, h_t, c_t) from real starts.

    dream = Dream(load("saved_models", "car_racing"))
    state = dream.initial(np.random.default_rng(1), batch=1)
    state, reward, done_probability = dream.step(state, action, temperature=1.0)

The same state, action and temperature give the same next state in any process: the noise of a step
is a function of (state.seed, state.step). A state can be kept and returned to at any time.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from wm_tf.errors import UserError
from wm_tf.serving.load import Models, is_temperature
from wm_tf.serving.manifest import EndRule

_SEEDS = 2**31  # int32 without its negative half


@dataclass(frozen=True)
class DreamState:
    """All that a step of the dream depends on beside the action and the temperature."""

    latent: np.ndarray  # z_t, float32 [B, Z]
    h: np.ndarray  # M's state, float32 [B, H]
    c: np.ndarray  # float32 [B, H]
    seed: int  # of the noise, in [0, 2^31)
    step: int  # of the noise; each step of the dream adds one


class DreamStep(NamedTuple):
    """What one step of the dream gives."""

    state: DreamState
    reward: np.ndarray  # of the action taken, float32 [B]
    done_probability: np.ndarray  # as the end head was trained, float32 [B]


class Dream:
    """The dream of a task's models; holds no state of its own."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self.task = models.task
        self._end = models.end

    def initial(
        self, generator: np.random.Generator, batch: int = 1, seed: int | None = None
    ) -> DreamState:
        """Start latents, sampled from the moments of real episodes.

        Args:
          generator: chooses the moments, samples the latents and, where `seed` is None, the seed.
          batch: rows B.
          seed: of the noise of the steps that follow.
        """
        starts = self.models.initial_latents
        latent, h, c = starts.sample(generator, batch, self.task.hidden_size)
        return DreamState(
            latent=latent,
            h=h,
            c=c,
            seed=int(generator.integers(_SEEDS)) if seed is None else seed,
            step=0,
        )

    def step(self, state: DreamState, action: np.ndarray, temperature: float) -> DreamStep:
        """One step.

        Args:
          state: of B rows.
          action: float32 [B, A], in the task's ranges.
          temperature: greater than 0.
        """
        outputs = self.models.dream(
            state.latent, action, state.h, state.c, temperature, (state.seed, state.step)
        )
        following = dataclasses.replace(
            state,
            latent=outputs["latent"],
            h=outputs["h"],
            c=outputs["c"],
            step=(state.step + 1) % _SEEDS,
        )
        return DreamStep(following, outputs["reward"], outputs["done_probability"])

    def terminated(self, done_probability: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Which rows end, by the manifest's rule (see `wm_tf.serving.manifest`): bool [B].

        Args:
          done_probability: as `step` returns it, [B].
          uniform: random numbers in [0, 1), [B]; used by the rule ``sampled`` alone.
        """
        return has_ended(self._end, done_probability, uniform)

    def frame(self, state: DreamState) -> np.ndarray:
        """What the dream looks like: uint8 [B, 64, 64, 3]."""
        return np.rint(self.models.decode(state.latent) * 255.0).astype(np.uint8)


def has_ended(end: EndRule, done_probability: Any, uniform: Any) -> Any:
    """Where a dream ends by a rule (see `wm_tf.serving.manifest`); arrays and tensors alike.

    Args:
      end: the rule.
      done_probability: as the end head was trained.
      uniform: random numbers in [0, 1) of the same shape; used by the rule ``sampled`` alone.
    """
    probability = without_weight(done_probability, end.odds_correction)
    if end.rule == "threshold":
        return probability > end.value
    if end.rule == "sampled":
        return uniform < probability
    return probability < 0.0  # never


def without_weight(done_probability: Any, weight: float) -> Any:
    """The probability of an end, from one that was trained with ends weighted `weight`-fold.

    Works on arrays and tensors alike: p = q / (q + w (1 - q)).
    """
    return done_probability / (done_probability + weight * (1.0 - done_probability))


def checked_temperature(temperature: float) -> float:
    """Raises UserError unless `is_temperature`."""
    if not is_temperature(temperature):
        raise UserError(f"temperature: expected a number greater than 0, got {temperature}")
    return float(temperature)
