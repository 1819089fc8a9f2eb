"""Renews what depends on trained models: golden outputs, pictures, cards and the README's scores.

    python -m wm_tf evaluate car_racing --seed 7 --json score.json
    python -m wm_tf renew saved_models --scores score.json

The models themselves stay as they are. The README is the one beside a folder of the name
``saved_models``; what stands between its two markers is made anew, and so is its animation of the
player. Models in another folder are not those that it speaks of.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wm_tf import agent, storage
from wm_tf.data.episodes import Episode, read_episode
from wm_tf.errors import RunFailed, UserError
from wm_tf.evaluate import read_json
from wm_tf.progress import Progress
from wm_tf.seeding import Purpose
from wm_tf.serving import card, folder, golden, manifest
from wm_tf.serving.load import Models, load
from wm_tf.serving.verify import tasks_in

GIF = "dream.gif"
DRIVE = Path("player") / "pictures" / "dream.gif"
"""Of the README: car_racing in the player."""
PUBLISHED = "saved_models"
"""The folder of the models that the README speaks of."""
BEGIN, END = "<!-- scores, by python -m wm_tf renew -->", "<!-- end of scores -->"

_OPTIONS = ("frames", "precision", "temperature")
_SUMMARY = ("mean", "std", "se", "min", "max")


def renew(models: Path, results: Sequence[Path] = ()) -> None:
    """Renews everything that depends on the models of a folder such as ``saved_models``.

    Args:
      models: the folder, see `manifest.find_models`.
      results: files of ``evaluate --json``; they replace the scores of the tasks that they are of.

    Raises:
      UserError, DamagedFile: there are no sound models, or results that cannot be used.
      RunFailed: something cannot be written.
    """
    tasks = tasks_in(models)
    scores = _scores(results, tasks, models)
    folders = []
    with Progress("renew", len(tasks), "tasks") as progress:
        for task in tasks:
            loaded = load(models, task)
            assets = {golden.FILE_NAME: _golden(loaded), GIF: _real_beside_dream(loaded)}
            folders.append(folder.renew(models, task, scores=scores.get(task), assets=assets))
            progress.advance()
    for checkout in {place.parent.parent for place in folders if place.parent.name == PUBLISHED}:
        _renew_readme(
            checkout / "README.md", [manifest.read(place, place.name) for place in folders]
        )
        if "car_racing" in tasks and (checkout / DRIVE).is_file():
            _drive(checkout / DRIVE, models)


def score_table(manifests: Sequence[Mapping[str, Any]]) -> str:
    """The scores of some manifests as Markdown: a table, and the commands that give them again."""
    rows = [(content["task"], score) for content in manifests for score in content["scores"]]
    if not rows:
        return "The models have not been scored."
    lines = ["| models | where | episodes | mean ± standard deviation | standard error |"]
    lines.append("|---|---|---|---|---|")
    for task, score in rows:
        figures = f"{score['mean']:.0f} ± {score['std']:.0f} | {score['se']:.0f}"
        lines.append(f"| {task} | {card.place(score)} | {score['episodes']} | {figures} |")
    commands = [score["command"] for _, score in rows]
    return "\n".join([*lines, "", "```", *commands, "```"])


def _scores(
    results: Sequence[Path], tasks: Sequence[str], models: Path
) -> dict[str, list[dict[str, Any]]]:
    """Results by their task, as manifests hold them."""
    scores: dict[str, list[dict[str, Any]]] = {}
    for path in results:
        result = read_json(path)
        if result["task"] not in tasks:
            accepted = ", ".join(tasks)
            raise UserError(f"{path}: expected a score of {accepted}, got {result['task']!r}")
        if result["policy"] == "random":
            raise UserError(f"{path}: a score of the random policy, expected the controller's")
        task = result["task"]
        held = manifest.read(manifest.find_models(models, task), task)
        if result.get("models", manifest.models_checksum(held)) != manifest.models_checksum(held):
            raise UserError(f"{path}: a score of other models than those in {models}")
        scores.setdefault(task, []).append(_score(result))
    return scores


def _score(result: Mapping[str, Any]) -> dict[str, Any]:
    environment = result["env"]
    options = {
        "env": environment["name"],
        **{name: environment[name] for name in _OPTIONS if name in environment},
        "episodes": result["episodes"],
        "seed": result["seed"],
    }
    flags = " ".join(f"--{name} {value}" for name, value in options.items())
    return {
        **options,
        **{name: result[name] for name in _SUMMARY},
        "command": f"python -m wm_tf evaluate {result['task']} {flags}",
    }


def _golden(models: Models) -> bytes:
    with tempfile.TemporaryDirectory() as place:
        golden.write(Path(place), models.task, models.calls)
        return (Path(place) / golden.FILE_NAME).read_bytes()


def _real_beside_dream(models: Models) -> bytes:
    from wm_tf.dream.world import Dream
    from wm_tf.pipeline import pictures

    seconds = pictures.FOLLOWED_SECONDS + pictures.DREAMT_SECONDS
    episode = _first_episode(models, seconds * models.task.steps_per_second)
    return pictures.real_beside_dream(Dream(models), episode)


def _first_episode(models: Models, steps: int) -> Episode:
    """How the first episode of ``evaluate --seed 0`` begins; without a controller, at random."""
    task, located = models.task, None
    if models.has_controller:
        located = agent.ModelsAt.now(models.folder)
    with tempfile.TemporaryDirectory() as place:
        record = Path(place) / "episode.npz"
        rollout = agent.Rollout(0, (int(Purpose.EVALUATION), 0), record=record)
        agent.play(agent.Chunk(task.name, (rollout,), steps, located))
        return read_episode(record, task)


def _drive(film: Path, models: Path) -> None:
    """The player's own animation; a process of its own, because this library never imports it."""
    command = [sys.executable, "-m", "player", "car_racing", "--headless"]
    done = subprocess.run(
        [*command, "--models", str(models), "--gif", str(film)], capture_output=True, text=True
    )
    if done.returncode:
        raise RunFailed(f"{' '.join(command)}: {done.stderr.strip()}")


def _renew_readme(readme: Path, manifests: Sequence[Mapping[str, Any]]) -> None:
    """Puts the scores between the README's markers, where it has them."""
    if not readme.is_file():
        return
    text = readme.read_text(encoding="utf-8")
    block = f"{BEGIN}\n{score_table(manifests)}\n{END}"
    pattern = f"{re.escape(BEGIN)}.*?{re.escape(END)}"
    renewed = re.sub(pattern, lambda _: block, text, flags=re.DOTALL)
    if renewed != text:
        storage.write_bytes(readme, renewed.encode())
