"""The examples run, as far as they do without the packages that only they need."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from wm_tf.envs import car_racing
from wm_tf.seeding import Purpose

PPO = Path(__file__).parents[1] / "examples" / "ppo_in_dream.py"


@pytest.fixture
def ppo(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """The module, with empty classes in the place of Stable-Baselines3's."""
    names = {"": ["PPO"], ".common.callbacks": ["CheckpointCallback"]}
    names[".common.vec_env"] = ["VecEnv", "VecMonitor"]
    for name, classes in names.items():
        module = types.ModuleType(f"stable_baselines3{name}")
        for kind in classes:
            setattr(module, kind, type(kind, (), {}))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    spec = importlib.util.spec_from_file_location("ppo_in_dream", PPO)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "ppo_in_dream", module)
    spec.loader.exec_module(module)
    yield module


def test_the_random_policy_drives_other_tracks_the_same_ones(
    ppo: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollouts = ppo.tracks(7, Purpose.EVALUATION, 2)
    monkeypatch.setattr(car_racing, "MAX_STEPS", 60)
    returns = ppo.drive_at_random(rollouts)
    assert len(set(returns)) == 2
    assert ppo.drive_at_random(rollouts) == returns
