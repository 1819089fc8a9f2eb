"""The commands: `python -m wm_tf COMMAND TASK [flags]`.

Each command is a dataclass; tyro makes its flags. The hyper-parameters' defaults are those of the
preset and round that the command line names, so these two are read first.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import tyro

from wm_tf import storage
from wm_tf.bench import Benchmark, bench
from wm_tf.config import (
    MAX_SEED,
    OF_DREAMS,
    TASKS,
    CollectConfig,
    Config,
    ControllerConfig,
    MemoryConfig,
    Method,
    PresetName,
    VisionConfig,
    get_task,
    preset,
)
from wm_tf.errors import RunFailed, UserError
from wm_tf.execution import LocalExecutor
from wm_tf.extras import require
from wm_tf.precision import Precision
from wm_tf.runtime import import_tensorflow

if TYPE_CHECKING:
    from wm_tf.pipeline.run import Run

_LONGEST = 1e9
"""Seconds that every system can wait for."""
_MOST_WORKERS = 1024
_MOST_EPISODES = 1_000_000
"""Of a score; a week of the faster task."""
INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 and the number of SIGINT."""

TaskName = Annotated[str, tyro.conf.Positional, tyro.conf.arg(name="TASK", metavar="TASK")]
ModelsFolder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="[MODELS]")]


@dataclass(frozen=True)
class _WithRun:
    """What every command takes that works on a run."""

    task: TaskName
    """car_racing or take_cover."""
    run: Path | None = None
    """Folder of the run (default: runs/TASK)."""
    skip_corrupt: bool = False
    """Leave damaged episodes out, and count them, instead of stopping at the first."""

    @property
    def folder(self) -> Path:
        return self.run or _default_folder(self.task)


@dataclass(frozen=True)
class _Training(_WithRun):
    """What every training command takes."""

    preset: PresetName | None = None
    """Where the defaults of the hyper-parameters come from (default: what the run was begun with,
    or desktop)."""
    seed: int | None = None
    """Of everything random in the run (default: what it was begun with, or 1)."""

    @property
    def config(self) -> Config:
        return _config(self.task, self.folder, self.preset, self.seed)

    def open(self) -> Run:
        from wm_tf.pipeline.run import Run

        return Run.open(self.folder, self.config, self.skip_corrupt)


@dataclass(frozen=True, kw_only=True)
class _Playing:
    """What every command takes whose work is spread over processes."""

    workers: int = 2
    """Processes of this machine that play."""
    executor: Literal["local", "dask"] = "local"
    """Where they play: on this machine, or on the workers of a Dask cluster."""
    scheduler: str | None = None
    """Address of the Dask cluster's scheduler, such as tcp://head:8786."""
    timeout: float = 1800.0
    """Seconds for a chunk of rollouts, after which its worker is taken for hung and replaced."""

    @contextlib.contextmanager
    def players(self) -> Iterator[Executor]:
        """The executor that the flags ask for."""
        if not 1 <= self.workers <= _MOST_WORKERS:
            raise UserError(f"--workers: expected 1 to {_MOST_WORKERS}, got {self.workers}")
        if not 0 < self.timeout <= _LONGEST:
            raise UserError(
                f"--timeout: expected a number of seconds above 0 and up to {_LONGEST:.0e}, "
                f"got {self.timeout}"
            )
        if (self.executor == "dask") != (self.scheduler is not None):
            raise UserError("--executor dask and --scheduler ADDRESS: expected both or neither")
        if self.scheduler is None:
            with LocalExecutor(self.workers, self.timeout) as local:
                yield local
        else:
            from wm_tf.cluster import dask

            with dask(self.scheduler, self.timeout) as remote:
                yield remote


@dataclass(frozen=True)
class _Stage(_Training):
    round: int = 0
    """Round of the iterated procedure, counted from 0."""

    def open(self) -> Run:
        run = super().open()
        run.config.round(self.round)  # checks it
        return run


@dataclass(frozen=True)
class Collect(_Playing, _Stage):
    """Gather episodes in the real environment."""

    hyper: tyro.conf.OmitArgPrefixes[CollectConfig] = field(default_factory=CollectConfig)

    def __call__(self) -> None:
        from wm_tf.pipeline.gathering import collect_round

        if self.hyper.policy == "random":
            defaults = self.config.round(self.round).collect
            why = "expected only with --policy controller"
            _refuse(self.hyper, ["noise", "quiet_fraction"], defaults, why)
        with self.players() as executor, self.open().alone() as run:
            _show(collect_round(run, executor, self.round, self.hyper))


@dataclass(frozen=True)
class _Fitting(_Stage):
    devices: int = 1
    """GPUs of this machine that share each batch."""


@dataclass(frozen=True)
class TrainVision(_Fitting):
    """Train V on the episodes."""

    hyper: tyro.conf.OmitArgPrefixes[VisionConfig] = field(default_factory=VisionConfig)

    def __call__(self) -> None:
        import_tensorflow()
        from wm_tf.pipeline.stages import vision_round

        if self.hyper.epochs == 0:
            raise UserError("--epochs: expected at least 1, got 0: this round keeps V as it is")
        with self.open().alone() as run:
            _show(vision_round(run, self.round, self.hyper, self.devices))


@dataclass(frozen=True)
class Encode(_Stage):
    """Encode the episodes' frames with V."""

    def __call__(self) -> None:
        import_tensorflow()
        from wm_tf.pipeline.dataset import encode_rounds

        with self.open().alone() as run:
            _show({"episodes": len(encode_rounds(run, self.round))})


@dataclass(frozen=True)
class TrainMemory(_Fitting):
    """Train M on the encoded episodes, and export V and M."""

    hyper: tyro.conf.OmitArgPrefixes[MemoryConfig] = field(default_factory=MemoryConfig)

    def __call__(self) -> None:
        import_tensorflow()
        from wm_tf.pipeline.checkpoints import parameters_as_of
        from wm_tf.pipeline.exports import export_round
        from wm_tf.pipeline.stages import memory_round

        if self.hyper.epochs == 0:
            raise UserError("--epochs: expected at least 1, got 0")
        if self.round == 0:
            defaults = self.config.round(0).memory
            why = "expected only after round 0, whose episodes it is of"
            _refuse(self.hyper, ["random_share"], defaults, why)
        with self.open().alone() as run:
            _show(memory_round(run, self.round, self.hyper, self.devices))
            export_round(run, self.round, parameters_as_of(run, self.round))


@dataclass(frozen=True)
class TrainController(_Playing, _Stage):
    """Train C by CMA-ES or policy gradients, in the dream or in the real environment."""

    env: Literal["dream", "real"] = "dream"
    """Where its rollouts are."""
    init: Path | None = None
    """Models whose controller to begin with (default: the run's last controller, or zeros)."""
    hyper: tyro.conf.OmitArgPrefixes[ControllerConfig] = field(default_factory=ControllerConfig)

    def __call__(self) -> None:
        import_tensorflow()
        from wm_tf.pipeline.checkpoints import parameters_as_of
        from wm_tf.pipeline.exports import controller_of, export_round
        from wm_tf.pipeline.stages import controller_round

        if self.hyper.fresh and self.init is not None:
            raise UserError("--fresh begins with zeros, --init with a controller: expected one")
        if self.env == "real":
            defaults = self.config.round(self.round).real(self.hyper.method)
            _refuse(self.hyper, OF_DREAMS, defaults, "expected only with --env dream")
        initial = None if self.init is None else controller_of(self.init, self.task)
        with self.players() as executor, self.open().alone() as run:
            controller_round(run, executor, self.round, self.hyper, env=self.env, initial=initial)
            export_round(run, self.round, parameters_as_of(run, self.round))


@dataclass(frozen=True)
class Export(_Training):
    """Publish the run's best models as SavedModels with manifest and model card."""

    out: Path | None = None
    """Folder that holds the task's folder (default: saved_models, or tflite for that format)."""
    format: Literal["savedmodel", "tflite"] = "savedmodel"
    """tflite converts published SavedModels instead, and compares them."""
    models: Path = Path("saved_models")
    """SavedModels to convert to tflite."""

    def __call__(self) -> None:
        import_tensorflow()
        from wm_tf.pipeline.exports import publish
        from wm_tf.serving.lite import convert, print_converted

        out = self.out or Path("tflite" if self.format == "tflite" else "saved_models")
        lite = self.format == "tflite"
        flags = ("run", "preset", "seed", "skip_corrupt") if lite else ("models",)
        other = "savedmodel" if lite else "tflite"
        _refuse(self, flags, Export(self.task), f"expected only with --format {other}")
        if lite:
            print_converted(convert(self.models, self.task, out))
        else:
            with self.open().alone() as run:
                print(publish(run, out))

    def open(self) -> Run:
        run = super().open()
        run.check_begun_alike()
        return run


@dataclass(frozen=True)
class Evaluate(_Playing):
    """Score a controller on fresh seeds."""

    task: TaskName
    """car_racing or take_cover."""
    env: Literal["real", "dream"] = "real"
    """Where to play."""
    episodes: int = 100
    """How many."""
    seed: int = 0
    """Of the episodes."""
    models: Path = Path("saved_models")
    """Folder that holds the task's models."""
    frames: Literal["official", "fast"] | None = None
    """How the real car_racing is drawn: by gymnasium (the default), or by the fast renderer."""
    precision: Precision | None = None
    """Arithmetic of V's convolutions with --env real (default: float32, as V is served)."""
    policy: Literal["controller", "random"] = "controller"
    """Who plays."""
    temperature: float | None = None
    """Of the dream (default: that of the models' manifest)."""
    json: Path | None = None
    """Where to write the result."""

    def __call__(self) -> None:
        from wm_tf.evaluate import evaluate, print_result, write_json

        for name, least, most in (("episodes", 1, _MOST_EPISODES), ("seed", 0, MAX_SEED)):
            if not least <= getattr(self, name) <= most:
                raise UserError(
                    f"--{name}: expected a number from {least} to {most}, got {getattr(self, name)}"
                )
        storage.check_output("--json", self.json)
        if self.env == "dream":  # one compiled rollout
            players = [field.name for field in dataclasses.fields(_Playing)]
            _refuse(self, players, Evaluate(self.task), "expected only with --env real")
        with self.players() as executor:
            result = evaluate(
                executor,
                self.task,
                self.models,
                env=self.env,
                episodes=self.episodes,
                seed=self.seed,
                frames=self.frames,
                precision=self.precision,
                random=self.policy == "random",
                temperature=self.temperature,
            )
        print_result(result)
        if self.json is not None:
            write_json(self.json, result)


@dataclass(frozen=True)
class Verify:
    """Check models: layout, checksums, signatures, shapes and numbers."""

    models: ModelsFolder = Path("saved_models")
    """Folder that holds the tasks' models."""

    def __call__(self) -> None:
        from wm_tf.serving.verify import verify_all

        verify_all(self.models)


@dataclass(frozen=True)
class Info:
    """Show what is in a task's models and where their scores come from."""

    task: TaskName
    """car_racing or take_cover."""
    models: Path = Path("saved_models")
    """Folder that holds the task's models."""

    def __call__(self) -> None:
        from wm_tf.serving.info import info, print_info

        print_info(info(self.models, self.task))


@dataclass(frozen=True)
class Renew:
    """Renew what depends on the models: golden outputs, GIFs, cards and the README's scores."""

    models: ModelsFolder = Path("saved_models")
    """Folder that holds the tasks' models."""
    scores: tuple[Path, ...] = ()
    """Files of evaluate --json, which replace the scores of their tasks."""

    def __call__(self) -> None:
        import_tensorflow()
        from wm_tf.renew import renew

        renew(self.models, self.scores)


@dataclass(frozen=True)
class Serve:
    """Serve the models over HTTP, by TensorFlow Serving's and by the Open Inference Protocol."""

    models: Path = Path("saved_models")
    """Folder that holds the tasks' models."""
    host: str = "127.0.0.1"
    """Address to listen on; the default is reached from this machine alone."""
    port: int = 8501
    """0 takes one that is free."""

    def __call__(self) -> None:
        require("kserve", "serve")
        import_tensorflow()
        from wm_tf.serving.server import serve

        serve(self.models, self.host, self.port)


@dataclass(frozen=True)
class _Study(_Playing, _Training):
    round: int | None = None
    """Of the V and M to use (default: the run's last); it also names the round of the preset whose
    hyper-parameters are used where no flag gives them (default: 0)."""
    episodes: int = 100
    """Of each score."""
    hyper: tyro.conf.OmitArgPrefixes[ControllerConfig] = field(default_factory=ControllerConfig)

    def round_of(self, run: Run) -> int:
        return run.rounds() - 1 if self.round is None else self.round

    def refuse(self, names: Sequence[str], why: str) -> None:
        """Refuses flags of what the study itself changes."""
        defaults = self.config.round(self.round or 0).controller
        _refuse(self.hyper, names, defaults, why)
        adjusting = ["search"] if self.hyper.search == "actuators" else []
        _refuse(self.hyper, [*adjusting, "fresh"], defaults, "all of a study begin with zeros")


@dataclass(frozen=True)
class Sweep(_Study):
    """Evolve controllers in dreams of several temperatures and score them (the paper's table 2)."""

    temperatures: tuple[float, ...] = (0.5, 1.0, 1.15, 1.3)
    """Of the dreams."""

    def __call__(self) -> None:
        import_tensorflow()
        from wm_tf.pipeline.studies import sweep

        self.refuse(["temperature"], "expected --temperatures")
        with self.players() as executor, self.open().alone() as run:
            sweep(
                run,
                executor,
                self.round_of(run),
                self.hyper,
                temperatures=self.temperatures,
                episodes=self.episodes,
            )


@dataclass(frozen=True)
class Ablate(_Study):
    """Evolve controllers that see less than all, or have a hidden layer (the paper's table 1)."""

    def __call__(self) -> None:
        import_tensorflow()
        from wm_tf.pipeline.studies import ablate

        self.refuse(["sees", "hidden"], "that is what the ablation compares")
        with self.players() as executor, self.open().alone() as run:
            ablate(run, executor, self.round_of(run), self.hyper, episodes=self.episodes)


@dataclass(frozen=True)
class Reproduce(_Playing, _Training):
    """Run the whole procedure: collect, V, M, C, again and again."""

    iterations: int | None = None
    """Rounds (default: the preset's)."""

    def __call__(self) -> None:
        import_tensorflow()
        from wm_tf.pipeline.reproduce import reproduce

        with self.players() as executor, self.open().alone() as run:
            reproduce(run, executor, self.iterations)


@dataclass(frozen=True)
class ExportData(_WithRun):
    """Write a run's episodes as a data set of another library."""

    format: Literal["minari"] = "minari"
    """The other library."""
    out: Path | None = None
    """The data set's folder, NAME-vVERSION (default: datasets/TASK-v0)."""

    def __call__(self) -> None:
        require("minari", "data")
        from wm_tf.pipeline.minari_data import export_data

        task = get_task(self.task)
        out = self.out or Path("datasets") / f"{task.name}-v0"
        print(export_data(self.folder, task, out, self.skip_corrupt))


@dataclass(frozen=True)
class ImportData(_Stage):
    """Take the episodes of such a data set into a round of a run that has none."""

    data: Path | None = None
    """The data set's folder (default: datasets/TASK-v0)."""

    def __call__(self) -> None:
        require("minari", "data")
        from wm_tf.pipeline.minari_data import import_data

        data = self.data or Path("datasets") / f"{self.task}-v0"
        with self.open().alone() as run:
            episodes = import_data(data, run.config.task, run.rollouts(self.round))
            run.begin()
        _show({"episodes": episodes})


@dataclass(frozen=True)
class ImportModels(_Training):
    """Begin a run with published models, from which its rounds go on."""

    models: Path = Path("saved_models")
    """Folder that holds the task's models."""

    def __call__(self) -> None:
        import_tensorflow()
        from wm_tf.pipeline.importing import import_models

        with self.open().alone() as run:
            import_models(run, self.models)


@dataclass(frozen=True)
class Bench:
    """Measure speeds side by side."""

    only: tuple[Benchmark, ...] = ()
    """Which benchmarks (default: all but training-footprint, which takes half an hour)."""
    json: Path | None = None
    """Where to write the table."""
    plot: Path | None = None
    """Where to draw how cost grows (png)."""

    def __call__(self) -> None:
        storage.check_output("--json", self.json)
        storage.check_output("--plot", self.plot)
        bench(self.only, self.json, self.plot)


COMMANDS: dict[str, type] = {
    "collect": Collect,
    "train-vision": TrainVision,
    "encode": Encode,
    "train-memory": TrainMemory,
    "train-controller": TrainController,
    "export": Export,
    "evaluate": Evaluate,
    "verify": Verify,
    "info": Info,
    "renew": Renew,
    "serve": Serve,
    "reproduce": Reproduce,
    "sweep": Sweep,
    "ablate": Ablate,
    "export-data": ExportData,
    "import-data": ImportData,
    "import-models": ImportModels,
    "bench": Bench,
}

_HYPER: dict[str, str] = {
    "collect": "collect",
    "train-vision": "vision",
    "train-memory": "memory",
    "train-controller": "controller",
    "sweep": "controller",
    "ablate": "controller",
}
"""Which hyper-parameters of a round a command takes."""


_GOES_ON = frozenset({*_HYPER, "encode", "reproduce"})
"""Commands that, typed again after an interruption, go on from what is done."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status.

    0: done; 1: could not be finished; 2: input that cannot be used; 130: Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if sys.stderr is None:  # it was closed beforehand: nobody reads it
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    try:
        _parse(words)()
        if sys.stdout is not None:  # where it was closed beforehand
            sys.stdout.flush()
    except UserError as error:
        _tell(str(error))
        return 2
    except RunFailed as error:
        _tell(str(error))
        return 1
    except KeyboardInterrupt:
        goes_on = "; the same command goes on" if words and words[0] in _GOES_ON else ""
        _tell(f"interrupted{goes_on}")
        return INTERRUPTED
    except OSError as error:  # of a print: whoever read it has left, or its disk is full
        if error.errno not in (errno.EPIPE, errno.ENOSPC):
            raise
        if error.errno == errno.ENOSPC:
            _tell(f"cannot write: {error.strerror}")
        _drop_output()
        return 1
    return 0


def _refuse(given: Any, names: Sequence[str], defaults: Any, why: str) -> None:
    """Raises UserError for a flag that would mean nothing, by another value than its default."""
    for name in names:
        value = getattr(given, name)
        if value != getattr(defaults, name):
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"{flag}: {why}" if value is True else f"{flag} {value}: {why}")


def _tell(message: str) -> None:
    with contextlib.suppress(OSError):  # there is nobody else to tell it to
        print(f"wm_tf: {message}", file=sys.stderr)


def _drop_output() -> None:
    """Discards what could not be written, which the interpreter would try again at its end."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _parse(arguments: list[str]) -> Callable[[], None]:
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print(_usage(), flush=True)
        raise SystemExit(0)
    if name not in COMMANDS:
        raise UserError(f"unknown command {name!r}: expected one of {', '.join(COMMANDS)}")
    takes_task = any(field.name == "task" for field in dataclasses.fields(COMMANDS[name]))
    defaults: dict[str, Any] = {"task": tyro.MISSING} if takes_task else {}
    if name in _HYPER:
        defaults["hyper"] = _hyper(name, arguments[1:])
    parsed: Callable[[], None] = tyro.cli(
        COMMANDS[name],
        args=arguments[1:],
        prog=f"python -m wm_tf {name}",
        default=COMMANDS[name](**defaults),
    )
    return parsed


def _default_folder(task: str) -> Path:
    return Path("runs") / task


def _config(task: str, folder: Path, name: str | None, seed: int | None = None) -> Config:
    """The preset of that name and seed or, where there is none, of those the run was begun with."""
    from wm_tf.pipeline.run import begun_with

    held = begun_with(folder)
    name = name or held.get("preset", "desktop")
    return preset(task, name, held.get("seed", 1) if seed is None else seed)


def _hyper(name: str, arguments: list[str]) -> Any:
    """The hyper-parameters of the preset, round and environment that a command line names."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--preset")
    parser.add_argument("--round", type=int, default=0)
    for flag in ("--method", "--search"):
        parser.add_argument(flag)
    parser.add_argument("--run", type=Path)
    for flag in ("--env", "--init", "--scheduler"):  # whose value may be a task's name
        parser.add_argument(flag)
    try:
        known, rest = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from None
    # The task may stand anywhere; a word that is none of them is reported when it is parsed whole.
    task = next((word for word in rest if word in TASKS), None)
    if task is None and rest and not rest[0].startswith("-"):
        get_task(rest[0])
    task = task or next(iter(TASKS))
    folder = known.run or _default_folder(task)
    stages = _config(task, folder, known.preset).round(known.round)
    real = name == "train-controller" and known.env == "real"
    evolves = name == "ablate" or known.search in ("actuators", "scaled")
    named = known.method or ("evolution" if evolves else None)
    method = next((one for one in get_args(Method) if one == named), None)
    hyper = stages.real(method) if real else getattr(stages, _HYPER[name])
    if isinstance(hyper, ControllerConfig):
        if method:
            hyper = hyper.by(method)
        if known.init is not None or known.search == "actuators":  # which begin with a controller
            hyper = dataclasses.replace(hyper, fresh=False)
    return hyper


def _show(figures: Mapping[str, Any]) -> None:
    """Prints a stage's figures, a line each."""
    for name, value in figures.items():
        if isinstance(value, int | float):
            print(f"{name.replace('_', ' ')}: {value:{',' if isinstance(value, int) else '.6g'}}")


def _usage() -> str:
    lines = ["usage: python -m wm_tf COMMAND [TASK] [flags]", ""]
    for name, command in COMMANDS.items():
        lines.append(f"  {name:18}{(command.__doc__ or '').splitlines()[0]}")
    return "\n".join([*lines, "", "python -m wm_tf COMMAND --help lists a command's flags."])
