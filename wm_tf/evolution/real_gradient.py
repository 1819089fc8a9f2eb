"""Policy gradients in the real environment: what fine-tunes all of C from a thousand episodes.

C acts on a latent that V draws, so its actions are drawn even without noise of their own: before
they are squashed they are normal, around what C makes of the latent's mean, with the covariance
that its weights make of the latent's variance. A little white noise (`sigma`) beside it makes that
a density in all directions. What is learnt so holds without that noise; with noise of its own in
place of the latent's, C learns to count on it. (M sees the latent that was drawn,
too; what an action's probability would owe to that, through M's next state, is left out.)

Each generation plays `population` x `rollouts` episodes with the present C, and passes `EPOCHS`
times over their steps (see `ppo`). Advantages are after Schulman et al. 2016, without a discount,
because an episode's return is what counts. The critic sees what the environment knows (`outlook`;
where that is nothing, what C sees) and how the episode stands: return, steps, and steps since a
reward. In the first generation it learns alone, and later from some generations. The fall of what
the environment has in store (`reward_ahead`) is taken from each reward: potential-based shaping (Ng
et al. 1999), which leaves the critic little to be wrong about.

What learns is each weight times the spread of what it reads and, `ACTUATORS` times as fast, how
much of each action there is: its bias, and a gain of its weights. Few episodes tell of these, where
all that they tell of one weight is noise. The result is an average of C over the last generations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from wm_tf import agent, seeding
from wm_tf.config import ControllerConfig, Task
from wm_tf.errors import RunFailed
from wm_tf.evolution import ppo
from wm_tf.evolution.fitness import play_all
from wm_tf.models import controller
from wm_tf.precision import compute_dtype
from wm_tf.seeding import Purpose

TRACE = 0.99
"""The lambda of generalised advantage estimation."""
EPOCHS = 3
FIRST_EPOCHS = 12
"""The critic's, of the first generation."""
BATCH = 2048
CRITIC_BATCH = 1024
REMEMBERED = 8
"""Generations from which the critic learns: cars get lost too seldom to learn of it from one."""
CLIP_NORM = 10.0
"""Of a batch's gradient, which is larger where cars get lost."""
LEARNING_RATE = 1e-3
"""At first, of each weight times the spread of what it reads."""
ACTUATORS = 5.0
"""By so much faster the biases and the logarithms of the gains learn."""
HALVED = 40
"""The learning rate is half of that after so many generations, a third after twice as many, ..."""
ROWS = 8
"""Episodes that a worker plays side by side: half of a generation, which two workers share."""
AVERAGED = 10
"""The result is an average over about so many generations."""


class _Steps(NamedTuple):
    """N steps: all episodes of a generation, one after the other."""

    features: np.ndarray  # what C saw, with V's mean for the latent, [N, F]
    variance: np.ndarray  # of the latent, [N, Z]
    raw: np.ndarray  # actions before they are squashed, [N, A]
    judged: np.ndarray  # what the critic sees, [N, K]
    reward: np.ndarray  # beyond what was in store for it, [N]
    lengths: tuple[int, ...]  # of the episodes; they sum to N

    @property
    def density_inputs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What `_log_density` takes."""
        return self.features, self.variance, self.raw


class _Lesson(NamedTuple):
    """What the critic should have said of a generation's N steps."""

    judged: np.ndarray  # what it saw, [N, K]
    aim: np.ndarray  # in spreads of the returns, [N]


class _Scales(NamedTuple):
    """What the first generation shows, by which everything learns."""

    parameters: np.ndarray  # the spread of what each reads, or 1 / `ACTUATORS`, [N]
    mean: np.ndarray  # of what the critic sees, [K]
    variance: np.ndarray  # [K]
    return_spread: np.ndarray  # standard deviation of the returns that are to come, []


class RealGradient:
    """Improves a linear controller in the real environment; see the module's docstring.

    Args:
      executor: plays.
      task: whose controller it is.
      models: V and M.
      config: `population` x `rollouts` episodes of at most `horizon` steps; `sigma` is the standard
        deviation of the noise on actions before they are squashed; `patience` and `precision` as in
        an evolution.
      seed: of all random numbers.
      initial: parameters [N] of the controller to begin with.
    """

    def __init__(
        self,
        executor: Executor,
        task: Task,
        models: agent.ModelsAt,
        config: ControllerConfig,
        seed: int,
        initial: np.ndarray,
    ) -> None:
        self.generation = 0
        self._executor, self._task, self._models = executor, task, models
        self._config, self._seed = config, seed
        self._initial = np.array(initial, np.float64)
        size = len(initial) + task.action_size
        # Of the parameters, in `_scales`, then of the gains' logarithms, times 1 / `ACTUATORS`.
        self._change = tf.Variable(tf.zeros([size]))
        self._average = ppo.Average(size, AVERAGED)
        self._advantage_square = ppo.Average(1, REMEMBERED)
        self._scales: _Scales | None = None
        self._lessons: list[_Lesson] = []  # of the last generations

    @property
    def mean(self) -> np.ndarray:
        """Parameters [N] of the controller so far: an average of the last generations."""
        updates = self.generation - 1
        if self._scales is None or updates < 1:
            return self._initial
        change = self._average.mean(updates).astype(np.float32)
        return np.asarray(self._changed(change), np.float64)

    def advance(self) -> dict[str, float]:
        """Plays and learns for a generation.

        Returns:
          ``mean``: return per episode; ``critic_error``: root mean square of what the critic
          misjudged, as a share of what there is to judge; ``steps``: played.

        Raises:
          RunFailed: a parameter is not finite.
        """
        outcomes = self._play()
        steps = _steps(outcomes)
        if first := self._scales is None:
            self._begin(self._measured(steps))
        assert self._scales is not None
        return_spread = float(self._scales.return_spread)
        value = (
            np.zeros(len(steps.reward))
            if first
            else return_spread * _in_parts(self._value, steps.judged)
        )
        advantage = advantages(steps.reward, value, steps.lengths, 1.0 if first else TRACE)
        aim = ((value + advantage) / return_spread).astype(np.float32)
        error = np.mean(np.square(advantage / return_spread)) / (np.var(aim) + 1e-6)
        random = seeding.generator(self._seed, Purpose.EVOLUTION, self.generation)
        if not first:
            self._improve(steps, self._scaled(advantage), random)
        self._lessons = [*self._lessons, _Lesson(steps.judged, aim)][-REMEMBERED:]
        judged, aims = map(np.concatenate, zip(*self._lessons, strict=True))
        for chosen in _batches(len(aims), FIRST_EPOCHS if first else EPOCHS, CRITIC_BATCH, random):
            self._judge(judged[chosen], aims[chosen])
        self.generation += 1
        return {
            "mean": float(np.mean([outcome.total for outcome in outcomes])),
            "critic_error": float(error) ** 0.5,
            "steps": float(len(aim)),
        }

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """(arrays, JSON facts) from which `restore` goes on."""
        facts: dict[str, Any] = {"generation": self.generation}
        if self._scales is None:
            return {}, facts
        variables = self._actor_critic.variables
        arrays = {f"variable_{index}": part.numpy() for index, part in enumerate(variables)}
        arrays |= {f"scale_{name}": part for name, part in self._scales._asdict().items()}
        for name, parts in zip(_Lesson._fields, zip(*self._lessons, strict=True), strict=True):
            arrays[f"lesson_{name}"] = np.concatenate(parts)
        facts["lessons"] = [len(lesson.aim) for lesson in self._lessons]
        arrays["average"] = self._average.uncorrected
        arrays["advantage_square"] = self._advantage_square.uncorrected
        return arrays, facts

    def restore(self, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """At its beginning: goes on where `state` was taken."""
        self.generation = facts["generation"]
        if self.generation == 0:
            return
        self._begin(_Scales(*(arrays[f"scale_{name}"] for name in _Scales._fields)))
        self._average.uncorrected = arrays["average"]
        self._advantage_square.uncorrected = arrays["advantage_square"]
        ends = np.cumsum(facts["lessons"])[:-1]
        columns = (np.split(arrays[f"lesson_{name}"], ends) for name in _Lesson._fields)
        self._lessons = [_Lesson(*parts) for parts in zip(*columns, strict=True)]
        for index, variable in enumerate(self._actor_critic.variables):
            variable.assign(arrays[f"variable_{index}"])

    def _begin(self, scales: _Scales) -> None:
        """What learns, and its compiled functions."""
        self._scales = scales
        critic = ppo.make_critic(scales.mean, scales.variance, 2, self._seed)
        self._actor_critic = ppo.ActorCritic(
            self._change, self._log_density, critic, LEARNING_RATE, CLIP_NORM
        )
        self._value = tf.function(self._actor_critic.value, reduce_retracing=True, autograph=False)
        self._judge = tf.function(self._actor_critic.judge, reduce_retracing=True, autograph=False)
        self._learn = tf.function(
            self._actor_critic.improve, reduce_retracing=True, autograph=False
        )
        self._density = tf.function(self._log_density, reduce_retracing=True, autograph=False)

    def _scaled(self, advantage: np.ndarray) -> np.ndarray:
        """In units that last for some generations, and not its own.

        In its own units what a lost car teaches would count a fifth, and the rest learn to risk it.
        """
        centred = advantage - advantage.mean()
        self._advantage_square.add(np.mean(np.square(centred), keepdims=True))
        unit = np.sqrt(self._advantage_square.mean(self.generation)) + 1e-6
        return (centred / unit).astype(np.float32)

    def _parameters(self) -> tf.Tensor:
        if self._scales is None:
            return tf.constant(self._initial, tf.float32)
        return self._changed(self._change)

    def _changed(self, change: Any) -> tf.Tensor:
        """The parameters [N] that a change [N + A] makes of those at the beginning."""
        assert self._scales is not None
        size, actions = len(self._initial), self._task.action_size
        change_of_weights, change_of_gains = tf.split(change, [size, actions])
        weights = self._initial.astype(np.float32) + change_of_weights / self._scales.parameters
        gain = tf.exp(ACTUATORS * change_of_gains)
        gains = tf.repeat(gain, self._task.controller_inputs)
        if self._task.controller_has_bias:
            gains = tf.concat([gains, gain], 0)
        return weights * gains

    def _play(self) -> list[agent.Outcome]:
        config = self._config
        parameters = self._parameters().numpy()
        return play_all(
            self._executor,
            [
                agent.Rollout(
                    self._seed,
                    (int(Purpose.FITNESS), self.generation, index),
                    parameters,
                    exploration=config.sigma,
                )
                for index in range(config.population * config.rollouts)
            ],
            task=self._task.name,
            max_steps=min(config.horizon, self._task.max_steps),
            models=self._models,
            patience=config.patience,
            precision=compute_dtype(config.precision),
            watched=True,
            rows=ROWS,
        )

    def _measured(self, steps: _Steps) -> _Scales:
        variance = steps.features.var(0)
        variance[: self._task.latent_size] += steps.variance.mean(0)
        spread = np.tile(np.sqrt(variance) + 1e-3, self._task.action_size)
        biases = np.full(len(self._initial) - len(spread), 1.0 / ACTUATORS)
        to_come = advantages(steps.reward, np.zeros(len(steps.reward)), steps.lengths, 1.0)
        return _Scales(
            np.concatenate([spread, biases]).astype(np.float32),
            steps.judged.mean(0),
            steps.judged.var(0) + 1e-4,
            np.std(to_come) + 1e-6,
        )

    def _improve(self, steps: _Steps, advantage: np.ndarray, random: np.random.Generator) -> None:
        self._actor_critic.learn_at(LEARNING_RATE / (1.0 + self.generation / HALVED))
        density = _in_parts(self._density, *steps.density_inputs)
        for chosen in _batches(len(advantage), EPOCHS, BATCH, random):
            inputs = [part[chosen] for part in steps.density_inputs]
            self._learn(inputs, density[chosen], advantage[chosen])
        change = self._change.numpy()
        if not np.isfinite(change).all():
            raise RunFailed(
                f"generation {self.generation}: a parameter is not finite (seed {self._seed})"
            )
        self._average.add(change)

    def _log_density(self, features: Any, variance: Any, raw: Any) -> tf.Tensor:
        """Of actions before they are squashed, but for a constant, [B]."""
        ((kernel, bias),) = controller.split_parameters(self._task, self._parameters())
        middle = tf.matmul(features, kernel, transpose_b=True) + bias
        reads = kernel[:, : self._task.latent_size]
        noise = self._config.sigma**2 * tf.eye(self._task.action_size)
        covariance = tf.einsum("iz,bz,jz->bij", reads, variance, reads) + noise
        root = tf.linalg.cholesky(covariance)
        unit = tf.linalg.triangular_solve(root, (raw - middle)[..., tf.newaxis])[..., 0]
        logarithms = tf.math.log(tf.linalg.diag_part(root))
        return -0.5 * tf.reduce_sum(tf.square(unit), -1) - tf.reduce_sum(logarithms, -1)


def advantages(
    reward: np.ndarray, value: np.ndarray, lengths: Sequence[int], trace: float
) -> np.ndarray:
    """Generalised advantage estimates without a discount, float64 [N].

    Args:
      reward, value: of the steps of all episodes, one after the other, [N].
      lengths: of the episodes; they sum to N. What follows an episode's end is worth nothing.
      trace: lambda; at 1 they are the returns to come beyond the value.
    """
    result = np.zeros(len(reward))
    end = 0
    for length in lengths:
        start, end = end, end + length
        later, following = 0.0, 0.0
        for t in range(end - 1, start - 1, -1):
            later = reward[t] + following - value[t] + trace * later
            following = value[t]
            result[t] = later
    return result


def _steps(outcomes: Sequence[agent.Outcome]) -> _Steps:
    columns = zip(*map(_columns, outcomes), strict=True)
    features, variance, raw, judged, reward = map(np.concatenate, columns)
    lengths = tuple(outcome.steps for outcome in outcomes)
    return _Steps(features, variance, raw, judged, reward, lengths)


def _columns(outcome: agent.Outcome) -> tuple[np.ndarray, ...]:
    """An episode's `_Steps` but for the lengths."""
    assert outcome.sight is not None and outcome.rewards is not None  # it was watched
    sight, rewards = outcome.sight, outcome.rewards
    place = np.arange(outcome.steps)
    rewarded = np.maximum.accumulate(np.where(rewards > 0.0, place + 1, 0))
    unrewarded = place - np.append(0, rewarded[:-1])  # steps, before each
    standing = np.stack([np.cumsum(rewards) - rewards, place, unrewarded], 1)
    known = sight.outlook if sight.outlook.shape[1] else sight.features
    judged = np.concatenate([known, standing.astype(np.float32)], 1)
    beyond = rewards + np.diff(sight.ahead, append=0.0)
    return sight.features, sight.variance, sight.raw, judged, beyond


def _batches(
    count: int, epochs: int, size: int, random: np.random.Generator
) -> Iterator[np.ndarray]:
    for _ in range(epochs):
        yield from np.array_split(random.permutation(count), max(count // size, 1))


def _in_parts(function: Any, *columns: np.ndarray) -> np.ndarray:
    """A function of rows, in parts."""
    size = 8 * BATCH
    return np.concatenate(
        [
            function(*(column[at : at + size] for column in columns))
            for at in range(0, len(columns[0]), size)
        ]
    )
