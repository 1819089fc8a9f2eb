"""Models that need no TensorFlow: small NumPy functions behind the real interface.

The latent's first dimension drifts with the steering, the second counts the gas, and the decoded
frame shows both, so that a test sees in the pixels what was driven.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["SDL_VIDEODRIVER"] = "dummy"
os.environ["SDL_AUDIODRIVER"] = "dummy"

import numpy as np
import pygame
import pytest

from player.driving import Driver
from player.session import Session
from player.world import World
from wm_tf.config import get_task
from wm_tf.dream.world import Dream
from wm_tf.serving.initial import InitialLatents
from wm_tf.serving.load import Models


def fake_models(
    task_name: str = "car_racing",
    controller: bool = True,
    end: dict[str, Any] | None = None,
) -> Models:
    task = get_task(task_name)

    def dream(latent, action, h, c, temperature, seed):
        noise = np.random.default_rng(list(seed)).normal(size=latent.shape)
        following = 0.9 * latent + 0.02 * temperature * noise
        following[:, 0] = latent[:, 0] + 0.05 * action[:, 0]
        following[:, 1] = latent[:, 1] + 0.05 * action[:, 1 % task.action_size]
        return {
            "latent": following.astype(np.float32),
            "reward": action[:, 0] * 0 + 0.5,
            "done_probability": np.clip(following[:, 1], 0, 1).astype(np.float32),
            "h": np.tanh(h + 0.1).astype(np.float32),
            "c": (c + 0.1).astype(np.float32),
        }

    def step(latent, action, h, c):
        shape = (len(latent), task.latent_size, task.mixtures)
        mean = np.broadcast_to(latent[:, :, None], shape) + np.linspace(-1, 1, task.mixtures)
        return {
            "logits": np.broadcast_to(np.arange(task.mixtures, dtype=np.float32), shape),
            "mean": mean.astype(np.float32),
            "log_std": np.full(shape, -1.0, np.float32),
            "reward": np.zeros(len(latent), np.float32),
            "done_logit": np.zeros(len(latent), np.float32),
            "h": h,
            "c": c,
        }

    def decode(latent):
        rows = np.linspace(0, 1, 64)[None, :, None, None]
        colour = 1 / (1 + np.exp(-latent[:, None, None, :3]))
        return {"frame": (np.broadcast_to(rows, (len(latent), 64, 64, 1)) * colour).astype("f4")}

    def encode(frame):
        mean = np.zeros((len(frame), task.latent_size), np.float32)
        mean[:, :3] = frame.mean(axis=(1, 2)) / 255
        return {"mean": mean, "log_variance": np.full_like(mean, -6)}

    def act(latent, h, c):
        wish = np.array([-0.5, 0.25, 0.0], np.float32)[: task.action_size]
        return {"action": np.broadcast_to(wish, (len(latent), task.action_size)).copy()}

    calls = {
        ("memory", "dream"): dream,
        ("memory", "step"): step,
        ("vision", "decode"): decode,
        ("vision", "encode"): encode,
    }
    if controller:
        calls["controller", "act"] = act
    generator = np.random.default_rng(5)
    size = (8, task.latent_size)
    return Models(
        task=task,
        folder=Path("fake"),
        manifest={
            "task": task_name,
            "steps_per_second": task.steps_per_second,
            "temperature": 1.0,
            "end": end or {"rule": "never", "value": None},
            "files": {"memory/1/variables/variables.index": "0" * 64},
            "sha256": "0" * 64,
        },
        initial_latents=InitialLatents(
            generator.normal(scale=0.3, size=size).astype(np.float32),
            np.full(size, -6.0, np.float32),
        ),
        calls=calls,
    )


def build_world(**arguments: Any) -> World:
    models = fake_models(**arguments)
    return World(models, Dream(models))


def build_app(world: World, begin: Any = Session, **arguments: Any) -> Any:
    """An app whose window is open and whose session has begun.

    Args:
      begin: makes the session of a world.
      arguments: of the app.
    """
    from player import app as loop
    from player import window
    from player.choice import Choice

    os.environ["SDL_VIDEODRIVER"] = "dummy"
    window.open_window()
    drivers = {world.task.name: tuple(Driver) if world.has_controller else (Driver.HUMAN,)}
    options = {"limits": loop.Limits(), "real_time": False} | arguments
    app = loop.App(
        Choice(world.task.name, drivers[world.task.name][0]),
        options.pop("drivers", drivers),
        options.pop("load", lambda task: world),
        lambda loaded, choice: begin(loaded),
        **options,
    )
    app.loading.result()
    app._take_world()
    pygame.event.clear()
    return app


@pytest.fixture
def make_app(tmp_path, monkeypatch) -> Iterator[Callable[..., Any]]:
    """`build_app` in a folder of its own; the window is closed afterwards."""
    monkeypatch.chdir(tmp_path)  # where screenshots and recordings go
    yield build_app
    pygame.quit()


@pytest.fixture
def fake_world() -> Callable[..., World]:
    """Makes a world: `fake_world(task_name=..., controller=..., end=...)`."""
    return build_world


@pytest.fixture
def world() -> World:
    """car_racing with a controller that wishes [-0.5, 0.25, 0]; it never ends."""
    return build_world()


@pytest.fixture
def mortal_world() -> World:
    """car_racing that ends when enough gas was given."""
    return build_world(end={"rule": "threshold", "value": 0.6})
