"""What is in a task's folder of models and where its scores come from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wm_tf.serving import card, contract, manifest


def info(models: Path | str, task: str) -> dict[str, Any]:
    """The manifest's facts, beside the folder, its models with their signatures, and its size.

    Raises:
      UserError, DamagedFile: there is no folder, or its manifest cannot be used.
    """
    folder = manifest.find_models(models, task)
    content = manifest.read(folder, task)
    names = [name for name in contract.SIGNATURES if contract.model_file(name) in content["files"]]
    files = [folder / name for name in content["files"] if os.path.isfile(folder / name)]
    return {
        "folder": str(folder),
        "models": {name: list(contract.SIGNATURES[name]) for name in names},
        "bytes": sum(path.stat().st_size for path in files),
        **{key: value for key, value in content.items() if key != "files"},
    }


def print_info(facts: Mapping[str, Any]) -> None:
    """Shows what `info` returned as two tables: the models, and their scores."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False)  # a path may have brackets
    table = Table(title=f"Models of {facts['task']}", box=box.SIMPLE, show_header=False)
    table.add_column()
    table.add_column(overflow="fold")  # a path is shown whole
    for name, value in _rows(facts).items():
        table.add_row(name, value)
    console.print(table)
    if not facts["scores"]:
        console.print("These models have not been scored.")
        return
    scores = Table(title="Scores", box=box.SIMPLE)
    for name in ("where", "episodes", "mean +/- std", "standard error"):
        scores.add_column(name)
    for score in facts["scores"]:
        error = score.get("se")
        scores.add_row(
            card.place(score),
            str(score.get("episodes", "")),
            card.mean_and_deviation(score),
            "" if error is None else f"{error:.1f}",
        )
    console.print(scores)
    for score in facts["scores"]:  # outside of the table: to be copied whole
        console.print(score.get("command", ""), soft_wrap=True, highlight=False)


def _rows(facts: Mapping[str, Any]) -> dict[str, str]:
    environment, end, training = facts["environment"], facts["end"], facts["training"]
    value = "" if end.get("value") is None else f" {end['value']:g}"
    sizes = ("latent_size", "hidden_size", "mixtures", "action_size")
    rows = {
        "folder": facts["folder"],
        **{name: ", ".join(signatures) for name, signatures in facts["models"].items()},
        "size": f"{facts['bytes'] / 1e6:.1f} MB",
        "environment": f"{environment.get('id', '')} {environment.get('version', '')}",
        "sizes": ", ".join(f"{name.replace('_', ' ')} {facts[name]}" for name in sizes),
        "a dream's end": f"{end['rule']}{value}",
        "temperature": f"{facts['temperature']:g}",
        "preset": facts["preset"],
        "packages": card.versions(facts["packages"]),
    }
    if "what" in training:
        rows["training"] = str(training["what"])
    if "seconds" in training:
        rows["time"] = f"{training['seconds'] / 60:.0f} minutes"
    if "machine" in training:
        rows["machine"] = card.machine(training["machine"])
    return rows
