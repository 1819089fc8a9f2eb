"""A run's SavedModels: its own `exports/` between the stages, and the published best."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from wm_tf import agent, seeding, storage
from wm_tf.data.episodes import read_episode
from wm_tf.envs import task_module
from wm_tf.errors import UserError
from wm_tf.models import Controller, Memory
from wm_tf.pipeline import pictures
from wm_tf.pipeline.checkpoints import (
    controllers,
    load_memory,
    load_vision,
    networks,
)
from wm_tf.pipeline.dataset import encode_rounds, held_out_part
from wm_tf.pipeline.ends import end_rule
from wm_tf.pipeline.importing import imported_manifest
from wm_tf.pipeline.run import CONTROLLER_STAGES, LEARNING_STAGES, Run, Values, array_digest
from wm_tf.seeding import Purpose
from wm_tf.serving import manifest
from wm_tf.serving.export import export
from wm_tf.serving.initial import InitialLatents
from wm_tf.serving.load import load_keras
from wm_tf.training.starts import choose_starts

STAGES = ("collect", *LEARNING_STAGES)
"""The stages that leave a record, in the order of a round."""
START_MOMENTS = 1024
"""Real moments that an export holds for dreams to start from."""
_GONE_ON = "; gone on from there"


def export_round(run: Run, round_index: int, controller: np.ndarray | None) -> None:
    """Writes the run's exports: V and M as of a round, and C where there is one.

    Nothing is written if the exports are these already.
    """
    _renew(run, run.exports, round_index, controller)


def export_members(run: Run, members: Sequence[int]) -> tuple[agent.ModelsAt, ...]:
    """The run's exports, which are of the last of some rounds, and those of the others."""
    for index in members[:-1]:
        _renew(run, run.member(index), index, None)
    folders = (run.exports, *map(run.member, members[:-1]))
    return tuple(_models_at(run, folder) for folder in folders)


def publish(run: Run, out: Path) -> Path:
    """Exports the run's best controller, with the V and M that it was evolved for, to `out`.

    Best is the highest mean on the selection seeds. The model card gets a contact sheet, if the run
    has an episode to show, the training curve and, where there was one with these V and M, the
    picture of the sweep of temperatures. Without a controller, the last V and M are exported.

    Returns:
      The task's folder in `out`.

    Raises:
      UserError: what is in its place is no exported models, or `out` is the run's own folder; or
        without a controller, the last M was trained on what another V sees.
    """
    _check_place(run, out)
    made = controllers(run)
    best = max(made, key=lambda found: found.selection) if made else None
    round_index = run.rounds() - 1 if best is None else best.round_index
    made_from = networks(run, round_index)
    assets = {}
    folders = (run.rollouts(index) for index in range(round_index + 1))
    if any(any(folder.glob("episode-*.npz")) for folder in folders):  # an import alone has none
        assets["contact_sheet.png"] = draw_contact_sheet(run, round_index)
    tried = selections(run)
    if tried:
        assets["training.png"] = pictures.training_curve(run.config.task.name, tried)
    sweep = run.folder / pictures.SWEEP
    facts = sweep.with_suffix(".json")
    if facts.exists() and storage.read_json(facts).get("networks") == made_from:
        assets[pictures.SWEEP] = sweep.read_bytes()
    controller = None if best is None else best.parameters
    return _export(run, out, round_index, controller, assets)


def _check_place(run: Run, out: Path) -> None:
    """Raises UserError where an export would take the place of something else, or await itself."""
    place = out / run.config.task.name
    if out.resolve() == run.folder.resolve():
        raise UserError(f"--out {out}: expected another folder than the run's own")
    with contextlib.suppress(OSError):  # it will be told that it cannot be written
        if place.exists() and not (place / manifest.FILE_NAME).exists() and any(place.iterdir()):
            raise UserError(f"--out {out}: {place} holds something else than exported models")


def draw_contact_sheet(run: Run, round_index: int) -> bytes:
    """A PNG of what V and M of a round make of the first held-out episode."""
    vision, memory = load_vision(run, round_index), load_memory(run, round_index)
    task = run.config.task
    held_out = held_out_part(run.episodes(round_index))[0]
    starts = _starts(run, memory, round_index)
    return pictures.contact_sheet(task, vision, memory, starts, read_episode(held_out, task))


def selections(run: Run) -> list[tuple[float, float, float]]:
    """(generation since the run's beginning, mean, standard error) of every mean that was tried."""
    points: list[tuple[float, float, float]] = []
    before = 0.0
    for found in controllers(run):
        points += [(before + generation, mean, error) for generation, mean, error in found.tried]
        before = points[-1][0] if points else before
    return points


def exported_models(run: Run) -> agent.ModelsAt:
    """The run's exports; raises UserError if there are none."""
    return _models_at(run, run.exports)


def exported_config(run: Run, exports: Path | None = None) -> Values | None:
    """What exports (None: the run's) were made from, see `_config`; None where there are none."""
    folder = (exports or run.exports) / run.config.task.name
    if not (folder / manifest.FILE_NAME).exists():
        return None
    return dict(manifest.read(folder, run.config.task.name)["config"])


def controller_of(models: Path, task: str) -> np.ndarray:
    """The parameters of the controller in a folder of models."""
    _, _, controller = load_keras(models, task)
    if controller is None:
        raise UserError(f"{models}: there is no controller of {task} in these models")
    return controller.parameters.numpy().astype(np.float64)


def stage_records(run: Run, round_index: int) -> dict[str, Values]:
    """The records of the finished stages up to a round, by name and round."""
    return {
        f"{name}-{index:02d}": record
        for index in range(round_index + 1)
        for name in STAGES
        if (record := run.stage_record(name, index)) is not None
    }


def _models_at(run: Run, exports: Path) -> agent.ModelsAt:
    return agent.ModelsAt.now(manifest.find_models(exports.resolve(), run.config.task.name))


def _renew(run: Run, exports: Path, round_index: int, controller: np.ndarray | None) -> None:
    if exported_config(run, exports) != _config(run, round_index, controller):
        _export(run, exports, round_index, controller, {})


def _history(run: Run, round_index: int) -> tuple[Values, Values]:
    """What a manifest says of the training, and of each stage's inputs.

    The stages of imported models come first; the episodes that a run played with them count from
    the M that was trained on them.
    """
    records = stage_records(run, round_index)
    training: Values = {
        "what": f"{run.config.preset} preset, {round_index + 1} rounds",
        "seconds": 0.0,
        "seeds": {"run": run.config.seed},
        "machine": manifest.machine(),
        "stages": {},
    }
    inputs: Values = {}
    prefix = ""
    if run.adopted("memory", 0):
        published = imported_manifest(run)
        before = published["training"]
        what = before.get("what", "published models")
        training["what"] = what if what.endswith(_GONE_ON) else what + _GONE_ON
        training["seconds"] = before.get("seconds", 0.0)
        training["stages"] |= before.get("stages", {})
        machines = [*before.get("earlier_machines", []), before.get("machine")]
        training["earlier_machines"] = [
            machine for machine in machines if machine != training["machine"]
        ]
        inputs |= published["config"].get("stages", {})
        unseen = _has_imported_memory(run, round_index)
        records = {
            name: record
            for name, record in records.items()
            if not record.get("adopted") and not (unseen and name.startswith("collect"))
        }
        prefix = manifest.LATER
        while any(prefix + name in training["stages"] for name in records):
            prefix = manifest.LATER + prefix
    for name, record in records.items():
        training["seconds"] += record["seconds"]
        training["stages"][prefix + name] = {**record["result"], "seconds": record["seconds"]}
        # Episodes, epochs or generations; a controller's "goal" is a return.
        inputs[prefix + name] = {"amount": record["goal"], **record["inputs"]}
    return training, inputs


def _export(
    run: Run,
    out: Path,
    round_index: int,
    controller: np.ndarray | None,
    assets: Mapping[str, bytes],
) -> Path:
    task = run.config.task
    memory = load_memory(run, round_index)
    training, _ = _history(run, round_index)
    facts = manifest.Facts(
        environment=task_module(task.name).ENVIRONMENT,
        end=end_rule(run, round_index),
        temperature=_temperature(run, round_index),
        preset=run.config.preset,
        config=_config(run, round_index, controller),
        training=training,
    )
    return export(
        out / task.name,
        task,
        vision=load_vision(run, round_index),
        memory=memory,
        controller=None if controller is None else Controller(task, controller),
        initial_latents=_starts(run, memory, round_index),
        facts=facts,
        assets=assets,
    )


def _config(run: Run, round_index: int, controller: np.ndarray | None) -> Values:
    """What exports were made from: files and rules, and each stage's inputs."""
    sources = {
        "vision": storage.stamp(run.required_checkpoint("vision", round_index)),
        "memory": storage.stamp(run.required_checkpoint("memory", round_index)),
        "controller": None if controller is None else array_digest(controller),
        "end": end_rule(run, round_index).as_dict(),
        "temperature": _temperature(run, round_index),
    }
    return {"sources": sources, "stages": _history(run, round_index)[1]}


def _temperature(run: Run, round_index: int) -> float:
    """That of the dreams in which the round's controller was evolved, or would be."""
    evolved = run.stage_record(CONTROLLER_STAGES["dream"], round_index)
    if evolved is not None and "temperature" in evolved["inputs"]:  # not imported
        return evolved["inputs"]["temperature"]
    if _has_imported_memory(run, round_index):
        return imported_manifest(run)["temperature"]
    return run.config.round(round_index).controller.temperature


def _has_imported_memory(run: Run, round_index: int) -> bool:
    last = run.last_checkpoint("memory", round_index)
    return last == run.checkpoint("memory", 0) and run.adopted("memory", 0)


def _starts(run: Run, memory: Memory, round_index: int) -> InitialLatents:
    """Of the run's episodes; imported models keep theirs until the run trains M itself."""
    if _has_imported_memory(run, round_index):
        return InitialLatents.read(run.folder, run.config.task)
    latents = encode_rounds(run, round_index)
    random = seeding.generator(run.config.seed, Purpose.MEMORY, round_index, 1)
    return choose_starts(memory, latents, run.config.task, count=START_MOMENTS, random=random)
