"""manifest.json: what a folder of SavedModels is, and the checksum of every other file in it.

Keys: ``format_version``, ``task``, ``environment`` {id, version, settings}, ``latent_size``,
``hidden_size``, ``mixtures``, ``action_size``, ``steps_per_second``, ``end``, ``temperature``,
``preset``, ``config``, ``packages``, ``files`` {path: sha256}, ``training`` {what, seconds,
seeds, machine, earlier_machines (of models that a run began with; null where unknown)}, ``scores``
[{env, frames, seed, episodes, mean, std, se, min, max, command}], and the ``sha256`` of the
manifest itself that `wm_tf.storage.write_json` adds.

How a dream ends stands in ``end`` {rule, value, odds_correction}. The end head is trained with the
rare ending steps weighted w-fold, which multiplies the odds that it predicts by w. The exported
signatures know nothing of that: ``done_probability`` is sigmoid(done_logit), as trained. Every
consumer first takes w (``odds_correction``, 1 for an unweighted loss) out of the odds,

    p = q / (q + w (1 - q)),        q = done_probability

and then applies the rule:

* ``never``: the dream goes on until its horizon; ``value`` is null.
* ``threshold``: it ends where p > ``value``, in (0, 1).
* ``sampled``: it ends with probability p; ``value`` is null.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from wm_tf import storage
from wm_tf.config import TASKS, Task, get_task
from wm_tf.errors import DamagedFile, UserError
from wm_tf.serving import contract

FORMAT_VERSION = 1
FILE_NAME = "manifest.json"
LATER = "then "
"""Once before the name of a stage for each time that a run went on from imported models."""

EndRuleName = Literal["never", "threshold", "sampled"]

_PACKAGES = ("wm-tf", "tensorflow", "keras", "numpy", "gymnasium", "vizdoom")
_SIZES = ("latent_size", "hidden_size", "mixtures", "action_size", "steps_per_second")
REQUIRED_FILES = (
    *(contract.model_file(model) for model in ("vision", "memory")),
    "initial_latents.npz",
)
_KEYS: Mapping[str, type | tuple[type, ...]] = {
    "environment": dict,
    **dict.fromkeys(_SIZES, int),
    "end": dict,
    "temperature": (int, float),
    "preset": str,
    "config": dict,
    "packages": dict,
    "files": dict,
    "training": dict,
    "scores": list,
}


@dataclass(frozen=True)
class EndRule:
    """How a dream ends; see the module's docstring.

    Raises:
      ValueError: an unknown rule, or a value that does not go with it.
    """

    rule: EndRuleName = "never"
    value: float | None = None
    odds_correction: float = 1.0

    def __post_init__(self) -> None:
        accepted = get_args(EndRuleName)
        if self.rule not in accepted:
            raise ValueError(f"end rule: expected one of {', '.join(accepted)}, got {self.rule!r}")
        if self.rule == "threshold":
            if not _is_number(self.value) or not 0.0 < self.value < 1.0:  # type: ignore[operator]
                raise ValueError(f"end value: expected a number in (0, 1), got {self.value!r}")
        elif self.value is not None:
            raise ValueError(f"end value: expected null for {self.rule!r}, got {self.value!r}")
        if not _is_number(self.odds_correction) or not 0.0 < self.odds_correction < math.inf:
            raise ValueError(
                f"end odds_correction: expected a positive number, got {self.odds_correction!r}"
            )

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> EndRule:
        """The rule that stands in a manifest."""
        end = manifest["end"]
        if "rule" not in end:
            raise ValueError(f"end: expected {{rule, value, odds_correction}}, got {end!r}")
        return cls(end["rule"], end.get("value"), end.get("odds_correction", 1.0))

    def as_dict(self) -> dict[str, Any]:
        return {"rule": self.rule, "value": self.value, "odds_correction": self.odds_correction}


@dataclass(frozen=True)
class Facts:
    """What an export is told about the models beside their weights.

    Raises:
      ValueError: a temperature that is not positive.
    """

    environment: Mapping[str, Any]
    """{"id", "version", "settings"} of the official environment."""
    end: EndRule = field(default_factory=EndRule)
    temperature: float = 1.0
    """Temperature at which the dream is played unless one asks for another."""
    preset: str = "desktop"
    config: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    """{"what", "seconds", "seeds"}, and whatever else a reader of the card should know."""
    scores: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        if not 0.0 < self.temperature < math.inf:
            raise ValueError(f"temperature: expected a positive number, got {self.temperature}")


def build(task: Task, facts: Facts) -> dict[str, Any]:
    """The content of a manifest of no files yet."""
    return {
        "format_version": FORMAT_VERSION,
        "task": task.name,
        "environment": dict(facts.environment),
        **{size: getattr(task, size) for size in _SIZES},
        "end": facts.end.as_dict(),
        "temperature": facts.temperature,
        "preset": facts.preset,
        "config": dict(facts.config),
        "packages": packages(),
        "training": dict(facts.training),
        "scores": [dict(score) for score in facts.scores],
        "files": {},
    }


def packages() -> dict[str, str]:
    """The versions of Python and of the packages that shape a model's numbers."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def machine() -> dict[str, Any]:
    """What this machine computes with: ``processor``, ``cores`` that may be used, ``system``."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    allowed = getattr(os, "sched_getaffinity", None)
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": len(allowed(0)) if allowed else os.cpu_count(),
        "system": platform.system(),
    }


def read(folder: Path, task: str) -> dict[str, Any]:
    """The manifest of `folder`, which must be of `task` and of a format that is known here.

    Raises:
      DamagedFile: it is missing, altered, of another task or of another format version.
    """
    path = folder / FILE_NAME
    content = storage.read_json(path)
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        newer = isinstance(version, int) and version > FORMAT_VERSION
        hint = " (a newer wm_tf reads it)" if newer else ""
        raise DamagedFile(f"{path}: format version {version!r}, expected {FORMAT_VERSION}{hint}")
    if content.get("task") != task:
        raise DamagedFile(f"{path}: models of task {content.get('task')!r}, expected {task!r}")
    for key, kind in _KEYS.items():
        if not isinstance(content.get(key), kind):
            raise DamagedFile(f"{path}: key {key!r} is missing or of the wrong type")
    for size in _SIZES:
        if content[size] != getattr(get_task(task), size):
            expected = getattr(get_task(task), size)
            raise DamagedFile(f"{path}: {size} {content[size]}, expected {expected}")
    if not 0.0 < content["temperature"] < math.inf:
        temperature = content["temperature"]
        raise DamagedFile(f"{path}: temperature {temperature}, expected a positive number")
    try:
        EndRule.of(content)
    except ValueError as error:
        raise DamagedFile(f"{path}: {error}") from None
    return content


def read_verified(folder: Path, task: str) -> dict[str, Any]:
    """As `read`, after comparing every file that the manifest names with its checksum.

    Raises:
      DamagedFile: as `read` and `check_file`.
    """
    content = read(folder, task)
    for name in REQUIRED_FILES:
        if name not in content["files"]:
            raise DamagedFile(f"{folder / FILE_NAME}: does not list {name} (incomplete models)")
    for name in content["files"]:
        check_file(folder, name, content["files"][name])
    return content


def checksum(folder: Path) -> str:
    """The checksum of a folder's manifest, which names everything in the folder.

    Raises:
      DamagedFile: there is no manifest.
    """
    return storage.sha256(folder / FILE_NAME)


def models_checksum(content: Mapping[str, Any]) -> str:
    """Names V, M and C by the checksums of their files, whatever else a manifest says."""
    files = content["files"].items()
    models = [pair for pair in sorted(files) if pair[0].split("/")[0] in contract.SIGNATURES]
    return hashlib.sha256(json.dumps(models).encode()).hexdigest()


def checksums(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file below `folder` but the manifest, by path with forward slashes."""
    return {
        path.relative_to(folder).as_posix(): storage.sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / FILE_NAME
    }


def check_file(folder: Path, name: str, digest: str) -> None:
    """Compares one file with its checksum in the manifest.

    Raises:
      DamagedFile: it is missing, lies outside the folder or is not what was exported.
    """
    path = folder / name
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise DamagedFile(f"{folder / FILE_NAME}: names {name!r}, which lies outside the folder")
    if storage.sha256(path) != digest:
        raise DamagedFile(f"{path}: damaged (its checksum is not the one in {FILE_NAME})")


def find_models(models: Path | str, task: str) -> Path:
    """The folder of a task's models.

    Args:
      models: a folder such as ``saved_models``; a relative one is that of the current folder, or
        the checkout's where there is none with models.
      task: the task's name.

    Raises:
      UserError: an unknown task, or no such folder in any of the places.
    """
    get_task(task)
    models = Path(models)
    checkout = Path(__file__).resolve().parents[2]
    places = [models] if models.is_absolute() else [Path.cwd() / models, checkout / models]
    held: list[str] = []
    for place in places:
        # `isdir`, unlike Path's, is False for a name that is too long.
        held = sorted(name for name in TASKS if os.path.isdir(place / name))
        if task in held:
            return place / task
        if held:  # the models of one folder are not mixed with those of another
            places = [place]
            break
    tried = " nor ".join(str(place / task) for place in dict.fromkeys(places))
    there = f"; models {models} has: {', '.join(held)}" if held else ""
    raise UserError(f"no models of task {task!r}: there is no folder {tried}{there}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
