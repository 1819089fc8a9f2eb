"""What speeds are compared with does the same work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from wm_tf.bench import dream, environments, memory, models, vision
from wm_tf.config import MemoryConfig, VisionConfig, get_task
from wm_tf.dream.population import PopulationRollout
from wm_tf.serving.manifest import EndRule
from wm_tf.training.memory import make_memory
from wm_tf.training.vision import make_vision

TASK = get_task("car_racing")


def test_m_of_keras_layers_has_the_loss_of_m() -> None:
    config = MemoryConfig(sequence_length=7, batch_size=3, dropout=0.0, precision="float32")
    ours, plain = make_memory(TASK, config, 1), memory.PlainMemory(TASK, config)
    inputs, targets = memory.sequences(TASK, config, config.batch_size)
    targets["done"][0, 3] = 1.0
    targets["mask"][1, 4:] = targets["latent_mask"][1, 3:] = 0.0
    plain(inputs)
    plain.take_weights(ours)
    losses = [float(model.compute_loss(inputs, targets, model(inputs))) for model in (ours, plain)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_v_of_keras_layers_has_the_loss_of_v() -> None:
    ours, plain = make_vision(TASK, VisionConfig(precision="float32"), 1), vision.PlainVision(32)
    plain.set_weights(ours.get_weights())
    frames = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), np.uint8)
    losses = [float(model.compute_loss(frames, None, model(frames))) for model in (ours, plain)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_dreaming_step_by_step_gives_the_populations_returns(
    keras_models: dict[str, Any], saved_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dream, "HORIZON", 5)
    saved = tf.saved_model.load(str(saved_models / TASK.name / "memory" / "1"))
    parameters, starts = models.candidates(TASK, 2), models.starts(TASK, 3)
    rollout = PopulationRollout(TASK, keras_models["memory"], EndRule("never"))
    together = rollout(parameters, starts, seed=5, horizon=5).returns
    by_steps = dream.by_steps(
        TASK,
        saved.signatures["dream"],
        np.repeat(parameters, 3, 0),
        np.tile(starts.latent, (2, 1)),
        5,
    )
    np.testing.assert_allclose(by_steps()[:3], together[0], rtol=1e-4, atol=1e-4)


def test_the_road_of_both_cars_is_looked_for() -> None:
    grass = np.tile(np.array([102, 204, 102], np.uint8), (2, 64, 64, 1))
    road = grass.copy()
    road[:, :, 20:40] = 102
    rewards = np.array([3.5, -0.1])
    agree = environments.both_drive_on_a_road
    agree((rewards, road), (rewards, road))
    with pytest.raises(environments.Disagreement, match="0% of the pixels"):
        agree((rewards, road), (rewards, grass))
    with pytest.raises(environments.Disagreement, match="rewards"):
        agree((rewards, road), (np.array([900.0, -0.1]), road))
