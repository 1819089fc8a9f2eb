"""A run on disk: where each thing is, and which stages are done.

    config.json           task, and the preset and seed that it was begun with
    imported.json         the manifest of the models that it began with, if it did, and
    initial_latents.npz   where their dreams start
    rollouts/RR/          episodes of round RR
    latents/RR/           the same, encoded
    checkpoints/          vision-RR.npz, memory-RR.npz, controller-RR.npz
    stages/               what each stage was made from, and what it gave
    logs/                 TensorBoard events and metrics.jsonl of each stage
    exports/TASK/         the SavedModels as they are now
    members/RR/TASK/      those of earlier rounds, where several Ms dream

A stage is done when its record says so, says the same inputs and no less (episodes, epochs,
generations) than is asked for, and its files are those that it wrote. Otherwise it runs: from its
own checkpoint if it was interrupted at the same inputs, else anew. A stage whose result came from
elsewhere (`Run.adopt`) is not run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wm_tf import storage
from wm_tf.config import Config, completed
from wm_tf.data.episodes import episode_paths, intact_episodes
from wm_tf.errors import DamagedFile, RunFailed, UserError

FORMAT_VERSION = 1
Env = Literal["dream", "real"]
CONTROLLER_STAGES: dict[Env, str] = {"dream": "controller", "real": "controller-real"}
"""The stages that evolve a controller, in the order of a round."""
LEARNING_STAGES = ("vision", "memory", *CONTROLLER_STAGES.values())
"""Those that leave a checkpoint, in the order of a round."""
_CONFIG = "config.json"
_AT_WORK: set[Path] = set()
"""Folders of the runs that this process keeps others out of."""

Values = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A run's folder and configuration."""

    folder: Path
    config: Config
    skip_corrupt: bool = False
    """Leave damaged episodes out instead of stopping at them."""

    @classmethod
    def open(cls, folder: Path, config: Config, skip_corrupt: bool = False) -> Run:
        """Opens a run. One that is not there begins with its first stage.

        Raises:
          UserError: the folder belongs to a run of another task, or is no folder.
          DamagedFile: its config.json is damaged.
        """
        if os.path.exists(folder) and not folder.is_dir():
            raise UserError(f"--run: expected a folder, got {folder}")
        run, held = cls(folder, config, skip_corrupt), begun_with(folder)
        for key, expected in run._kind.items():
            if held and held.get(key) != expected:
                raise UserError(
                    f"{folder / _CONFIG}: a run of {key} {held.get(key)!r}, expected {expected!r}"
                )
        return run

    @contextlib.contextmanager
    def alone(self) -> Iterator[Run]:
        """Keeps other commands out of the run: what one reads, another would replace.

        Within one process it may be nested.

        Raises:
          UserError: another command is at work on it.
          RunFailed: its folder cannot be made.
        """
        place = self.folder.absolute()
        if place in _AT_WORK:
            yield self
            return
        with contextlib.ExitStack() as stack:
            new = [folder for folder in (place, *place.parents) if not os.path.exists(folder)]
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(storage.only_writer(self.folder, wait=False))
            except BlockingIOError:
                raise UserError(f"{self.folder}: another command is at work on this run") from None
            except OSError as error:
                raise RunFailed(f"cannot write {self.folder}: {error.strerror}") from error
            _AT_WORK.add(place)
            try:
                if os.path.exists(self.folder / _CONFIG):  # else it may be anybody's
                    storage.remove_leftovers(self.folder)
                yield self
            finally:
                _AT_WORK.remove(place)
                with contextlib.suppress(OSError):  # something was done there
                    for folder in new:
                        folder.rmdir()

    def begin(self) -> bool:
        """Writes what the run is begun with, unless that was done; returns whether it was not."""
        if begun_with(self.folder):
            return False
        begun = {"preset": self.config.preset, "seed": self.config.seed}
        storage.write_json(self.folder / _CONFIG, {**self._kind, **begun})
        return True

    def check_begun_alike(self) -> None:
        """Raises UserError if the run was begun with another preset or seed.

        What is left of those would be taken for what the procedure itself has made.
        """
        held = begun_with(self.folder)
        for key, asked in (("preset", self.config.preset), ("seed", self.config.seed)):
            if held.get(key, asked) != asked:
                raise UserError(
                    f"--{key}: expected {held[key]}, with which {self.folder} was begun, "
                    f"got {asked}; another run needs another --run"
                )

    @property
    def exports(self) -> Path:
        """The folder that holds the task's SavedModels folder."""
        return self.folder / "exports"

    def member(self, round_index: int) -> Path:
        """The same of an earlier round."""
        return self.folder / "members" / f"{round_index:02d}"

    def rollouts(self, round_index: int) -> Path:
        return self.folder / "rollouts" / f"{round_index:02d}"

    def latents(self, round_index: int) -> Path:
        return self.folder / "latents" / f"{round_index:02d}"

    def logs(self, stage: str, round_index: int) -> Path:
        return self.folder / "logs" / f"{stage}-{round_index:02d}"

    def checkpoint(self, model: str, round_index: int) -> Path:
        return self.folder / "checkpoints" / f"{model}-{round_index:02d}.npz"

    def rounds(self) -> int:
        """How many rounds have left a checkpoint; those of studies are of none."""
        names = (path.stem for path in (self.folder / "checkpoints").glob("*-*.npz"))
        found = (name.rsplit("-", 1) for name in names)
        rounds = (
            int(number)
            for stage, number in found
            if stage in LEARNING_STAGES and number.isdecimal()
        )
        return 1 + max(rounds, default=-1)

    def last_checkpoint(self, model: str, round_index: int) -> Path | None:
        """The model's checkpoint of that round or, where there is none, of the last one before."""
        for index in range(round_index, -1, -1):
            if self.checkpoint(model, index).exists():
                return self.checkpoint(model, index)
        return None

    def required_checkpoint(self, model: str, round_index: int) -> Path:
        """As `last_checkpoint`; raises UserError where there is none."""
        path = self.last_checkpoint(model, round_index)
        if path is None:
            raise UserError(
                f"{self.folder}: holds no checkpoint of the {model} model; train it first"
            )
        return path

    def episodes(self, last_round: int) -> list[Path]:
        """All episodes up to a round, checked; see `Run.skip_corrupt`.

        Raises:
          UserError: there are none.
          DamagedFile: one is damaged.
        """
        folders = [self.rollouts(index) for index in range(last_round + 1)]
        paths = [path for folder in folders for path in sorted(folder.glob("episode-*.npz"))]
        paths = paths or episode_paths(self.rollouts(0))
        return intact_episodes(paths, self.config.task, self.skip_corrupt)

    def stage(
        self,
        name: str,
        round_index: int,
        inputs: Mapping[str, Any],
        work: Callable[[], tuple[Sequence[Path], Values]],
        *,
        goal: int,
        partial: Callable[[], Sequence[Path]] = tuple,
    ) -> Values:
        """Runs a stage unless it is done; see the module's docstring.

        Args:
          name: of the stage.
          round_index: of the round.
          inputs: JSON values that say what its result depends on.
          work: does it; returns (the files it wrote, JSON values to remember). ``seconds`` among
            them, by its own count, also holds tries that were killed.
          goal: how far to go (episodes, epochs, generations); a finished stage of the same inputs
            whose goal was smaller goes on from where it is.
          partial: lists the files that an interrupted stage leaves to go on from; removed if they
            are of other inputs, once `work` has written one of its own.

        Returns:
          What `work` remembered, and ``seconds`` of computing, interrupted tries included.

        Raises:
          UserError: the result was adopted from elsewhere; another command is at work on this run;
            or `work` raised it, which leaves everything as it was, unless it had come on meanwhile.
        """
        with self.alone():
            if self.adopted(name, round_index):
                raise UserError(
                    f"{self.folder}: {name} of round {round_index} was imported; "
                    f"--round {round_index + 1} goes on from it"
                )
            path = self._record_path(name, round_index)
            before = record = self._put_back(path, partial)
            aside: dict[Path, Path] = {}
            if record is None or completed(record["inputs"], inputs) != dict(inputs):
                aside = {file: _aside(file) for file in partial() if file.exists()}
                begun = {"inputs": dict(inputs), "done": False, "seconds": 0.0, "goal": goal}
                record = {**self._kind, **begun}
                if aside:
                    files = [file.relative_to(self.folder).as_posix() for file in aside]
                    record["aside"] = {"files": files, "record": before}
            if not (record["done"] and record["goal"] >= goal and self._intact(record["files"])):
                begins = self.begin()
                record = {**record, "done": False}  # until it is, whatever ends this process
                storage.write_json(path, record)
                _rename(aside)
                held = _identities(partial())
                try:
                    record = self._work(path, record, work, goal)
                except BaseException as error:
                    refused = isinstance(error, UserError)
                    if (refused or aside) and _identities(partial()) == held:
                        _restore(path, before, aside)
                        if begins and refused:
                            (self.folder / _CONFIG).unlink()
                    raise
                finally:
                    for file in aside.values():
                        file.unlink(missing_ok=True)
            return {**record["result"], "seconds": record["seconds"]}

    def _work(
        self,
        path: Path,
        record: Values,
        work: Callable[[], tuple[Sequence[Path], Values]],
        goal: int,
    ) -> Values:
        """Does a stage's work and writes its record to `path`; returns the record."""
        start = time.monotonic()
        try:
            files, result = work()
        except BaseException:
            spent = record["seconds"] + time.monotonic() - start
            with contextlib.suppress(RunFailed):  # what ended the work is what counts
                storage.write_json(path, {**_settled(record), "seconds": spent})
            raise
        spent = record["seconds"] + time.monotonic() - start
        record = {
            **_settled(record),
            "done": True,
            "goal": goal,
            "seconds": max(spent, result.pop("seconds", 0.0)),
            "files": {
                file.relative_to(self.folder).as_posix(): storage.stamp(file) for file in files
            },
            "result": result,
        }
        storage.write_json(path, record)
        return record

    def _put_back(self, path: Path, partial: Callable[[], Sequence[Path]]) -> Values | None:
        """A stage's record; one that was killed before it made anything leaves all as it was."""
        record = self._record(path)
        if record is None or "aside" not in record:
            return record
        files = [self.folder / name for name in record["aside"]["files"]]
        aside = {file: _aside(file) for file in files if _aside(file).exists()}
        if any(file.exists() and (file in aside or file not in files) for file in partial()):
            storage.write_json(path, _settled(record))
            for file in aside.values():
                file.unlink()
            return _settled(record)
        _restore(path, record["aside"]["record"], aside)
        return record["aside"]["record"]

    def adopt(
        self,
        name: str,
        round_index: int,
        inputs: Values,
        file: Path,
        result: Values,
        seconds: float,
    ) -> None:
        """Records a stage as done whose file was made elsewhere, in so many seconds."""
        self.begin()
        record = {
            **self._kind,
            "adopted": True,
            "inputs": inputs,
            "done": True,
            "goal": 0,
            "seconds": seconds,
            "files": {file.relative_to(self.folder).as_posix(): storage.stamp(file)},
            "result": result,
        }
        storage.write_json(self._record_path(name, round_index), record)

    def adopted(self, name: str, round_index: int) -> bool:
        """Whether a stage's result was made elsewhere, and is there; raises DamagedFile."""
        record = self.record(name, round_index)
        if record is None or not record.get("adopted", False):
            return False
        paths = [self.folder / file for file in record["files"]]
        if not all(path.exists() for path in paths):
            return False
        if not self._intact(record["files"]):
            raise DamagedFile(
                f"{paths[0]}: damaged; import-models of the same models brings it back"
            )
        return True

    def stage_record(self, name: str, round_index: int) -> Values | None:
        """``inputs``, ``goal``, ``result``, ``seconds`` of a finished stage; None if not done."""
        record = self.record(name, round_index)
        return record if record is not None and record["done"] else None

    def record(self, name: str, round_index: int) -> Values | None:
        """As `stage_record`, of a stage that was begun."""
        return self._record(self._record_path(name, round_index))

    def _record_path(self, name: str, round_index: int) -> Path:
        return self.folder / "stages" / f"{name}-{round_index:02d}.json"

    @property
    def _kind(self) -> Values:
        return {"format_version": FORMAT_VERSION, "task": self.config.task.name}

    def _record(self, path: Path) -> Values | None:
        if not path.exists():
            return None
        record = storage.read_json(path)
        for key, expected in self._kind.items():
            held = record.get(key, expected)  # the first ones did not say
            if held != expected:
                raise DamagedFile(f"{path}: {key}: expected {expected!r}, got {held!r}")
        return record

    def _intact(self, files: Mapping[str, str]) -> bool:
        try:
            return all(storage.stamp(self.folder / name) == stamp for name, stamp in files.items())
        except DamagedFile:
            return False


def begun_with(folder: Path) -> Values:
    """The task, preset and seed of a run's folder; empty where no run was begun.

    Raises:
      DamagedFile: it is damaged.
    """
    path = folder / _CONFIG
    return storage.read_json(path) if os.path.exists(path) else {}


def _identities(files: Sequence[Path]) -> dict[Path, tuple[int, int]]:
    """What tells a file from one that replaced it, for those that are there."""
    found = {file: file.stat() for file in files if file.exists()}
    return {file: (held.st_ino, held.st_mtime_ns) for file, held in found.items()}


def _aside(file: Path) -> Path:
    """Where a file is until work of other inputs has made something in its place."""
    return file.with_name(f".{file.name}.before")


def _settled(record: Values) -> Values:
    """The record of a stage that has no use any more for what was put aside."""
    return {key: value for key, value in record.items() if key != "aside"}


def _restore(path: Path, record: Values | None, aside: Mapping[Path, Path]) -> None:
    """Gives a stage its files back and then its record, at `path`, if it had one."""
    _rename({there: file for file, there in aside.items()})
    if record is None:
        path.unlink()
    else:
        storage.write_json(path, record)


def _rename(files: Mapping[Path, Path]) -> None:
    """Gives files other names, those that are there."""
    for file, name in files.items():
        with contextlib.suppress(FileNotFoundError):
            os.replace(file, name)


def identity(config: Any, goal: str) -> Values:
    """A config without the field that only says how far to go."""
    values = dataclasses.asdict(config)
    del values[goal]
    return values


def array_digest(array: np.ndarray) -> str:
    """A checksum that names parameters."""
    return hashlib.sha256(array.astype(np.float64).tobytes()).hexdigest()
