"""V, M and C acting in a batch of real environments: the rollout loop that all real work shares.

Collection, fitness in the real environment, selection and evaluation are sequences of chunks, each
a few rollouts of one task that step together, with one network call per step (`play`). A chunk is
small data and what it gives depends on nothing but itself: a network's result depends slightly on
the size of its batch, so the batch of a chunk always has `ROLLOUTS` rows, and a rollout that has
ended stays in it.

At step t the agent sees frame_t, samples z_t from V's moments and acts on [z_t, h_t], where h_t was
returned by M's step on (z_{t-1}, a_{t-1}).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, SupportsFloat

import gymnasium
import numpy as np

from wm_tf import seeding
from wm_tf.config import FRAME_SIZE, Task, get_task
from wm_tf.data.episodes import Episode, write_episode
from wm_tf.envs import task_module
from wm_tf.errors import UserError
from wm_tf.runtime import import_tensorflow

if TYPE_CHECKING:
    from wm_tf.models import Memory, Vision

ROLLOUTS = 16
"""Rollouts in a chunk, and rows in a network's batch."""


@dataclass(frozen=True)
class ModelsAt:
    """Which models a worker shall use: a folder as `wm_tf.serving.load.load_keras` takes it, and
    the checksum of the manifest that was meant, so that a worker loads anew what has changed and
    finds what came to it another way (see `wm_tf.serving.parcel`)."""

    folder: Path
    checksum: str


@dataclass(frozen=True)
class Rollout:
    """One episode to be played."""

    seed: int
    key: tuple[int, ...]
    """Its place in the work, (purpose, ...): with `seed` it fixes every random number."""
    parameters: np.ndarray | None = field(default=None, repr=False)
    """C's flat parameters; None: the controller of the models."""
    noise: float = 0.0
    """Standard deviation of the smooth noise added to C's actions."""
    record: Path | None = None
    """Where to write the episode."""

    def streams(self) -> tuple[int, np.random.Generator]:
        """(the environment's seed, the generator of the agent's own random numbers)."""
        environment = np.random.SeedSequence(self.seed, spawn_key=self.key)
        agent = np.random.SeedSequence(self.seed, spawn_key=(*self.key, 1))
        return seeding.environment_seed(environment), np.random.default_rng(agent)


@dataclass(frozen=True)
class Chunk:
    """Rollouts that step together, at most `ROLLOUTS` of them."""

    task: str
    rollouts: tuple[Rollout, ...]
    max_steps: int
    models: ModelsAt | None = None
    """None: the task's random policy plays."""
    official_frames: bool = False
    patience: int = 0
    """A rollout is given up after so many steps without a positive reward (0: never)."""

    def __str__(self) -> str:
        keys = ", ".join(str(rollout.key) for rollout in self.rollouts)
        return f"{self.task}: seed {self.rollouts[0].seed}, rollouts {keys}"


@dataclass(frozen=True)
class Outcome:
    """What a rollout gave."""

    total: float  # the return
    steps: int
    terminated: bool
    truncated: bool


def chunk_size(rollouts: int, executor: Executor, most: int = ROLLOUTS) -> int:
    """Rollouts for each chunk: `most`, or fewer where the executor has workers for more chunks.

    What a rollout gives does not depend on it; a network's call for fewer costs as much.
    """
    return min(most, math.ceil(rollouts / getattr(executor, "workers", 1)) or 1)


def chunks(rollouts: Sequence[Rollout], size: int = ROLLOUTS, **common: Any) -> list[Chunk]:
    """Cuts rollouts into chunks; `common` are the chunks' other fields."""
    return [
        Chunk(rollouts=tuple(rollouts[start : start + size]), **common)
        for start in range(0, len(rollouts), size)
    ]


class Actor(Protocol):
    """Chooses actions for a batch of rollouts."""

    def act(self, frames: np.ndarray) -> np.ndarray:
        """Frames, uint8 [B, 64, 64, 3], to actions, float32 [B, A]; called once per step."""


class RandomActor:
    """The task's random policy; does not look, and does not need TensorFlow.

    Args:
      task: whose policy it is.
      generators: of its random numbers, one for each rollout.
      explores: which rollouts are data to learn from, and explore more.
    """

    def __init__(
        self, task: Task, generators: Sequence[np.random.Generator], explores: Sequence[bool]
    ) -> None:
        module = task_module(task.name)
        self._policies = [
            (module.exploring_policy if explore else module.random_policy)(generator)
            for generator, explore in zip(generators, explores, strict=True)
        ]

    def act(self, frames: np.ndarray) -> np.ndarray:
        return np.stack([next(policy) for policy in self._policies])


class WorldModelActor:
    """The paper's agent: one compiled call of V, C and M per step, for a batch of `ROLLOUTS`.

    Args:
      task: whose models they are.
      vision, memory: V and M.
      parameters: C's parameters, [B, N], one row for each rollout.
      noise: standard deviations of the noise on the actions, [B].
      generators: of each rollout's random numbers.
    """

    def __init__(
        self,
        task: Task,
        vision: Vision,
        memory: Memory,
        parameters: np.ndarray,
        noise: np.ndarray,
        generators: Sequence[np.random.Generator],
    ) -> None:
        rows = len(generators)
        padding = [(0, ROLLOUTS - rows), (0, 0)]
        self._task = task
        self._advance = _compiled_step(vision, memory, task)
        self._parameters = np.pad(parameters, padding).astype(np.float32)
        self._scale = noise.astype(np.float32)
        self._noises = [_smooth_noise(generator, task.action_size) for generator in generators]
        self._generators = generators
        self._frames = np.zeros((ROLLOUTS, FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
        self._normal = np.zeros((ROLLOUTS, task.latent_size), np.float32)
        self._disturbance = np.zeros((ROLLOUTS, task.action_size), np.float32)
        self._h, self._c = memory.initial_state(ROLLOUTS)

    def act(self, frames: np.ndarray) -> np.ndarray:
        rows = len(self._generators)
        self._frames[:rows] = frames
        for row, (generator, noise) in enumerate(zip(self._generators, self._noises, strict=True)):
            self._normal[row] = generator.standard_normal(self._task.latent_size, np.float32)
            self._disturbance[row] = self._scale[row] * next(noise)
        action, self._h, self._c = self._advance(
            self._frames, self._normal, self._disturbance, self._parameters, self._h, self._c
        )
        return action.numpy()[:rows]


def play(chunk: Chunk) -> list[Outcome]:
    """Plays a chunk's rollouts to their ends; an episode to be recorded is written as it ends."""
    task = get_task(chunk.task)
    seeds, generators = zip(*(rollout.streams() for rollout in chunk.rollouts), strict=True)
    environments = _environments(chunk.task, chunk.official_frames)[: len(seeds)]
    actor = _actor(chunk, task, generators)
    records = [
        _Record(environment.reset(seed=seed)[0], seed, rollout.record is not None)
        for environment, seed, rollout in zip(environments, seeds, chunk.rollouts, strict=True)
    ]
    for _ in range(chunk.max_steps):
        actions = actor.act(np.stack([record.frame for record in records]))
        for index, record in enumerate(records):
            if not record.ended:
                record.add(actions[index], environments[index].step(actions[index]), chunk)
                if record.ended:
                    record.write(chunk.rollouts[index], chunk, task)
        if all(record.ended for record in records):
            break
    return [record.outcome() for record in records]


class _Record:
    """A rollout while it is played."""

    def __init__(self, frame: np.ndarray, seed: int, keep: bool) -> None:
        self.frame = frame
        self.ended = False
        self._seed = seed
        self._keep = keep
        self._frames = [frame]
        self._actions: list[np.ndarray] = []
        self._rewards: list[float] = []
        self._terminated = self._truncated = self._last_frame_repeated = False
        self._last_reward_step = 0

    def add(
        self,
        action: np.ndarray,
        step: tuple[np.ndarray, SupportsFloat, bool, bool, dict[str, Any]],
        chunk: Chunk,
    ) -> None:
        self.frame, reward, self._terminated, self._truncated, info = step
        reward = float(reward)
        self._rewards.append(reward)
        self._actions.append(action)
        if self._keep:
            self._frames.append(self.frame)
        self._last_frame_repeated = bool(info.get("last_frame_repeated", False))
        steps = len(self._rewards)
        if reward > 0:
            self._last_reward_step = steps
        given_up = 0 < chunk.patience <= steps - self._last_reward_step
        if (given_up or steps == chunk.max_steps) and not self._terminated:
            self._truncated = True
        self.ended = self._terminated or self._truncated

    def outcome(self) -> Outcome:
        return Outcome(
            float(np.sum(self._rewards)), len(self._rewards), self._terminated, self._truncated
        )

    def write(self, rollout: Rollout, chunk: Chunk, task: Task) -> None:
        """Writes the episode if it is to be recorded, and forgets its frames."""
        if rollout.record is None:
            return
        episode = Episode(
            frames=np.stack(self._frames),
            actions=np.stack(self._actions).astype(np.float32),
            rewards=np.array(self._rewards, np.float32),
            terminated=self._terminated,
            truncated=self._truncated,
            last_frame_repeated=self._last_frame_repeated,
            seed=self._seed,
            policy="random" if chunk.models is None else f"controller, noise {rollout.noise}",
        )
        self._frames.clear()
        write_episode(rollout.record, episode, task)


def _actor(chunk: Chunk, task: Task, generators: Sequence[np.random.Generator]) -> Actor:
    if chunk.models is None:
        explores = [rollout.record is not None for rollout in chunk.rollouts]
        return RandomActor(task, generators, explores)
    vision, memory, controller = _models(chunk.models, chunk.task)
    if controller is None and any(rollout.parameters is None for rollout in chunk.rollouts):
        raise UserError(f"{chunk.models.folder}: there is no controller of {chunk.task} in it")
    parameters = np.stack(
        [
            controller.parameters.numpy() if rollout.parameters is None else rollout.parameters
            for rollout in chunk.rollouts
        ]
    )
    noise = np.array([rollout.noise for rollout in chunk.rollouts])
    return WorldModelActor(task, vision, memory, parameters, noise, generators)


@lru_cache(maxsize=2)
def _environments(task: str, official_frames: bool) -> list[gymnasium.Env]:
    """This process's environments: made once, because making one takes longer than a reset."""
    return [task_module(task).make(official_frames=official_frames) for _ in range(ROLLOUTS)]


@lru_cache(maxsize=1)
def _models(models: ModelsAt, task: str) -> Any:
    """This process's models, loaded anew only when their checksum changes."""
    import_tensorflow()
    from wm_tf.serving import parcel
    from wm_tf.serving.load import load_keras

    return load_keras(parcel.find(models.folder, task, models.checksum), task)


@lru_cache(maxsize=1)
def _compiled_step(vision: Vision, memory: Memory, task: Task) -> Any:
    """One call for everything between a batch of frames and the next one.

    (frames uint8 [B, 64, 64, 3], normal [B, Z], disturbance [B, A], parameters [B, N], h, c [B, H])
    to (actions [B, A], h, c).
    """
    import tensorflow as tf

    from wm_tf.models import controller

    low, high = action_range(task)

    @tf.function(reduce_retracing=True)
    def advance(frames, normal, disturbance, parameters, h, c):  # type: ignore[no-untyped-def]
        mean, log_variance = vision.encode(frames)
        latent = mean + tf.exp(0.5 * log_variance) * normal
        wanted = controller.act(task, parameters, controller.features(task, latent, h, c))
        action = tf.clip_by_value(wanted + disturbance, low, high)
        step = memory.step(latent, action, h, c)
        return action, step.h, step.c

    return advance


def action_range(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest action, each float32 [A]."""
    low = np.array([-1.0 if kind == "tanh" else 0.0 for kind in task.squash], np.float32)
    return low, np.ones_like(low)


def _smooth_noise(generator: np.random.Generator, size: int) -> Iterator[np.ndarray]:
    """Correlated noise of unit variance (an Ornstein-Uhlenbeck process of about ten steps)."""
    keep = 0.9
    value = generator.standard_normal(size)
    while True:
        yield value
        value = keep * value + np.sqrt(1.0 - keep * keep) * generator.standard_normal(size)
