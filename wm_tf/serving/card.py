"""README.md of a task's folder: a model card in Hugging Face's form, made from the manifest."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from wm_tf.config import TASKS, CollectConfig, completed
from wm_tf.serving import contract
from wm_tf.serving.manifest import LATER, EndRule

FILE_NAME = "README.md"

_MODELS: Mapping[str, str] = {
    "vision": "V (a variational autoencoder)",
    "memory": "M (a mixture-density LSTM)",
    "controller": "C (a {controller})",
}
_PLAYERS: Mapping[str, str] = {
    "random": "the task's exploring policy, which is random",
    "controller": "controllers of the round before",
}
_ACTIONS: Mapping[str, str] = {
    "car_racing": "steering from -1 to 1 (right), gas and brake from 0 to 1",
    "take_cover": "from -1 to 1, where less than -1/3 steps left and more than 1/3 right",
}
_LICENCES: Mapping[str, str] = {
    "car_racing": "The environment: gymnasium (MIT) and Box2D (zlib).",
    "take_cover": "The environment: ViZDoom (MIT), whose engine ZDoom has licences of its own, and "
    "Freedoom's graphics (BSD).",
}
_IMAGES: Mapping[str, str] = {
    "contact_sheet.png": "Real frames, their reconstructions and frames dreamt under held keys",
    "training.png": "Training curves",
    "sweep.png": "Scores in the dream and in the real task, by the temperature of the dreams",
    "dream.gif": "Real frames beside the dream under the same actions",
}
"""Images that a card shows where they are in the folder, with the text that stands for them."""


def render(manifest: Mapping[str, Any], files: Collection[str]) -> str:
    """The card's text.

    Args:
      manifest: its content; ``files`` is not used.
      files: paths of the files in the folder: they tell which models and images there are.
    """
    models = [name for name in contract.SIGNATURES if contract.model_file(name) in files]
    sections = [
        _header(manifest),
        _introduction(manifest, models),
        *(f"![{text}]({name})" for name, text in _IMAGES.items() if name in files),
        _scores(manifest["scores"]),
        _environment(manifest["environment"]),
        _data(manifest),
        _training(manifest),
        _signatures(manifest, models),
        _use(manifest),
        _limits(),
        _licences(manifest),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _header(manifest: Mapping[str, Any]) -> str:
    """The YAML block; JSON's strings are YAML's, so no name or command can break out of it."""
    lines = [
        "---",
        "license: mit",
        "library_name: tensorflow",
        "pipeline_tag: reinforcement-learning",
        "tags:",
        *(f"- {tag}" for tag in ("world-models", "reinforcement-learning", "keras")),
        f"- {_method(manifest)}",
        f"- {_quoted(manifest['environment'].get('id', ''))}",
    ]
    real = [score for score in manifest["scores"] if score.get("env") == "real"]
    if real:
        lines += [
            "model-index:",
            f"- name: {_quoted('wm_tf ' + manifest['task'])}",
            "  results:",
        ]
        for score in real:
            lines += _result(manifest, score)
    return "\n".join([*lines, "---"])


def _method(manifest: Mapping[str, Any]) -> str:
    """How the controller was trained last, as a tag."""
    return "ppo" if _last_controller(manifest).get("method") == "gradients" else "cma-es"


def _last_controller(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the stage was made from that trained the controller last; empty where none is told."""
    stages = manifest["config"].get("stages", {})
    return [{}, *(stage for name, stage in stages.items() if "controller" in name)][-1]


def _result(manifest: Mapping[str, Any], score: Mapping[str, Any]) -> list[str]:
    environment = _quoted(manifest["environment"].get("id", ""))
    return [
        "  - task:",
        "      type: reinforcement-learning",
        "      name: reinforcement-learning",
        "    dataset:",
        f"      name: {environment}",
        f"      type: {environment}",
        "    metrics:",
        "    - type: mean_reward",
        f"      value: {_quoted(mean_and_deviation(score))}",
        "      name: mean_reward",
        "      verified: false",
    ]


def _introduction(manifest: Mapping[str, Any], models: Collection[str]) -> str:
    environment = manifest["environment"]
    version = environment.get("version", "unknown version")
    hidden = _last_controller(manifest).get("hidden", 0)
    controller = f"controller with {hidden} hidden units" if hidden else "linear controller"
    there = " and ".join(text for name, text in _MODELS.items() if name in models)
    there = there.format(controller=controller)
    return (
        f"# World model of `{manifest['task']}`\n\n"
        f"{there}, after Ha & Schmidhuber, *World Models* (arXiv 1803.10122), of the environment "
        f"`{environment.get('id', 'unknown')}` ({version}). M dreams: from a latent vector and an "
        "action it predicts the next latent vector, the reward and the end of the episode, "
        f"{manifest['steps_per_second']} steps to a second of the task."
    )


def _scores(scores: Sequence[Mapping[str, Any]]) -> str:
    if not scores:
        return "## Scores\n\nThese models have not been scored."
    rows = [
        "## Scores",
        "",
        "| where | episodes | mean +/- std | standard error | min | max | command |",
        "|---|---|---|---|---|---|---|",
    ]
    for score in scores:
        figures = " | ".join(_figure(score.get(key)) for key in ("se", "min", "max"))
        rows.append(
            f"| {place(score)} | {score.get('episodes', '')} | {mean_and_deviation(score)} "
            f"| {figures} | `{score.get('command', '')}` |"
        )
    return "\n".join(rows)


def _environment(environment: Mapping[str, Any]) -> str:
    settings = environment.get("settings", {})
    lines = ["## Environment", ""]
    lines.append(
        f"`{environment.get('id', 'unknown')}`, version {environment.get('version', '?')}."
    )
    return "\n".join([*lines, *(f"- {name}: {_plain(value)}" for name, value in settings.items())])


def _data(manifest: Mapping[str, Any]) -> str:
    """How many episodes were played for these models, and by whom; nothing where none is told."""
    played = manifest["training"].get("stages", {})
    most: dict[str, int] = {}  # of the same games, which a run that began with models plays again
    lines = []
    for name, stage in manifest["config"].get("stages", {}).items():
        if "collect" not in name:
            continue
        amount = _amount(stage)
        inputs = completed(stage, like=vars(CollectConfig()))
        rest = {key: value for key, value in inputs.items() if key not in ("amount", "goal")}
        games = repr([name.rsplit(LATER, 1)[-1], sorted(rest.items())])
        if amount > most.get(games, 0):
            most[games] = amount
            steps = played.get(name, {}).get("steps")
            lines.append(
                f"- {amount} episodes by {_PLAYERS[inputs['policy']]}"
                + (", who went on after each death" if inputs["immortal"] else "")
                + (f", {steps:,} steps" if steps is not None else "")
            )
    if not lines:
        return ""
    return "\n".join(["## Data", "", "Played for these models, in this order:", *lines])


def _amount(stage: Mapping[str, Any]) -> int:
    """Of episodes; older manifests call it the goal."""
    return stage["amount"] if "amount" in stage else stage["goal"]


def _training(manifest: Mapping[str, Any]) -> str:
    facts = dict(manifest["training"])
    stages = facts.pop("stages", {})
    if "seconds" in facts:
        facts["time"] = f"{facts.pop('seconds') / 60:.0f} minutes of computing"
    if "machine" in facts:
        facts["machine"] = machine(facts["machine"])
    if earlier := facts.pop("earlier_machines", []):
        facts["earlier machines"] = "; ".join(
            machine(known) if known else "not recorded" for known in earlier
        )
    facts["packages"] = versions(manifest["packages"])
    lines = ["## Training", "", f"Preset `{manifest['preset']}`."]
    lines += [f"- {key}: {_plain(value)}" for key, value in facts.items()]
    if any(name.startswith(LATER) for name in stages):
        lines += ["", "Each run went on from the models of the one before (`import-models`)."]
    if stages:
        lines += ["", "| stage | minutes | figures (on held-out episodes) |", "|---|---|---|"]
        lines += [_stage(name, dict(figures)) for name, figures in stages.items()]
    return "\n".join(lines)


def _stage(name: str, figures: dict[str, Any]) -> str:
    minutes = figures.pop("seconds", 0.0) / 60
    numbers = ", ".join(
        f"{key.replace('_', ' ')} {_number(value)}"
        for key, value in figures.items()
        if isinstance(value, int | float)
    )
    runs = name.count(LATER)
    stage = f"run {runs + 1}: {name.removeprefix(runs * LATER)}" if runs else name
    return f"| {stage} | {minutes:.1f} | {numbers} |"


def _number(value: float) -> str:
    """Counts whole; the first manifests hold them as 11280.0."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def _signatures(manifest: Mapping[str, Any], models: Collection[str]) -> str:
    task = TASKS[manifest["task"]]
    lines = [
        "## Signatures",
        "",
        "Stateless TensorFlow SavedModels with any number of rows (B), laid out as TensorFlow "
        "Serving loads them. `serving_default` is the first signature of each model.",
        "",
        "| model | signature | inputs | outputs |",
        "|---|---|---|---|",
    ]
    for model in models:
        for name, signature in contract.SIGNATURES[model].items():
            sides = (
                ", ".join(
                    f"`{tensor}` {kind.dtype} {_shape(kind.resolved(task))}"
                    for tensor, kind in side.items()
                )
                for side in (signature.inputs, signature.outputs)
            )
            lines.append(f"| {model} | `{name}` | {' | '.join(sides)} |")
    return "\n".join([*lines, "", *_meanings(manifest)])


def _meanings(manifest: Mapping[str, Any]) -> list[str]:
    end = EndRule.of(manifest)
    weight = f"{end.odds_correction:g}"
    p = (
        "p"
        if weight == "1"
        else f"q, as trained on ends that counted {weight} times: p = q / (q + {weight} (1 - q))"
    )
    ends = {
        "never": "means nothing here, a dream goes on until its horizon",
        "threshold": f"{p}; a step ends the dream where p exceeds {end.value}",
        "sampled": f"{p}; a step ends the dream with probability p",
    }[end.rule]
    task = manifest["task"]
    return [
        "- `frame`: RGB, a part of the picture averaged down (see Environment); decoded, 0 to 1.",
        "- `latent`: `mean + exp(log_variance / 2) * noise`, the noise standard normal. M and C "
        "have learnt with it, and know `mean` alone less well.",
        *([f"- `action`: {_ACTIONS[task]}."] if task in _ACTIONS else []),
        "- `h`, `c`: M's state, zeros where an episode begins. `initial_latents.npz` has `mean` "
        "and `log_variance` of beginnings and, with their `h` and `c`, of later moments.",
        f"- `temperature`: {manifest['temperature']:g} unless you know better.",
        "- `seed`: of the dream, and the number of its step.",
        "- `reward`: what M expects of the step.",
        f"- `done_probability`: {ends}.",
    ]


def _use(manifest: Mapping[str, Any]) -> str:
    task = TASKS[manifest["task"]]
    return (
        "## Intended use\n\n"
        "To play in the dream, to train agents in it, and to study world models: research and "
        "teaching. Not for anything outside of this game.\n\n"
        "```python\n"
        "import gymnasium\nimport wm_tf\n\n"
        f'env = gymnasium.make("{task.dream}")\n'
        "observation, info = env.reset(seed=1)\n"
        "```\n\n"
        "or, with TensorFlow alone:\n\n"
        "```python\n"
        "import numpy as np\nimport tensorflow as tf\n\n"
        'memory = tf.saved_model.load("memory/1")\n'
        'starts = np.load("initial_latents.npz")\n'
        'mean, log_variance = starts["mean"][:1], starts["log_variance"][:1]  # a beginning\n'
        "latent = mean + np.exp(log_variance / 2) * np.random.standard_normal(mean.shape)\n"
        'dreamt = memory.signatures["dream"](\n'
        "    latent=tf.constant(latent, tf.float32),\n"
        f"    action=tf.zeros([1, {task.action_size}]),\n"
        f"    h=tf.zeros([1, {task.hidden_size}]),\n"
        f"    c=tf.zeros([1, {task.hidden_size}]),\n"
        f"    temperature=tf.constant({float(manifest['temperature'])}),\n"
        "    seed=tf.constant([1, 0]),\n"
        ")\n"
        "```"
    )


def _limits() -> str:
    return (
        "## Limits\n\n"
        "The models know what their episodes showed, no more: far from it a dream drifts, and a "
        "controller may find actions whose dreamt reward is not real. They say nothing about what "
        "is not this game."
    )


def _licences(manifest: Mapping[str, Any]) -> str:
    environment = _LICENCES.get(manifest["task"], "The environment has licences of its own.")
    return f"## Licences\n\nCode and weights: MIT. {environment}"


def mean_and_deviation(score: Mapping[str, Any]) -> str:
    """A score as the metric ``mean_reward`` is written."""
    return f"{score['mean']:.1f} +/- {score['std']:.1f}"


def place(score: Mapping[str, Any]) -> str:
    """Where a score was reached."""
    frames = f", {score['frames']} frames" if score.get("frames") else ""
    precision = f", {score['precision']}" if "precision" in score else ""
    temperature = f", temperature {score['temperature']:g}" if "temperature" in score else ""
    return f"{score.get('env', '')}{frames}{precision}{temperature}, seed {score.get('seed', '')}"


def machine(facts: Mapping[str, Any]) -> str:
    """A machine, as `manifest.machine` describes it, in a line."""
    return "{processor}, {cores} cores, {system}".format(**facts)


def versions(packages: Mapping[str, str]) -> str:
    """Packages with their versions, in a line."""
    return ", ".join(f"{name} {version}" for name, version in packages.items())


def _shape(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("B" if size is None else str(size) for size in shape) + "]"


def _figure(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, int | float) else ""


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _quoted(text: str) -> str:
    return json.dumps(text)
