"""What V and M are worth on episodes that they were not trained on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import tensorflow as tf

from wm_tf.config import Task
from wm_tf.data.episodes import read_episode
from wm_tf.data.latents import LatentEpisode, read_latents
from wm_tf.models import Memory, Vision, mixture
from wm_tf.training.encode import encode_frames

END_TOLERANCE = 5
"""Steps by which a predicted end may miss the real one and still count as found."""
END_THRESHOLD = 1.0 - 0.5 ** (1 / (END_TOLERANCE + 1))
"""Probability at one step that makes an end within so many steps as likely as not."""


def measure_vision(vision: Vision, episodes: Sequence[Path], task: Task) -> dict[str, float]:
    """V's reconstruction of held-out frames from the latent's mean.

    Returns:
      ``squared_error``: summed over a frame's pixels, of values in [0, 1]; ``grey_levels`` and
      ``edge_grey_levels``: mean absolute error of 255, over all pixels and over those near an edge
      of the frame's brightness, where there is one; ``kl``: nats per frame; ``frames``.
    """
    decode = tf.function(vision.decode, reduce_retracing=True, autograph=False)
    figures: dict[str, list[tuple[float, int]]] = defaultdict(list)  # and their weights
    for path in episodes:
        frames = read_episode(path, task).frames[::4]
        mean, log_variance = encode_frames(vision, frames)
        difference = decode(mean).numpy() - frames / np.float32(255.0)
        absolute = np.abs(difference).mean(-1) * 255.0
        near_edge = np.stack([_near_edge(frame) for frame in frames])
        kl = 0.5 * (mean**2 + np.exp(log_variance) - log_variance - 1.0).sum(-1)
        count = len(frames)
        figures["squared_error"].append((float((difference**2).sum() / count), count))
        figures["grey_levels"].append((float(absolute.mean()), count))
        if near_edge.any():
            figures["edge_grey_levels"].append((float(absolute[near_edge].mean()), count))
        figures["kl"].append((float(kl.mean()), count))
    result = {}
    for name, found in figures.items():
        values, counts = zip(*found, strict=True)
        result[name] = float(np.average(values, weights=counts))
    return {**result, "frames": sum(count for _, count in figures["kl"])}


def _near_edge(frame: np.ndarray) -> np.ndarray:
    """The pixels within two of an edge, bool [64, 64]."""
    edges = cv2.Canny(frame, 60, 120)
    return cv2.dilate(edges, np.ones((3, 3), np.uint8)) > 0


def measure_memory(
    memory: Memory,
    latents: Sequence[Path],
    task: Task,
    odds_correction: float,
) -> dict[str, float]:
    """M's predictions on held-out episodes, each unrolled from its start.

    Returns:
      ``nll``: nats per latent dimension and step; ``nll_unchanged``: of the best Gaussian around
      the present z, the baseline that predicts no change; ``reward_explained_variance``: 1 - the
      share of the reward's variance that is left, per step; ``reward_explained_variance_25``: the
      same for sums over 25 steps; ``end_recall`` and ``end_precision``: of ends predicted with a
      probability above `END_THRESHOLD`, its odds divided by `odds_correction`, within
      `END_TOLERANCE` steps; ``ends``, ``steps``. Where it is known how likely actions were to end
      an episode, those that might have count as ends. Figures that do not exist are left out: of a
      reward that never varies, of ends where there is none or none predicted.
    """
    least = np.log(odds_correction) + np.log(END_THRESHOLD / (1.0 - END_THRESHOLD))
    unroll = tf.function(memory.unroll, reduce_retracing=True, autograph=False)
    nll: list[np.ndarray] = []
    change: list[np.ndarray] = []
    rewards: list[np.ndarray] = []
    predicted: list[np.ndarray] = []
    ends = []
    random = np.random.default_rng(0)
    for path in latents:
        episode = read_latents(path, task)
        normal = random.standard_normal(episode.mean.shape, np.float32)
        z = episode.mean + np.exp(0.5 * episode.log_variance) * normal
        out = unroll(z[np.newaxis, :-1], episode.actions[np.newaxis])
        known = episode.steps - int(episode.last_frame_repeated)
        log_prob = mixture.log_prob(z[np.newaxis, 1:], out.logits, out.mean, out.log_std)
        nll.append(-log_prob.numpy()[0, :known])
        change.append((z[1:] - z[:-1])[:known])
        rewards.append(episode.rewards)
        predicted.append(out.reward.numpy()[0])
        ends.append(_found_ends(out.done_logit.numpy()[0] > least, episode))
    variance = np.concatenate(change).var(axis=0)
    found, real, right, claimed = np.sum(ends, axis=0)
    result = {
        "nll": float(np.concatenate(nll).mean()),
        "nll_unchanged": float(0.5 * (np.log(2 * np.pi * variance) + 1.0).mean()),
        "steps": sum(map(len, rewards)),
        "ends": int(real),
    }
    for name, window in (("", 1), ("_25", 25)):
        explained = _explained(rewards, predicted, window)
        if explained is not None:
            result[f"reward_explained_variance{name}"] = explained
    if real:
        result["end_recall"] = float(found / real)
    if claimed:
        result["end_precision"] = float(right / claimed)
    return result


def _found_ends(claims: np.ndarray, episode: LatentEpisode) -> tuple[int, int, int, int]:
    """(ends found, ends there, runs of claims that are right, runs of claims)."""
    starts = np.flatnonzero(np.diff(claims.astype(int), prepend=0) == 1)
    ends = np.flatnonzero(episode.ends)
    found = sum(bool(claims[max(0, end - END_TOLERANCE) : end + 1].any()) for end in ends)
    right = sum(any(0 <= end - start <= END_TOLERANCE for end in ends) for start in starts)
    return found, len(ends), right, len(starts)


def _explained(real: list[np.ndarray], predicted: list[np.ndarray], window: int) -> float | None:
    """The explained share of the variance of sums over `window` steps; None if they are equal."""

    def sums(series: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(
            [
                values[: len(values) // window * window].reshape(-1, window).sum(1)
                for values in series
            ]
        )

    target = sums(real)
    if len(target) == 0 or target.var() == 0.0:
        return None
    return float(1.0 - np.mean((target - sums(predicted)) ** 2) / target.var())
