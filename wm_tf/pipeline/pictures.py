"""Pictures for model cards: what V and M see, and how the controller learnt."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from wm_tf.config import Task
from wm_tf.data.episodes import Episode
from wm_tf.models import Memory, Vision, mixture
from wm_tf.serving.initial import InitialLatents

COLUMNS = 12
SCALE = 2
STEPS_BETWEEN = 10

HELD: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "car_racing": {
        "dreamt, gas": (0.0, 0.4, 0.0),
        "dreamt, left": (-0.6, 0.3, 0.0),
        "dreamt, right": (0.6, 0.3, 0.0),
    },
    "take_cover": {
        "dreamt, stay": (0.0,),
        "dreamt, left": (-1.0,),
        "dreamt, right": (1.0,),
    },
}
"""The keys held in the rows of a contact sheet: action by label."""


def contact_sheet(
    task: Task, vision: Vision, memory: Memory, starts: InitialLatents, episode: Episode
) -> bytes:
    """A PNG: real frames, their reconstructions, and dreams of one start under held keys."""
    rows = _real_and_reconstructed(vision, episode)
    latent, h, c = _start(task, starts)
    for label, action in HELD[task.name].items():
        rows[label] = _dream(vision, memory, (latent, h, c), np.array([action], np.float32))
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


def _dream(
    vision: Vision,
    memory: Memory,
    state: tuple[np.ndarray, np.ndarray, np.ndarray],
    action: np.ndarray,
) -> np.ndarray:
    latent, h, c = state
    frames = []
    for step in range(COLUMNS * STEPS_BETWEEN):
        if step % STEPS_BETWEEN == 0:
            frames.append(_bytes(vision.decode(latent))[0])
        out = memory.step(latent, action, h, c)
        noise = mixture.noise([1, step], latent.shape)
        latent = mixture.sample(out.logits, out.mean, out.log_std, 1.0, *noise)
        h, c = out.h, out.c
    return np.stack(frames)


def training_curve(title: str, selections: Sequence[tuple[float, float, float]]) -> bytes:
    """A PNG of scores on the selection seeds: (generation, mean, standard error) each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    generation, mean, error = np.array(selections, np.float64).T
    axes.errorbar(generation, mean, error, marker="o", capsize=3)
    axes.set(title=title, xlabel="generation", ylabel="return on the selection seeds")
    axes.grid(alpha=0.3)
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
