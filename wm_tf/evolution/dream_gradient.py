"""Policy gradients in the dream: what evolution finds slowly, from dreams cut into short segments.

CMA-ES learns one number from a dream, its return. Here each step tells whether its action was
better or worse than expected, which the critic of `ppo` estimates from what C sees. The policy is C
with Gaussian noise on its actions before they are squashed; advantages are after Schulman et al.
2016. The result is C without noise, averaged over its last updates.

In a generation `population` x `rollouts` dreams go on side by side for `horizon` steps. After every
`SEGMENT` of them C and critic are updated. A dream that has ended begins anew at another start, and
so does one that has lasted `horizon` steps; across generations the others go on.

Where the end is drawn, an advantage counts what may follow by the probability that the dream goes
on; the draw itself only decides which dreams begin anew.

A `goal`, a return, is what `horizon` steps pay at most, in equal shares and beside a small amount
that each dream begins with: what is earned faster does not count, so that speed is worth nothing
above it, and to stay on the road is. (An evolution's dreams end at it.) C and critic do not see
what is left to be paid; what the critic says is an average over it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from wm_tf import agent, seeding
from wm_tf.config import ControllerConfig, Task
from wm_tf.dream.loop import LoopWeights
from wm_tf.dream.world import has_ended, without_weight
from wm_tf.errors import RunFailed
from wm_tf.evolution import ppo
from wm_tf.models import controller, mixture
from wm_tf.precision import compute_dtype
from wm_tf.seeding import Purpose
from wm_tf.serving import manifest, parcel
from wm_tf.serving.initial import InitialLatents

SEGMENT = 32
"""Steps between two updates."""
STARTS = 2048
"""Starts that a generation's dreams begin at, drawn from the models' own."""
DISCOUNT = 0.985
TRACE = 0.95
"""The lambda of generalised advantage estimation."""
EPOCHS = 3
BATCHES = 4
"""An update passes this often over its segment, in so many parts."""
LEARNING_RATE = 2e-3
PURSE = 20.0
"""Points. So much of what a goal allows can be put by at most, and is with a dream's beginning:
rewards come in lumps, one a tile."""
AVERAGED = 3
"""The result is an average of C over the updates of about so many generations: from one to the next
C changes its ways, and in the real task some of them are worth a third less than others."""


class _Dreams(NamedTuple):
    """B dreams that go on side by side."""

    latent: Any  # [B, Z]
    h: Any  # [B, H]
    c: Any  # [B, H]
    mask: Any  # of M's outputs, [B, H]
    steps: Any  # so far, int32 [B]
    unrewarded: Any  # steps since one of which a reward above 0 was expected, int32 [B]
    purse: Any  # what a step can be paid at most, as the goal allows, [B]


class _Starts(NamedTuple):
    """Where dreams begin: S moments for each of J models."""

    latent: Any  # [J, S, Z]
    h: Any  # [J, S, H]
    c: Any  # [J, S, H]
    mask: Any  # [J, S, H]


class _Segment(NamedTuple):
    """T steps of B dreams, for an update."""

    seen: Any  # what C saw, [T, B, F]
    raw: Any  # actions before they are squashed, [T, B, A]
    log_density: Any  # of them, but for a constant, [T, B]
    advantage: Any  # [T, B]
    value: Any  # what the critic should have said, [T, B]


def pay(reward: Any, purse: Any, pace: Any) -> tuple[Any, Any]:
    """What counts of a step's rewards, and the purses after it; see the module's docstring.

    Args:
      reward: of each dream, [B].
      purse: what can be paid at most, [B].
      pace: what comes to each purse with a step.
    """
    counted = tf.minimum(reward, purse)
    return counted, tf.minimum(purse - counted + pace, PURSE)


class DreamGradient:
    """Improves a controller in the dream; see the module's docstring.

    Args:
      task: whose controller it is.
      models: V, M, starts and rule of the end; several dream in equal shares.
      config: `population` x `rollouts` dreams of `horizon` steps; `sigma` is the standard
        deviation of the noise; `goal` and `goal_rise`: see the module's docstring; `temperature`,
        `dropout`, `patience` and `precision` as in an evolution.
      seed: of all random numbers.
      initial: parameters [N] of the controller to begin with.
    """

    def __init__(
        self,
        task: Task,
        models: Sequence[agent.ModelsAt],
        config: ControllerConfig,
        seed: int,
        initial: np.ndarray,
    ) -> None:
        self.generation = 0
        self._task, self._config, self._seed = task, config, seed
        self._dtype = compute_dtype(config.precision)
        self._share = config.population * config.rollouts // len(models)  # dreams of each M
        self._memories, self._ends, self._sources = [], [], []
        for place in models:
            self._memories.append(agent.load_models(place, task.name)[1])
            folder = parcel.find(place.folder, task.name, place.checksum) / task.name
            self._ends.append(manifest.EndRule.of(manifest.read(folder, task.name)))
            self._sources.append(InitialLatents.read(folder, task))
        self._parameters = tf.Variable(tf.cast(initial, tf.float32))
        self._beginning = np.array(initial, np.float64)
        self._average = ppo.Average(len(initial), AVERAGED * self._segments())
        moments = self._moments()
        critic = ppo.make_critic(moments.mean(0), moments.var(0) + 0.01, 1, seed)
        self._actor_critic = ppo.ActorCritic(
            self._parameters, self._log_density, critic, LEARNING_RATE
        )
        self._starts, self._dreams = self._first_dreams()
        self._dream = tf.function(self._dream_on, autograph=False)
        self._learn = tf.function(self._update, autograph=False)

    @property
    def mean(self) -> np.ndarray:
        """Parameters [N] of the controller so far: the policy without noise, averaged."""
        if self.generation == 0:
            return self._beginning
        return self._average.mean(self.generation * self._segments())

    def _segments(self) -> int:
        """Of a generation."""
        return -(-self._config.horizon // SEGMENT)

    def _pace(self) -> np.float32:
        """What counts of a step's reward on average, by the generation's goal."""
        goal = self._config.goal + self._config.goal_rise * self.generation
        return np.float32(goal / self._config.horizon)

    def advance(self) -> dict[str, float]:
        """Dreams and learns for a generation.

        Returns:
          ``mean``: reward per dream that ended; ``critic_error``: root mean square of what the
          critic misjudged, as a share of what there is to judge; ``steps``: dreamt.

        Raises:
          RunFailed: a parameter is not finite.
        """
        stream = seeding.sequence(self._seed, Purpose.EVOLUTION, self.generation)
        noise, random = seeding.environment_seed(stream), np.random.default_rng(stream)
        self._starts = self._draw_starts(random)
        pace = self._pace()
        reward, ended, errors, first = 0.0, 0.0, [], 0
        while first < self._config.horizon:
            last = min(first + SEGMENT, self._config.horizon)
            self._dreams, segment, rewards, ends = self._dream(
                self._dreams, self._starts, *map(tf.constant, (noise, first, last, pace))
            )
            reward, ended, first = reward + float(rewards), ended + float(ends), last
            rows = [tf.reshape(part, [-1, *part.shape[2:]]) for part in segment]
            count = int(rows[0].shape[0])
            for _ in range(EPOCHS):
                for chosen in np.array_split(random.permutation(count), BATCHES):
                    batch = _Segment(*(tf.gather(part, chosen) for part in rows))
                    errors.append(self._learn(batch))
            self._average.add(self._parameters.numpy())
        if not np.isfinite(self._parameters.numpy()).all():
            raise RunFailed(
                f"generation {self.generation}: a parameter is not finite (seed {self._seed})"
            )
        self.generation += 1
        return {
            "mean": reward / max(ended, 1.0),
            "critic_error": float(np.mean(errors)) ** 0.5,
            "steps": float(self._share * len(self._memories) * self._config.horizon),
        }

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """(arrays, JSON facts) from which `restore` goes on."""
        variables = self._actor_critic.variables
        arrays = {f"variable_{index}": part.numpy() for index, part in enumerate(variables)}
        arrays |= {f"dreams_{name}": part.numpy() for name, part in self._dreams._asdict().items()}
        return {**arrays, "average": self._average.uncorrected}, {"generation": self.generation}

    def restore(self, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """Goes on where `state` was taken."""
        arrays = {"dreams_purse": np.full(len(self._dreams.purse), PURSE, np.float32), **arrays}
        self.generation = facts["generation"]
        self._average.uncorrected = arrays["average"]
        for index, variable in enumerate(self._actor_critic.variables):
            variable.assign(arrays[f"variable_{index}"])
        self._dreams = _Dreams(*(tf.constant(arrays[f"dreams_{name}"]) for name in _Dreams._fields))

    def _moments(self) -> np.ndarray:
        """What C sees where the first model's dreams begin, [N, F]."""
        starts, task = self._sources[0], self._task
        zero = np.zeros((len(starts), task.hidden_size), np.float32)
        h = zero if starts.h is None else starts.h
        c = zero if starts.c is None else starts.c
        return controller.features(task, starts.mean, h, c).numpy()

    def _first_dreams(self) -> tuple[_Starts, _Dreams]:
        """Dreams at every age, so that they do not all end together."""
        random = seeding.generator(self._seed, Purpose.EVOLUTION)
        starts = self._draw_starts(random)
        latent, h, c, mask = (tf.concat(tf.unstack(part[:, : self._share]), 0) for part in starts)
        age = random.integers(self._config.horizon, size=len(latent)).astype(np.int32)
        purse = tf.fill([len(latent)], PURSE)
        return starts, _Dreams(latent, h, c, mask, tf.constant(age), tf.zeros_like(age), purse)

    def _draw_starts(self, random: np.random.Generator) -> _Starts:
        """A generation's starts; as many as there are dreams, at least."""
        count, size = max(STARTS, self._share), self._task.hidden_size
        states = [starts.sample(random, count, size) for starts in self._sources]
        kept = random.random((len(states), count, size), np.float32) >= self._config.dropout
        mask = kept.astype(np.float32) / np.float32(1.0 - self._config.dropout)
        latent, h, c = (np.stack(part).astype(np.float32) for part in zip(*states, strict=True))
        return _Starts(*(tf.constant(part) for part in (latent, h, c, mask)))

    def _policy(self, seen: Any) -> tf.Tensor:
        """The mean of the actions before they are squashed, [B, A]."""
        ((kernel, bias),) = controller.split_parameters(self._task, self._parameters)
        return tf.matmul(seen, kernel, transpose_b=True) + bias

    def _log_density(self, seen: Any, raw: Any) -> tf.Tensor:
        """Of actions before they are squashed, but for a constant, [B]."""
        return -0.5 * tf.reduce_sum(tf.square((raw - self._policy(seen)) / self._config.sigma), -1)

    def _dream_on(
        self, dreams: _Dreams, starts: _Starts, seed: Any, first: Any, last: Any, pace: Any
    ) -> tuple[_Dreams, _Segment, Any, Any]:
        """Steps `first` to `last` of all dreams: how they stand, what happened, reward, ends."""
        task, config = self._task, self._config
        weights = [LoopWeights.of(memory, self._dtype) for memory in self._memories]
        models, count = len(weights), self._share * len(weights)
        model = tf.repeat(tf.range(models), self._share)  # of each row
        histories = tuple(tf.TensorArray(tf.float32, last - first) for _ in range(7))

        def step(t: Any, dreams: Any, histories: Any) -> Any:
            latent, h, c, mask, age, unrewarded, purse = dreams
            uniform, normal = mixture.noise(tf.stack([seed, t]), [count, task.latent_size])
            # Beside the noise of the latents, whose second seeds are 0 and above.
            disturbance = tf.random.stateless_normal(
                [count, task.action_size], tf.stack([seed, -2 - 2 * t]), alg="philox"
            )
            draws = tf.random.stateless_uniform(
                [2, count], tf.stack([seed, -3 - 2 * t]), alg="philox"
            )
            seen = controller.features(task, latent, h, c)
            raw = self._policy(seen) + config.sigma * disturbance
            action = controller.squash(task, raw)
            rows = (latent, action, h, c, mask, uniform, normal)
            shares = zip(*(tf.split(part, models) for part in rows), strict=True)
            parts = [
                own.step(latent, action, h, c, mask, config.temperature, uniform, normal)
                for own, (latent, action, h, c, mask, uniform, normal) in zip(
                    weights, shares, strict=True
                )
            ]
            after_latent, after_h, after_c, reward, done_logit = (
                tf.concat(part, 0) for part in zip(*parts, strict=True)
            )
            if task.mortal:  # each step is worth the same, which M's estimate is not to the digit
                reward = tf.ones_like(reward)
            goes_on, ended = self._ends_at(tf.sigmoid(done_logit), draws[0])
            unrewarded = tf.where(reward > 0.0, 0, unrewarded + 1)
            given_up = (unrewarded >= config.patience) & (config.patience > 0)
            goes_on, ended = tf.where(given_up, 0.0, goes_on), ended | given_up
            counted = reward
            if config.goal:
                counted, purse = pay(reward, purse, pace)
            value = self._actor_critic.value(seen)
            after = controller.features(task, after_latent, after_h, after_c)
            later = self._actor_critic.value(after)
            gain = (1.0 - DISCOUNT) * counted + DISCOUNT * goes_on * later - value
            begins = ended | (age + 1 >= config.horizon)
            facts = (seen, raw, value, gain, tf.cast(begins, tf.float32), reward,
                     self._log_density(seen, raw))  # fmt: skip
            histories = tuple(
                array.write(t - first, fact) for array, fact in zip(histories, facts, strict=True)
            )
            start = tf.cast(draws[1] * tf.cast(tf.shape(starts.latent)[1], tf.float32), tf.int32)
            fresh = [tf.gather_nd(part, tf.stack([model, start], -1)) for part in starts]
            followed = (after_latent, after_h, after_c, mask)
            states = [
                tf.where(begins[:, None], new, old)
                for new, old in zip(fresh, followed, strict=True)
            ]
            counts = ((age + 1, 0), (unrewarded, 0), (purse, PURSE))
            dreams = (*states, *(tf.where(begins, new, old) for old, new in counts))
            return t + 1, dreams, histories

        _, after, histories = tf.while_loop(
            lambda t, *_: t < last, step, (first, tuple(dreams), histories)
        )
        seen, raw, value, gain, begins, reward, log_density = (part.stack() for part in histories)
        advantage = tf.scan(
            lambda later, now: now[0] + DISCOUNT * TRACE * (1.0 - now[1]) * later,
            (gain, begins),
            tf.zeros([count]),
            reverse=True,
        )
        segment = _Segment(seen, raw, log_density, advantage, advantage + value)
        return _Dreams(*after), segment, tf.reduce_sum(reward), tf.reduce_sum(begins)

    def _ends_at(self, done_probability: Any, uniform: Any) -> tuple[Any, Any]:
        """(the probability that a dream goes on, whether it ends) for each row."""
        shares = zip(self._ends, *(tf.split(part, len(self._ends)) for part in
                                   (done_probability, uniform)), strict=True)  # fmt: skip
        goes_on, ended = [], []
        for end, probability, draw in shares:
            ends = has_ended(end, probability, draw)
            ended.append(ends)
            goes_on.append(
                1.0 - without_weight(probability, end.odds_correction)
                if end.rule == "sampled"
                else 1.0 - tf.cast(ends, tf.float32)
            )
        return tf.concat(goes_on, 0), tf.concat(ended, 0)

    def _update(self, batch: _Segment) -> tf.Tensor:
        """One step of C and critic; the critic's error as a share of the variance."""
        advantage = ppo.normalized(batch.advantage)
        self._actor_critic.improve([batch.seen, batch.raw], batch.log_density, advantage)
        return self._actor_critic.judge(batch.seen, batch.value)
