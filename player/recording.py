"""Recordings: what was driven, so exactly that it can be dreamt again, as JSON lines.

First line: {"recording": 1, "task", "models", "state"}, the state from which it starts (float32
arrays in base64) and the digest of the models (`World`). Then a line per step: {"action",
"by_human", "temperature"}, where latents were held by hand "pins", and where the dream went on in
one of several futures "seed". Last line: {"end":
{"steps", "return", "latent", "sha256"}}: the digest of the last latent, by which one knows that a
replay was exact, and of all the bytes before this line, by which damage is found.

A recording is what remains of the timeline: what was rewound and driven anew is not in it.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from player.history import History, Moment
from wm_tf import storage
from wm_tf.config import Task
from wm_tf.errors import DamagedFile, UserError

if TYPE_CHECKING:
    from wm_tf.dream.world import DreamState

FORMAT_VERSION = 1
STRAYED = "not exactly the dream that was recorded: another processor adds up in another order"
_ARRAYS = ("latent", "h", "c")


@dataclass(frozen=True)
class Planned:
    """A step that is already decided: the action and what else made it what it was."""

    action: np.ndarray  # [A] float32
    by_human: np.ndarray  # [A] bool
    temperature: float | None = None  # None: the session's
    pins: tuple[tuple[int, float], ...] = ()
    seed: int | None = None  # of the noise from this step on; None: as before


@dataclass(frozen=True)
class Recording:
    """A stretch of a dream that can be dreamt again."""

    task: str
    models: str  # their digest
    start: DreamState
    steps: tuple[Planned, ...]
    total: float  # return over the steps
    last_latent: str  # digest


def of(moments: Sequence[Moment], task: str, models: str) -> Recording:
    """The recording of consecutive moments, the first of which it starts from."""
    steps = tuple(_planned_of(before, now) for before, now in itertools.pairwise(moments))
    total = moments[-1].total - moments[0].total
    last = latent_digest(moments[-1].state.latent)
    return Recording(task, models, moments[0].state, steps, total, last)


def repeatable(moments: Sequence[Moment]) -> Sequence[Moment]:
    """The end of a drive that its actions alone repeat: what comes after real frames set it."""
    first = max((index for index, moment in enumerate(moments) if moment.from_real), default=0)
    return moments[first:]


def latent_digest(latent: np.ndarray) -> str:
    """A short digest of a latent's bits."""
    return hashlib.sha256(latent.astype("<f4").tobytes()).hexdigest()[:16]


def write(path: Path, recording: Recording) -> None:
    """Writes a recording; raises RunFailed if that is not possible."""
    state = recording.start
    header = {
        "recording": FORMAT_VERSION,
        "task": recording.task,
        "models": recording.models,
        "state": {
            **{name: _encoded(getattr(state, name)) for name in _ARRAYS},
            "seed": int(state.seed),
            "step": int(state.step),
        },
    }
    lines = [header, *(_step_line(step) for step in recording.steps)]
    body = "".join(json.dumps(line) + "\n" for line in lines).encode()
    end = {
        "steps": len(recording.steps),
        "return": recording.total,
        "latent": recording.last_latent,
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    storage.write_bytes(path, body + json.dumps({"end": end}).encode() + b"\n")


def is_recording(path: Path) -> bool:
    """Whether a file begins as a recording does (else it may be a plain file of actions)."""
    try:
        with path.open("rb") as file:
            return file.readline(100).startswith(b'{"recording"')
    except OSError:
        return False


def read(path: Path, task: Task, models: str) -> Recording:
    """Reads a recording of a task that was made with the models of that digest.

    Raises:
      DamagedFile: it is truncated, altered or of another format version or task.
      UserError: it was made with other models, which would dream another dream.
    """
    body, end = _verified(path)
    try:
        header, *lines = [json.loads(line) for line in body.splitlines()]
        _check_header(path, header, task, models)
        return Recording(
            task=header["task"],
            models=header["models"],
            start=_state(header["state"], task),
            steps=tuple(_planned(line, task) for line in lines),
            total=float(end["return"]),
            last_latent=str(end["latent"]),
        )
    except (
        ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError
    ) as error:  # fmt: skip
        raise DamagedFile(f"{path}: not a recording of {task.name} ({error!r})") from None


def _check_header(path: Path, header: dict[str, Any], task: Task, models: str) -> None:
    version = header.get("recording")
    if version != FORMAT_VERSION:
        raise DamagedFile(f"{path}: recording of version {version}, expected {FORMAT_VERSION}")
    if header["task"] != task.name:
        raise DamagedFile(f"{path}: recording of {header['task']}, expected {task.name}")
    if header["models"] != models:
        raise UserError(f"{path}: was recorded with other models, which dream another dream")


class Recorder:
    """Notes where a recording began; the history holds everything else."""

    def __init__(self) -> None:
        self._history: History | None = None
        self._first = 0  # number of the moment with which it begins
        self._begins: Moment | None = None  # that moment

    @property
    def running(self) -> bool:
        return self._history is not None

    def begin(self, history: History) -> None:
        """Records from now on."""
        self._history = history
        self._begin_at(history.number)

    def follows(self, history: History) -> bool:
        """Whether the recording is of that history, and not of a dream that was left.

        Asked in every turn, it notices what is driven anew before the recording's beginning.
        """
        if history is not self._history:
            return False
        left = history.at(self._first) is not self._begins
        if history.number < self._first and left:
            # A future that was chosen lies ahead; of one that is driven, a step is behind.
            self._begin_at(max(0, history.number - (not history.has_future)))
        return True

    def _begin_at(self, number: int) -> None:
        assert self._history is not None
        self._first, self._begins = number, self._history.at(number)

    def finish(self) -> tuple[Sequence[Moment], Sequence[Moment]]:
        """Ends the recording: (the moments recorded, those and all before them in the dream)."""
        history = self._history
        if history is None:
            return [], []
        self.follows(history)
        self._history = None
        return history.since(self._first), history.moments


def _planned_of(before: Moment, now: Moment) -> Planned:
    seed = now.state.seed if now.state.seed != before.state.seed else None
    return Planned(now.action, now.by_human, now.temperature, now.pins, seed)


def _step_line(step: Planned) -> dict[str, Any]:
    line: dict[str, Any] = {
        "action": [float(value) for value in step.action],
        "by_human": [bool(value) for value in step.by_human],
        "temperature": step.temperature,
    }
    if step.pins:
        line["pins"] = [list(pin) for pin in step.pins]
    if step.seed is not None:
        line["seed"] = int(step.seed)
    return line


def _planned(line: dict[str, Any], task: Task) -> Planned:
    pins = tuple((int(dimension), float(value)) for dimension, value in line.get("pins", ()))
    action, by_human = np.array(line["action"], np.float32), np.array(line["by_human"], bool)
    if not action.shape == by_human.shape == (task.action_size,) or not np.isfinite(action).all():
        raise ValueError(f"action: expected {task.action_size} numbers, got {line['action']}")
    if any(not 0 <= dimension < task.latent_size for dimension, _ in pins):
        raise ValueError(f"pins: expected dimensions below {task.latent_size}, got {line['pins']}")
    temperature = float(line["temperature"])
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature: expected a number greater than 0, got {temperature}")
    seed = line.get("seed")
    return Planned(action, by_human, temperature, pins, None if seed is None else _count(seed))


def _count(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < 2**31:
        raise ValueError(f"expected a whole number from 0 to 2**31 - 1, got {value!r}")
    return value


def _verified(path: Path) -> tuple[bytes, dict[str, Any]]:
    """The lines before the last one, and what the last one says."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DamagedFile(f"{path}: cannot be read ({error.strerror})") from None
    at = data.rstrip(b"\n").rfind(b"\n") + 1
    body = data[:at]
    try:
        end = json.loads(data[at:])["end"]
        intact = end["sha256"] == hashlib.sha256(body).hexdigest()
    except (ValueError, TypeError, KeyError, RecursionError):
        intact = False
    if not intact:
        raise DamagedFile(f"{path}: damaged recording (its checksum does not match its content)")
    return body, end


def _encoded(array: np.ndarray) -> str:
    return base64.b64encode(array.astype("<f4").tobytes()).decode()


def _state(content: dict[str, Any], task: Task) -> DreamState:
    from wm_tf.dream.world import DreamState

    sizes = (task.latent_size, task.hidden_size, task.hidden_size)
    arrays = {
        name: np.frombuffer(base64.b64decode(content[name]), "<f4").reshape(1, size)
        for name, size in zip(_ARRAYS, sizes, strict=True)
    }
    return DreamState(**arrays, seed=_count(content["seed"]), step=_count(content["step"]))
