"""Pictures for model cards: what V and M see, and how the controller learnt."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import tensorflow as tf
from PIL import Image

from wm_tf.config import Task
from wm_tf.data.episodes import Episode
from wm_tf.dream.world import Dream, DreamState
from wm_tf.envs import task_module
from wm_tf.models import Memory, Vision, mixture
from wm_tf.serving.initial import InitialLatents

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from wm_tf.pipeline.studies import Line

SWEEP = "sweep.png"
"""The file of `temperature_curve`."""
COLUMNS = 12
SCALE = 2
STEPS_BETWEEN = 10

FOLLOWED_SECONDS = 2
"""How long M follows the real frames before it dreams on (car_racing zooms in for a second)."""
DREAMT_SECONDS = 4
PICTURES_PER_SECOND = 17


def contact_sheet(
    task: Task, vision: Vision, memory: Memory, starts: InitialLatents, episode: Episode
) -> bytes:
    """A PNG: real frames, their reconstructions, and dreams of one start under held keys."""
    rows = _real_and_reconstructed(vision, episode)
    start = _start(task, starts)
    step = _dream_step(memory)
    for label, action in task_module(task.name).DEMONSTRATED.items():
        rows[f"dreamt, {label}"] = _dream(vision, step, start, np.array([action], np.float32))
    return _png(np.concatenate([_row(label, frames) for label, frames in rows.items()]))


def _real_and_reconstructed(vision: Vision, episode: Episode) -> dict[str, np.ndarray]:
    moments = np.linspace(min(60, episode.steps // 2), episode.steps, COLUMNS).astype(int)
    real = episode.frames[moments]
    mean, _ = vision.encode(real)
    return {"real": real, "reconstructed": _bytes(vision.decode(mean))}


def _start(task: Task, starts: InitialLatents) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The last start: a moment on the way, where the task's starts have such moments."""
    zero = np.zeros((1, task.hidden_size), np.float32)
    h = zero if starts.h is None else starts.h[-1:]
    c = zero if starts.c is None else starts.c[-1:]
    return starts.mean[-1:], h, c


_State = tuple[Any, Any, Any]  # latent, h and c


def _dream_step(memory: Memory) -> Callable[[_State, Any, Any], _State]:
    """What a state becomes by an action at a step [], compiled, at temperature 1."""

    @tf.function(autograph=False)
    def step(state: _State, action: Any, at: Any) -> _State:
        latent, h, c = state
        out = memory.step(latent, action, h, c)
        noise = mixture.noise(tf.stack([1, at]), latent.shape)
        latent = mixture.sample(out.logits, out.mean, out.log_std, 1.0, *noise)
        return latent, out.h, out.c

    return step


def _dream(
    vision: Vision, step: Callable[[_State, Any, Any], _State], state: _State, action: np.ndarray
) -> np.ndarray:
    frames = []
    for at in range(COLUMNS * STEPS_BETWEEN):
        if at % STEPS_BETWEEN == 0:
            frames.append(_bytes(vision.decode(state[0]))[0])
        state = step(state, action, tf.constant(at))
    return np.stack(frames)


def real_beside_dream(dream: Dream, episode: Episode) -> bytes:
    """A GIF: a real episode, and what M dreams from one of its moments on under the same actions.

    Up to that moment M follows the real frames; from there on it sees none.
    """
    task = dream.task
    first = min(FOLLOWED_SECONDS * task.steps_per_second, episode.steps // 3)
    last = min(first + DREAMT_SECONDS * task.steps_per_second, episode.steps)
    every = max(1, round(task.steps_per_second / PICTURES_PER_SECOND))
    state = _followed(dream, episode, first)
    pictures = []
    for step in range(first, last):
        if (step - first) % every == 0:
            pair = {"real": episode.frames[step], "dreamt": dream.frame(state)[0]}
            rows = [_row(label, frame[np.newaxis]) for label, frame in pair.items()]
            pictures.append(np.concatenate(rows, axis=1))
        action = episode.actions[np.newaxis, step]
        state = dream.step(state, action, dream.models.temperature).state
    return _gif(pictures, every / task.steps_per_second)


def _followed(dream: Dream, episode: Episode, steps: int) -> DreamState:
    """The state of M after so many real steps."""
    mean, _ = dream.models.encode(episode.frames[: steps + 1])
    h = c = np.zeros((1, dream.task.hidden_size), np.float32)
    for t in range(steps):
        out = dream.models.step(mean[t : t + 1], episode.actions[t : t + 1], h, c)
        h, c = out["h"], out["c"]
    return DreamState(mean[steps : steps + 1], h, c, seed=1, step=0)


def training_curve(title: str, selections: Sequence[tuple[float, float, float]]) -> bytes:
    """A PNG of scores on the selection seeds: (generation, mean, standard error) each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    generation, mean, error = np.array(selections, np.float64).T
    axes.errorbar(generation, mean, error, marker="o", capsize=3)
    axes.set(title=title, xlabel="generation", ylabel="return on the selection seeds")
    axes.grid(alpha=0.3)
    return _figure_png(figure)


def temperature_curve(title: str, lines: Sequence[Line]) -> bytes:
    """A PNG of virtual and actual scores with their standard errors over temperature."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    temperatures = [line.temperature for line in lines]
    for label, scores in (
        ("in the dream", [line.virtual for line in lines]),
        ("in the real environment", [line.actual for line in lines]),
    ):
        means, errors = ([score[key] for score in scores] for key in ("mean", "se"))
        axes.errorbar(temperatures, means, errors, marker="o", capsize=3, label=label)
    axes.set(title=title, xlabel="temperature of the dream", ylabel="mean return")
    axes.grid(alpha=0.3)
    axes.legend()
    return _figure_png(figure)


def _figure_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _bytes(frame: object) -> np.ndarray:
    return np.rint(np.asarray(frame) * 255.0).astype(np.uint8)


def _row(label: str, frames: np.ndarray) -> np.ndarray:
    strip = np.concatenate(list(frames), axis=1)
    strip = cv2.resize(strip, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_NEAREST)
    heading = np.full((22, strip.shape[1], 3), 255, np.uint8)
    cv2.putText(heading, label, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([heading, strip])


def _png(image: np.ndarray) -> bytes:
    _, data = cv2.imencode(".png", image[..., ::-1])
    return data.tobytes()


def _gif(pictures: Sequence[np.ndarray], seconds: float) -> bytes:
    """An animation in 64 colours: with fewer the car loses its red."""
    first, *others = (Image.fromarray(picture).quantize(64) for picture in pictures)
    milliseconds = 10 * round(100 * seconds)  # GIF counts hundredths
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=milliseconds, loop=0)
    return buffer.getvalue()
