"""Every hyper-parameter of the project, declared once.

A `Task` holds what cannot be chosen (the sizes of the paper's models for it); a `Config` holds what
can, as one frozen dataclass per stage. `preset(task, name)` builds the three presets:

* ``paper``: the paper's own numbers.
* ``desktop``: what reaches good scores on two cores in an afternoon (see RESULTS.md).
* ``smoke``: the same models on a few minutes' worth of data and steps, to try the pipeline.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from wm_tf.errors import UserError
from wm_tf.precision import Precision

FRAME_SIZE = 64
"""Height and width of the frames that V sees."""
MAX_SEED = 2**63 - 1
"""What TensorFlow takes."""
SMALLEST, LARGEST = 2.0**-126, 2**31 - 1
"""Hyper-parameters above 0: what float32 and int32 hold."""

Squash = Literal["tanh", "unit", "brake"]
"""From an unbounded value x to an action: tanh(x), (tanh(x) + 1) / 2 or clip(tanh(x), 0, 1)."""


@dataclass(frozen=True)
class Task:
    """What is fixed about a task: its environment and the sizes of the paper's models for it."""

    name: str
    environment: str  # gymnasium id of the real environment
    dream: str  # gymnasium id of the dream
    latent_size: int  # Z
    hidden_size: int  # H
    squash: tuple[Squash, ...]  # one per action component, in the controller
    controller_reads_cell: bool  # C reads [z, h, c] instead of [z, h]
    controller_has_bias: bool
    max_steps: int  # time limit of the real environment
    steps_per_second: int
    mortal: bool  # dreams end by M's end head (else only by their horizon)
    mixtures: int = 5  # K, Gaussians per latent dimension

    @property
    def action_size(self) -> int:
        return len(self.squash)

    @property
    def controller_inputs(self) -> int:
        return self.latent_size + self.hidden_size * (2 if self.controller_reads_cell else 1)

    @property
    def controller_parameters(self) -> int:
        """Of the paper's linear controller."""
        return self.controller_size(0)

    def controller_size(self, hidden: int) -> int:
        """Parameters of a controller with so many hidden units (0: the paper's, linear)."""
        outputs = (hidden or self.controller_inputs) + int(self.controller_has_bias)
        return hidden * (self.controller_inputs + 1) + self.action_size * outputs

    def hidden_units(self, parameters: int) -> int:
        """The hidden units of a controller with so many parameters.

        Raises:
          ValueError: no controller of the task has so many.
        """
        units = 0
        if parameters != self.controller_parameters:
            each = self.controller_size(2) - self.controller_size(1)
            units = max(0, (parameters - self.controller_size(1)) // each + 1)
        if self.controller_size(units) != parameters:
            expected = self.controller_parameters
            raise ValueError(f"parameters: expected [{expected}], got [{parameters}]")
        return units


TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="car_racing",
            environment="wm_tf/CarRacing-v0",
            dream="wm_tf/CarRacingDream-v0",
            latent_size=32,
            hidden_size=256,
            squash=("tanh", "unit", "brake"),
            controller_reads_cell=False,
            controller_has_bias=True,
            max_steps=1000,
            steps_per_second=50,
            mortal=False,
        ),
        Task(
            name="take_cover",
            environment="wm_tf/TakeCover-v0",
            dream="wm_tf/TakeCoverDream-v0",
            latent_size=64,
            hidden_size=512,
            squash=("tanh",),
            controller_reads_cell=True,
            controller_has_bias=False,
            max_steps=2100,
            steps_per_second=35,
            mortal=True,
        ),
    )
}


def get_task(name: str) -> Task:
    """The task of that name; raises UserError for an unknown one."""
    if name not in TASKS:
        raise UserError(f"unknown task {name!r}: expected one of {', '.join(TASKS)}")
    return TASKS[name]


def _check(config: Any, *, positive: Sequence[str] = (), below_one: Sequence[str] = ()) -> None:
    """Raises UserError for a hyper-parameter that cannot be used.

    Args:
      positive: names of numbers above 0; all other numbers are at least 0.
      below_one: names of numbers below 1.
    """
    for name, value in dataclasses.asdict(config).items():
        if not isinstance(value, int | float):
            continue
        low = value < SMALLEST if name in positive else value < 0
        high = name in below_one and value >= 1
        if not math.isfinite(value) or low or high or value > LARGEST:
            least = "above 0" if name in positive else "of at least 0"
            most = " and below 1" if name in below_one else ""
            most = f" and at most {LARGEST}" if value > LARGEST else most
            flag = name.replace("_", "-")
            raise UserError(f"--{flag}: expected a number {least}{most}, got {value}")


@dataclass(frozen=True)
class CollectConfig:
    """How episodes are gathered in the real environment."""

    episodes: int = 160
    """Episodes of the round, with those that are there."""
    policy: Literal["random", "controller"] = "random"
    """Who acts: the task's random policy, or the last controller of the rounds before, its best
    mean and its last one in turn."""
    noise: float = 0.3
    """Standard deviation of the smooth noise added to a controller's actions."""
    quiet_fraction: float = 0.5
    """Share of a controller's episodes that are driven without noise."""
    patience: int = 0
    """An episode is cut after so many steps without a positive reward (0: never)."""
    immortal: bool = False
    """The player goes on after a death, up to the time limit: M learns what could have killed, and
    sees more of it. For tasks whose episodes end by death."""

    def __post_init__(self) -> None:
        _check(self, positive=("episodes",))
        if self.quiet_fraction > 1:
            raise UserError(
                f"--quiet-fraction: expected a number of at most 1, got {self.quiet_fraction}"
            )


@dataclass(frozen=True)
class VisionConfig:
    """Training of V, the variational autoencoder."""

    epochs: int = 1
    """Passes over the training episodes."""
    frame_stride: int = 1
    """Train on every n-th frame (neighbours hardly differ); the offset changes by episode."""
    batch_size: int = 100
    learning_rate: float = 1e-4
    decay: float = 1.0
    """The learning rate falls to this share of it from a training's first epoch to its last. A
    training that is asked for more epochs when it is done goes on at the rates of so many."""
    kl_tolerance: float = 0.5
    """A frame's KL divergence is not pushed below this value times the latent size."""
    emphasis: float = 0.0
    """How much more the error of what stands out from the mean frame counts (0: as in the paper;
    see `wm_tf.models.Vision`)."""
    precision: Precision = "auto"
    """Arithmetic of the convolutions in training; auto: bfloat16 where the processor gains."""

    def __post_init__(self) -> None:
        _check(self, positive=("frame_stride", "batch_size", "learning_rate", "decay"))
        if self.decay > 1:
            raise UserError(f"--decay: expected a number of at most 1, got {self.decay}")


@dataclass(frozen=True)
class MemoryConfig:
    """Training of M, the mixture-density LSTM."""

    epochs: int = 20
    """Passes over the training episodes."""
    random_share: float = 1.0
    """Share of the random policy's episodes in each pass of a later round, drawn anew for each."""
    sequence_length: int = 100
    """Steps of back-propagation through time."""
    batch_size: int = 64
    learning_rate: float = 1e-3
    decay: float = 1.0
    """The learning rate falls to this share of it from a training's first epoch to its last. A
    training that is asked for more epochs when it is done goes on at the rates of so many."""
    gradient_clip: float = 1.0
    """Gradients are clipped to this norm."""
    dropout: float = 0.05
    """Share of the LSTM's outputs hidden from the heads, one mask per sequence."""
    reward_weight: float = 1.0
    done_weight: float = 1.0
    done_positive_weight: float = 10.0
    """Weight of the steps that end an episode, by their probabilities, in the end head's loss."""
    precision: Precision = "auto"
    """Arithmetic of the matrix products in training, of small LSTMs' steps excepted; auto: bfloat16
    where the processor gains."""

    def __post_init__(self) -> None:
        if self.decay > 1:
            raise UserError(f"--decay: expected a number of at most 1, got {self.decay}")
        names = ("sequence_length", "batch_size", "learning_rate", "decay", "gradient_clip")
        _check(self, positive=(*names, "done_positive_weight"), below_one=("dropout",))
        if self.random_share > 1:
            raise UserError(
                f"--random-share: expected a number of at most 1, got {self.random_share}"
            )


_ADDED: Mapping[str, Any] = {
    "immortal": False,
    "decay": 1.0,
    "emphasis": 0.0,
    "method": "evolution",
    "search": "weights",
    "components": 0,
    "ends": "drawn",
    "sees": "state",
    "hidden": 0,
    "fresh": False,
    "goal": 0.0,
    "goal_rise": 0.0,
    "members": 1,
}
"""What the records of older runs do not name, and what these runs had."""


def completed(held: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """Recorded values, with what older records do not name of the hyper-parameters in `like`."""
    return {**{name: value for name, value in _ADDED.items() if name in like}, **held}


Method = Literal["evolution", "gradients"]
"""See `wm_tf.evolution`."""
GRADIENTS_SIGMA = 0.5
"""Of the noise on actions in the dream."""
Search = Literal["weights", "scaled", "actuators"]
"""See `wm_tf.evolution.space`."""
OF_DREAMS = ("temperature", "dropout", "members", "goal", "goal_rise")
"""Hyper-parameters of C's training that mean nothing in the real environment."""


@dataclass(frozen=True)
class ControllerConfig:
    """Training of C: its evolution by CMA-ES, or policy gradients."""

    method: Method = "evolution"
    """How C improves: by CMA-ES, or by policy gradients, which learn from each step of an episode
    and not from its return alone."""
    generations: int = 30
    fresh: bool = False
    """Begin with zeros instead of the run's last controller."""
    search: Search = "weights"
    """What evolves: all weights; the same, scaled by the spread of what each reads; or a gain and
    an offset of each action of the controller it begins with, for which few real rollouts
    suffice."""
    components: int = 0
    """Principal components of what C sees along which actuators change its actions too."""
    sees: Literal["state", "latent"] = "state"
    """Whether C sees z and M's state, as in the paper, or z alone."""
    hidden: int = 0
    """Hidden units (tanh) between what C sees and its actions; the paper's C has none."""
    population: int = 64
    rollouts: int = 8
    """Rollouts per candidate; its fitness is their mean return. With gradients a generation is
    population x rollouts episodes of one controller."""
    sigma: float = 0.1
    """Initial standard deviation of what evolves; with gradients that of the noise on actions,
    before they are squashed (where none is given, 0.5 in the dream and 0.05 in the real
    environment)."""
    horizon: int = 1000
    """Steps of a rollout at most."""
    temperature: float = 1.0
    """Temperature of the dream."""
    dropout: float = 0.05
    """M's dropout in the dream: one mask per rollout."""
    members: int = 1
    """Ms that dream in equal shares, against what only one of them believes: the round's, and those
    of the rounds before that have the same V."""
    precision: Precision = "auto"
    """Arithmetic of the dream's matrix products, and of V's convolutions where real episodes are
    played; auto: bfloat16 where the processor gains."""
    patience: int = 0
    """Rollouts end after so many steps without a positive reward, in the dream without one that M
    expects (0: never)."""
    goal: float = 0.0
    """A dream ends at such a return, as a real lap does at 1,000 points (0: never); with gradients
    as much counts in `horizon` steps, in equal shares, beside what each dream begins with."""
    goal_rise: float = 0.0
    """By so much the goal of each generation is above that of the one before."""
    selection_interval: int = 5
    """The distribution's mean is scored in the real environment every so many generations."""
    selection_episodes: int = 16

    def __post_init__(self) -> None:
        names = ("generations", "population", "rollouts", "members", "sigma", "horizon")
        positive = (*names, "temperature", "selection_interval", "selection_episodes")
        _check(self, positive=positive, below_one=("dropout",))
        if self.population < 4:
            raise UserError(f"--population: expected at least 4, got {self.population}")
        plain = self.search == "weights" and not self.hidden and self.sees == "state"
        if self.method == "gradients" and not plain:
            raise UserError(
                "--method gradients: goes with --search weights alone, and with neither --hidden "
                "nor --sees latent; --method evolution goes with each"
            )
        if self.search == "actuators" and (self.hidden or self.sees != "state"):
            raise UserError("--search actuators: goes with neither --hidden nor --sees latent")
        if self.components and self.search != "actuators":
            raise UserError(
                f"--components: expected 0 without --search actuators, got {self.components}"
            )
        if self.rollouts % self.members:
            raise UserError(
                f"--members: expected a divisor of the {self.rollouts} rollouts, got {self.members}"
            )
        if self.goal_rise and not self.goal:
            raise UserError(f"--goal-rise: expected 0 without --goal, got {self.goal_rise:g}")

    def by(self, method: Method) -> ControllerConfig:
        """The same by another method, with its own sigma, which is of something else."""
        if method == self.method:
            return self
        sigma = GRADIENTS_SIGMA if method == "gradients" else ControllerConfig.sigma
        return dataclasses.replace(self, method=method, sigma=sigma)


REAL_GRADIENTS = ControllerConfig(
    method="gradients",
    generations=160,
    population=4,
    rollouts=4,
    sigma=0.05,
    horizon=2100,  # the longest task's
    selection_interval=20,
    selection_episodes=96,
)
"""Of policy gradients in the real environment: 16 whole episodes a generation."""


@dataclass(frozen=True)
class Stages:
    """The hyper-parameters of one round: collect, V, M, C, and C in the real environment."""

    collect: CollectConfig = field(default_factory=CollectConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    controller: ControllerConfig = field(default_factory=ControllerConfig)
    tuning: ControllerConfig | None = None
    """Of the fine-tuning in the real environment, for a round that has one."""

    def real(self, method: Method | None = None) -> ControllerConfig:
        """Of C in the real environment, which goes on from the dream's controller.

        Args:
          method: None: that of the fine-tuning, or evolution where there is none.
        """
        if self.tuning and method in (None, self.tuning.method):
            return self.tuning
        if method == "gradients":
            return REAL_GRADIENTS
        return dataclasses.replace(self.controller.by("evolution"), fresh=False, members=1)


@dataclass(frozen=True)
class Config:
    """A whole run: a first round from nothing, then rounds that collect with the controller."""

    task: Task
    preset: str
    seed: int
    iterations: int
    rounds: tuple[Stages, ...]
    """The hyper-parameters of the first rounds; further ones are like the last of these."""

    def round(self, index: int) -> Stages:
        """The hyper-parameters of round `index`, counted from 0; raises UserError below 0."""
        if index < 0:
            raise UserError(f"--round: expected a number of at least 0, got {index}")
        return self.rounds[min(index, len(self.rounds) - 1)]


PresetName = Literal["paper", "desktop", "smoke"]


def preset(task: str, name: str, seed: int = 1) -> Config:
    """The preset of that name for a task.

    Raises:
      UserError: unknown task or preset, or a negative seed.
    """
    if name not in get_args(PresetName):
        accepted = ", ".join(get_args(PresetName))
        raise UserError(f"unknown preset {name!r}: expected one of {accepted}")
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"--seed: expected a number from 0 to {MAX_SEED}, got {seed}")
    iterations, rounds = _ROUNDS[get_task(task).name, name]
    if len(rounds) == 1:  # the same once more, but driven by the controller
        collect = dataclasses.replace(rounds[0].collect, policy="controller")
        rounds = (*rounds, dataclasses.replace(rounds[0], collect=collect))
    return Config(get_task(task), name, seed, iterations, rounds)


def _round(
    collect: CollectConfig, vision: VisionConfig, memory: MemoryConfig, controller: ControllerConfig
) -> Stages:
    return Stages(collect, vision, memory, controller)


_SMOKE = _round(
    CollectConfig(episodes=6, patience=100),
    VisionConfig(epochs=1, frame_stride=2),
    MemoryConfig(epochs=2),
    ControllerConfig(generations=3, population=16, rollouts=4, horizon=100, selection_episodes=2),
)
_CAR_RACING_SMOKE = dataclasses.replace(
    _SMOKE,
    collect=dataclasses.replace(_SMOKE.collect, policy="controller"),
    tuning=dataclasses.replace(
        REAL_GRADIENTS, generations=2, rollouts=1, horizon=100, selection_episodes=2
    ),
)

# The first controllers leave the road, and what that looks like cures the next dream: short rounds.
_CAR_RACING_EARLY = _round(
    CollectConfig(episodes=32, policy="controller", noise=0.1, patience=200),
    VisionConfig(epochs=0),
    MemoryConfig(epochs=6, batch_size=32),
    ControllerConfig(generations=15, sigma=0.12, horizon=500, selection_interval=8),
)
# V has seen random drives alone, slow ones that soon leave the road. Now it sees the others, too.
_CAR_RACING_SEE = dataclasses.replace(
    _CAR_RACING_EARLY,
    vision=VisionConfig(epochs=1, learning_rate=5e-4),
    memory=dataclasses.replace(_CAR_RACING_EARLY.memory, epochs=10),
)
# From here on the dream is close to the real task: what counts is M's precision, and small steps.
_CAR_RACING_LATE = dataclasses.replace(
    _CAR_RACING_EARLY,
    memory=MemoryConfig(epochs=10, random_share=0.2, batch_size=32),
    controller=ControllerConfig(
        generations=20,
        sigma=0.08,
        horizon=500,
        temperature=1.15,
        selection_interval=5,
        selection_episodes=32,
    ),
)
# A dream brings the car back that left the road, and pays for speed without end, as reality does
# not: the last ones give the car up, and end at a goal, a modest one at first. C begins anew there.
_CAR_RACING_ANEW = dataclasses.replace(
    _CAR_RACING_LATE,
    collect=dataclasses.replace(_CAR_RACING_LATE.collect, episodes=64),
    memory=dataclasses.replace(_CAR_RACING_LATE.memory, epochs=16, decay=0.1),
    controller=dataclasses.replace(
        _CAR_RACING_LATE.controller,
        generations=50,
        fresh=True,
        rollouts=16,
        horizon=1000,
        patience=30,
        goal=500.0,
        goal_rise=5.0,
        selection_interval=10,
        selection_episodes=96,
    ),
)
# Such a controller shows M what a whole lap is. The next one is evolved in the dreams of three Ms,
# which do not agree on what is too good to be true, and hotter ones, and then learns from what
# the real car does.
_CAR_RACING_LAST = dataclasses.replace(
    _CAR_RACING_ANEW,
    collect=dataclasses.replace(_CAR_RACING_ANEW.collect, episodes=96),
    memory=dataclasses.replace(_CAR_RACING_ANEW.memory, epochs=12),
    controller=dataclasses.replace(
        _CAR_RACING_ANEW.controller,
        generations=100,
        rollouts=18,
        temperature=1.5,
        dropout=0.1,
        members=3,
    ),
    tuning=REAL_GRADIENTS,
)

# To dodge is to act a second before a fireball arrives: what each step leads to tells more than
# how long a dream lasts.
_TAKE_COVER_CONTROLLER = ControllerConfig(
    method="gradients",
    generations=16,
    fresh=True,
    rollouts=16,
    sigma=GRADIENTS_SIGMA,
    horizon=600,
    temperature=1.15,
    dropout=0.0,
    selection_interval=4,
    selection_episodes=96,
)
# A player who cannot die lives to see what random play never shows: rows of monsters, several
# fireballs at once, and many that hit. They are small: V keeps them once their error counts more,
# and its frames are many.
_TAKE_COVER_IMMORTAL = CollectConfig(
    episodes=400, policy="controller", noise=0.4, quiet_fraction=0.25, immortal=True
)
_TAKE_COVER_SEE = _round(
    _TAKE_COVER_IMMORTAL,
    VisionConfig(
        epochs=2,
        frame_stride=3,
        batch_size=50,
        learning_rate=6e-4,
        decay=0.1,
        kl_tolerance=1.0,
        emphasis=40.0,
    ),
    MemoryConfig(
        epochs=18,
        random_share=0.5,
        batch_size=32,
        learning_rate=7e-4,
        decay=0.04,
        done_weight=3.0,
    ),
    dataclasses.replace(_TAKE_COVER_CONTROLLER, generations=28),
)
# The same of a better dodger. What hits it is hard to foresee: M sees every hit that there is.
_TAKE_COVER_LAST = _round(
    _TAKE_COVER_IMMORTAL,
    VisionConfig(epochs=0),
    dataclasses.replace(_TAKE_COVER_SEE.memory, epochs=6),
    dataclasses.replace(_TAKE_COVER_CONTROLLER, generations=40, selection_interval=5),
)

_ROUNDS: Mapping[tuple[str, str], tuple[int, tuple[Stages, ...]]] = {
    ("car_racing", "paper"): (
        1,
        (
            _round(
                CollectConfig(episodes=10_000),
                VisionConfig(epochs=10),
                MemoryConfig(epochs=20, sequence_length=999, batch_size=100, dropout=0.0),
                ControllerConfig(generations=1800, population=64, rollouts=16, dropout=0.0),
            ),
        ),
    ),
    ("car_racing", "desktop"): (
        10,
        (
            _round(
                CollectConfig(episodes=500, patience=100),
                VisionConfig(epochs=3, frame_stride=2, learning_rate=5e-4),
                MemoryConfig(epochs=20, batch_size=32),
                ControllerConfig(generations=16, horizon=300, selection_interval=16),
            ),
            *2 * (_CAR_RACING_EARLY,),
            _CAR_RACING_SEE,
            *4 * (_CAR_RACING_LATE,),
            _CAR_RACING_ANEW,
            _CAR_RACING_LAST,
        ),
    ),
    ("car_racing", "smoke"): (2, (_SMOKE, _CAR_RACING_SMOKE)),
    ("take_cover", "paper"): (
        1,
        (
            _round(
                CollectConfig(episodes=10_000),
                VisionConfig(epochs=1),
                MemoryConfig(epochs=20, sequence_length=500, batch_size=100, dropout=0.0),
                ControllerConfig(
                    generations=200,
                    population=64,
                    rollouts=16,
                    horizon=2100,
                    temperature=1.15,
                    dropout=0.0,
                ),
            ),
        ),
    ),
    ("take_cover", "desktop"): (
        3,
        (
            _round(
                CollectConfig(episodes=3000),
                VisionConfig(
                    epochs=2, frame_stride=9, batch_size=50, learning_rate=7e-4, decay=0.3
                ),
                MemoryConfig(epochs=6, batch_size=32, decay=0.1),
                _TAKE_COVER_CONTROLLER,
            ),
            _TAKE_COVER_SEE,
            _TAKE_COVER_LAST,
        ),
    ),
    ("take_cover", "smoke"): (2, (_SMOKE,)),
}
