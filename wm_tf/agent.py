"""V, M and C acting in a batch of real environments: the rollout loop that all real work shares.

Collection, fitness in the real environment, selection and evaluation are sequences of chunks, each
some rollouts of one task that are played `ROWS` at a time, with one network call per step (`play`);
where one ends, the chunk's next one begins. A chunk is small data and what it gives depends on
nothing but itself: a network's result depends slightly on the size of its batch, so the batch
always has as many rows, empty ones among them.

At step t the agent sees frame_t, samples z_t from V's moments and acts on [z_t, h_t], where h_t was
returned by M's step on (z_{t-1}, a_{t-1}).
"""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, SupportsFloat

import numpy as np

from wm_tf import seeding
from wm_tf.config import FRAME_SIZE, Task, get_task
from wm_tf.data.episodes import Episode, known, write_episode
from wm_tf.envs import task_module
from wm_tf.errors import UserError
from wm_tf.precision import Arithmetic, computing_in
from wm_tf.runtime import import_tensorflow
from wm_tf.serving import manifest

if TYPE_CHECKING:
    from wm_tf.models import Controller, Memory, Vision

ROWS = 16
"""Rows in a network's batch: rollouts that are played at the same time."""
ROLLOUTS = 48
"""Rollouts in a chunk, at most: what a worker that dies has to play again, and what progress is
counted in. With fewer the rows at the end of a chunk are empty for longer."""


@dataclass(frozen=True)
class ModelsAt:
    """Which models a worker shall use: a folder as `wm_tf.serving.load.load_keras` takes it, and
    the checksum of the manifest that was meant, so that a worker loads anew what has changed and
    finds what came to it another way (see `wm_tf.serving.parcel`)."""

    folder: Path
    checksum: str

    @classmethod
    def now(cls, folder: Path) -> ModelsAt:
        """The models of a task's folder as they are now; raises DamagedFile without a manifest."""
        return cls(folder.parent, manifest.checksum(folder))


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
    exploration: float = 0.0
    """Standard deviation of the white noise added to what is squashed to C's actions."""
    record: Path | None = None
    """Where to write the episode."""

    @property
    def policy(self) -> str:
        """How C acts, in words."""
        explores = f", exploration {self.exploration}" if self.exploration else ""
        return f"controller, noise {self.noise}{explores}"

    def streams(self) -> tuple[int, np.random.Generator]:
        """(the environment's seed, the generator of the agent's own random numbers)."""
        environment = np.random.SeedSequence(self.seed, spawn_key=self.key)
        agent = np.random.SeedSequence(self.seed, spawn_key=(*self.key, 1))
        return seeding.environment_seed(environment), np.random.default_rng(agent)


@dataclass(frozen=True)
class Chunk:
    """Rollouts that one worker plays, some at a time."""

    task: str
    rollouts: tuple[Rollout, ...]
    max_steps: int
    models: ModelsAt | None = None
    """None: the task's random policy plays."""
    official_frames: bool = False
    patience: int = 0
    """A rollout is given up after so many steps without a positive reward (0: never)."""
    immortal: bool = False
    """The player goes on after a death."""
    precision: Arithmetic = "float32"
    """Of V's convolutions."""
    watched: bool = False
    """Outcomes tell what C saw and did."""
    rows: int = ROWS
    """Rollouts that are played at the same time: in a network's batch."""

    @property
    def records(self) -> list[Path]:
        """Files that it writes."""
        return [rollout.record for rollout in self.rollouts if rollout.record is not None]

    def recording_at(self, paths: Sequence[Path]) -> Chunk:
        """The same, with other places for its `records`."""
        places = iter(paths)
        rollouts = [
            rollout if rollout.record is None else dataclasses.replace(rollout, record=next(places))
            for rollout in self.rollouts
        ]
        return dataclasses.replace(self, rollouts=tuple(rollouts))

    def __str__(self) -> str:
        keys = ", ".join(str(rollout.key) for rollout in self.rollouts)
        return f"{self.task}: seed {self.rollouts[0].seed}, rollouts {keys}"


class Sight(NamedTuple):
    """What C saw and did in T steps; float32."""

    features: np.ndarray  # with V's mean in place of the latent that was drawn, [T, F]
    variance: np.ndarray  # of that latent, [T, Z]
    raw: np.ndarray  # what was squashed to actions, [T, A]
    outlook: np.ndarray  # what the environment knows, [T, K]
    ahead: np.ndarray  # rewards that the environment has in store, [T]


@dataclass(frozen=True)
class Outcome:
    """What a rollout gave."""

    total: float  # the return
    steps: int
    terminated: bool
    truncated: bool
    sight: Sight | None = field(default=None, repr=False, compare=False)
    """Where the chunk is watched and C plays."""
    rewards: np.ndarray | None = field(default=None, repr=False, compare=False)
    """Where there is a sight, float64 [T]."""


def chunk_size(rollouts: int, executor: Executor, slow: bool = False) -> int:
    """Rollouts for each chunk: at most `ROLLOUTS`, and as many chunks for each of the workers.

    Slow ones, which take a quarter of a minute each, are at most `ROWS`: a chunk has its time.

    What a rollout gives does not depend on it.
    """
    workers = max(getattr(executor, "workers", 1), 1)  # a cluster may have none for a moment
    rounds = math.ceil(rollouts / ((ROWS if slow else ROLLOUTS) * workers))
    return math.ceil(rollouts / (max(rounds, 1) * workers)) or 1


def chunks(rollouts: Sequence[Rollout], size: int, **common: Any) -> list[Chunk]:
    """Cuts rollouts into chunks; `common` are the chunks' other fields."""
    return [
        Chunk(rollouts=tuple(rollouts[start : start + size]), **common)
        for start in range(0, len(rollouts), size)
    ]


class Actor(Protocol):
    """Chooses actions for rows of rollouts, at most so many as its chunk says."""

    def begin(self, row: int, rollout: Rollout, generator: np.random.Generator) -> None:
        """A rollout begins in a row, with the generator of its own random numbers."""

    def act(self, frames: np.ndarray) -> np.ndarray:
        """Frames, uint8 [B, 64, 64, 3], to actions, float32 [B, A]; called once per step."""

    def sight(self) -> tuple[np.ndarray, ...] | None:
        """Of each row in the last step, the first fields of a `Sight`, up to `raw`; None: no C."""


class RandomActor:
    """The task's random policy; does not look, and does not need TensorFlow.

    Rollouts that are recorded are data to learn from, and explore more.

    Args:
      task: whose policy it is.
    """

    def __init__(self, task: Task) -> None:
        self._module = task_module(task.name)
        self._policies: dict[int, Iterator[np.ndarray]] = {}

    def begin(self, row: int, rollout: Rollout, generator: np.random.Generator) -> None:
        module = self._module
        policy = module.random_policy if rollout.record is None else module.exploring_policy
        self._policies[row] = policy(generator)

    def act(self, frames: np.ndarray) -> np.ndarray:
        return np.stack([next(self._policies[row]) for row in range(len(frames))])

    def sight(self) -> None:
        return None


class WorldModelActor:
    """The paper's agent: one compiled call of V, C and M per step, for a batch of `rows`.

    Args:
      task: whose models they are.
      vision, memory, controller: V, M and, for rollouts without parameters of their own, C.
      precision: of V's convolutions.
      rows: of a batch.
    """

    def __init__(
        self,
        task: Task,
        vision: Vision,
        memory: Memory,
        controller: Controller | None,
        precision: Arithmetic = "float32",
        rows: int = ROWS,
    ) -> None:
        self._task = task
        self._controller = controller
        self._advance = _compiled_step(vision, memory, task, precision)
        self._draws: dict[int, tuple[np.random.Generator, Iterator[np.ndarray]]] = {}
        self._parameters: np.ndarray | None = None  # [rows, N], of controllers of one size
        self._scale = np.zeros(rows, np.float32)
        self._frames = np.zeros((rows, FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
        self._normal = np.zeros((rows, task.latent_size), np.float32)
        self._disturbance = np.zeros((rows, task.action_size), np.float32)
        self._exploring = np.zeros((rows, task.action_size), np.float32)
        self._exploration = np.zeros(rows, np.float32)
        self._sight: Any = None
        self._h, self._c = (part.numpy() for part in memory.initial_state(rows))

    def begin(self, row: int, rollout: Rollout, generator: np.random.Generator) -> None:
        parameters = rollout.parameters
        if parameters is None:
            assert self._controller is not None  # `_actor` has seen to it
            parameters = self._controller.parameters.numpy()
        if self._parameters is None:
            self._parameters = np.zeros((len(self._scale), len(parameters)), np.float32)
        self._parameters[row] = parameters
        self._scale[row] = rollout.noise
        self._exploration[row] = rollout.exploration
        self._draws[row] = generator, _smooth_noise(generator, self._task.action_size)
        self._h[row] = self._c[row] = 0.0

    def act(self, frames: np.ndarray) -> np.ndarray:
        rows = len(frames)
        self._frames[:rows] = frames
        for row in range(rows):
            generator, noise = self._draws[row]
            self._normal[row] = generator.standard_normal(self._task.latent_size, np.float32)
            self._disturbance[row] = self._scale[row] * next(noise)
            if self._exploration[row]:
                white = generator.standard_normal(self._task.action_size, np.float32)
                self._exploring[row] = self._exploration[row] * white
            else:
                self._exploring[row] = 0.0
        action, h, c, self._sight = self._advance(
            self._frames,
            self._normal,
            self._disturbance,
            self._exploring,
            self._parameters,
            self._h,
            self._c,
        )
        np.copyto(self._h, h.numpy())
        np.copyto(self._c, c.numpy())
        return action.numpy()[:rows]

    def sight(self) -> tuple[np.ndarray, ...]:
        return tuple(part.numpy() for part in self._sight)


def play(chunk: Chunk) -> list[Outcome]:
    """Plays a chunk's rollouts to their ends; an episode to be recorded is written as it ends."""
    task = get_task(chunk.task)
    actor = _actor(chunk, task)
    rows = range(min(chunk.rows, len(chunk.rollouts)))
    environments = _environments.of(chunk.task, chunk.official_frames, chunk.immortal, chunk.rows)
    outcomes: dict[int, Outcome] = {}  # by the place in the chunk
    waiting = iter(enumerate(chunk.rollouts))
    records: dict[int, _Record] = {}  # of the rows, the ended ones too: batches keep their frames
    playing: dict[int, int] = {}  # the place in the chunk of each row's rollout

    def begin(row: int) -> None:
        playing.pop(row, None)
        place, rollout = next(waiting, (0, None))
        if rollout is not None:
            seed, generator = rollout.streams()
            actor.begin(row, rollout, generator)
            first, _ = environments[row].reset(seed=seed)
            records[row] = _Record(first, seed, rollout.record is not None)
            playing[row] = place

    for row in rows:
        begin(row)
    while playing:
        actions = actor.act(np.stack([records[row].frame for row in rows]))
        sight = actor.sight() if chunk.watched else None
        for row, place in list(playing.items()):
            record = records[row]
            if sight:
                environment = environments[row]
                known = environment.outlook(), np.asarray(environment.reward_ahead(), np.float32)
                record.see(*(part[row] for part in sight), *known)
            record.add(actions[row], environments[row].step(actions[row]), chunk)
            if record.ended:
                record.write(chunk.rollouts[place], chunk, task)
                outcomes[place] = record.outcome()
                begin(row)
    return [outcomes[place] for place in range(len(chunk.rollouts))]


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
        self._end_probability: list[float | None] = []
        self._terminated = self._truncated = self._last_frame_repeated = False
        self._last_reward_step = 0
        self._sights: list[tuple[np.ndarray, ...]] = []

    def see(self, *sight: np.ndarray) -> None:
        """The fields of a `Sight` in the step that is added next."""
        self._sights.append(sight)

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
        self._end_probability.append(info.get("end_probability"))
        steps = len(self._rewards)
        if reward > 0:
            self._last_reward_step = steps
        given_up = 0 < chunk.patience <= steps - self._last_reward_step
        if (given_up or steps == chunk.max_steps) and not self._terminated:
            self._truncated = True
        self.ended = self._terminated or self._truncated

    def outcome(self) -> Outcome:
        outcome = Outcome(
            float(np.sum(self._rewards)), len(self._rewards), self._terminated, self._truncated
        )
        if not self._sights:
            return outcome
        sight = Sight(*(np.stack(part) for part in zip(*self._sights, strict=True)))
        return dataclasses.replace(outcome, sight=sight, rewards=np.array(self._rewards))

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
            policy="random" if chunk.models is None else rollout.policy,
            end_probability=known(self._end_probability),
        )
        self._frames.clear()
        write_episode(rollout.record, episode, task)


def _actor(chunk: Chunk, task: Task) -> Actor:
    if chunk.models is None:
        return RandomActor(task)
    vision, memory, controller = load_models(chunk.models, chunk.task)
    if controller is None and any(rollout.parameters is None for rollout in chunk.rollouts):
        raise UserError(f"{chunk.models.folder}: there is no controller of {chunk.task} in it")
    return WorldModelActor(task, vision, memory, controller, chunk.precision, chunk.rows)


class _Environments(threading.local):
    """This thread's environments: made once, because making one takes longer than a reset."""

    def __init__(self) -> None:
        self.of = lru_cache(maxsize=2)(self._make)

    @staticmethod
    def _make(task: str, official_frames: bool, immortal: bool, count: int) -> list[Any]:
        make = task_module(task).make
        return [make(official_frames=official_frames, immortal=immortal) for _ in range(count)]


_environments = _Environments()


@lru_cache(maxsize=1)
def load_models(models: ModelsAt, task: str) -> Any:
    """This process's models, loaded anew only when their checksum changes."""
    import_tensorflow()
    from wm_tf.serving import parcel
    from wm_tf.serving.load import load_keras

    return load_keras(parcel.find(models.folder, task, models.checksum), task)


@lru_cache(maxsize=1)
def _compiled_step(vision: Vision, memory: Memory, task: Task, precision: Arithmetic) -> Any:
    """One call for everything between a batch of frames and the next one.

    (frames uint8 [B, 64, 64, 3], normal [B, Z], disturbance and exploring noise [B, A], parameters
    [B, N], h, c [B, H]) to (actions [B, A], h, c, what makes a `Sight`).
    """
    import tensorflow as tf

    from wm_tf.models import controller

    low, high = action_range(task)
    encode = computing_in(vision, precision).encode

    # Traced for each size of controllers, which their layers follow from.
    @tf.function(autograph=False)
    def advance(frames, normal, disturbance, exploring, parameters, h, c):  # type: ignore[no-untyped-def]
        mean, log_variance = encode(frames)
        latent = mean + tf.exp(0.5 * log_variance) * normal
        layers = controller.split_parameters(task, parameters)
        seen = controller.features(task, latent, h, c)
        raw = controller.raw_by_layers(layers, seen) + exploring
        action = tf.clip_by_value(controller.squash(task, raw) + disturbance, low, high)
        step = memory.step(latent, action, h, c)
        sight = (controller.features(task, mean, h, c), tf.exp(log_variance), raw)
        return action, step.h, step.c, sight

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
