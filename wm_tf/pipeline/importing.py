"""Begins a run with published models: V, M and C as if its first round had trained them."""

from __future__ import annotations

from pathlib import Path

from wm_tf import storage
from wm_tf.errors import UserError
from wm_tf.evolution.train import save_initial
from wm_tf.pipeline.run import LEARNING_STAGES, Run, Values
from wm_tf.serving import manifest
from wm_tf.serving.initial import InitialLatents
from wm_tf.serving.load import load_keras
from wm_tf.serving.manifest import EndRule
from wm_tf.training import checkpoint
from wm_tf.training.memory import make_memory
from wm_tf.training.vision import make_vision

_MANIFEST = "imported.json"


def import_models(run: Run, models: Path) -> None:
    """Takes published models for those of the run's round 0; later rounds go on from them.

    The optimisers begin anew: SavedModels do not hold their state. The run's episodes are its own.

    Raises:
      UserError: the run has other models already, or there are none in `models`. The same ones are
        written again, whatever the run has made of them.
      DamagedFile: the models are damaged.
    """
    task, seed, stages = run.config.task, run.config.seed, run.config.round(0)
    folder = manifest.find_models(models, task.name)
    published = manifest.read_verified(folder, task.name)
    trained_vision, trained_memory, controller = load_keras(models, task.name)
    starts = InitialLatents.read(folder, task)
    inputs = {"imported": manifest.checksum(folder)}
    _check_free(run, inputs, controller is not None)
    run.begin()

    vision, memory = make_vision(task, stages.vision, seed), make_memory(task, stages.memory, seed)
    end = EndRule.of(published)
    rule = {
        "end_rule": end.rule, "end_value": end.value, "end_odds_correction": end.odds_correction
    }  # fmt: skip
    starts.write(run.folder)
    storage.write_json(run.folder / _MANIFEST, published)
    for name, model, trained, extra in (
        ("vision", vision, trained_vision, {}),
        ("memory", memory, trained_memory, rule),
    ):
        model.set_weights(trained.get_weights())
        path = run.checkpoint(name, 0)
        checkpoint.save(path, model, {"task": task.name, **inputs, "epochs": 0, "seconds": 0.0})
        seconds, figures = _history(published, name)
        run.adopt(name, 0, inputs, path, {**figures, **extra}, seconds)
    if controller is not None:
        path = run.checkpoint("controller", 0)
        save_initial(
            path, controller.parameters.numpy(), stages.controller, task=task, seed=seed,
            facts=inputs,
        )  # fmt: skip
        seconds, figures = _history(published, "controller")
        run.adopt("controller", 0, inputs, path, figures, seconds)


def imported_manifest(run: Run) -> Values:
    """The manifest of the models that a run began with; raises DamagedFile."""
    return storage.read_json(run.folder / _MANIFEST)


def _check_free(run: Run, inputs: Values, has_controller: bool) -> None:
    """Stages leave a record before their checkpoint: without one they are a killed import's."""
    imported = ("vision", "memory", *(["controller"] if has_controller else []))
    places = [(name, 0) for name in imported]
    if run.record("vision", 0) is None:
        rounds = range(max(run.rounds(), 1))
        places = [(name, index) for name in LEARNING_STAGES for index in rounds]
    records = [run.record(name, index) for name, index in places]
    if any(record is not None and record["inputs"] != inputs for record in records):
        raise UserError(f"{run.folder}: expected a run without models, this one has some")


def _history(published: Values, model: str) -> tuple[float, Values]:
    """(seconds of all trainings of a model, the figures of the last one) by its manifest."""
    stages = published["training"].get("stages", {})
    records = [
        record
        for name, record in stages.items()
        if name.rsplit(manifest.LATER, 1)[-1].startswith(f"{model}-")
    ]
    figures = dict(records[-1]) if records else {}
    figures.pop("seconds", None)
    return sum(record["seconds"] for record in records), figures
