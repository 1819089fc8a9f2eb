"""The real tasks: frames, actions and registration with gymnasium.

A task's module holds its environment class, `make(official_frames=False, immortal=False)` (the
environment without gymnasium's wrappers, which tells a critic more than frames show: `outlook()`,
float32 [K], and `reward_ahead()`, a sum of rewards that are there to be had),
`random_policy(generator)` (an endless stream of actions), `exploring_policy(generator)` (the same
for collection, as diverse as can be),
`ENVIRONMENT` (id, version and settings for manifests and scores) and `DEMONSTRATED` (actions by
label, whose dreams a contact sheet shows).
"""

from __future__ import annotations

import importlib
from types import ModuleType

import gymnasium

from wm_tf.config import get_task

_REAL = {
    "wm_tf/CarRacing-v0": "wm_tf.envs.car_racing:CarRacingEnv",
    "wm_tf/TakeCover-v0": "wm_tf.envs.take_cover:TakeCoverEnv",
}
_DREAMS = {
    "wm_tf/CarRacingDream-v0": "car_racing",
    "wm_tf/TakeCoverDream-v0": "take_cover",
}


def register() -> None:
    """Registers the four environments; their modules are imported when one is made.

    The real environments count their time limit themselves, so that `.unwrapped` is the whole
    task: none is given here.
    """
    for name, entry_point in _REAL.items():
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point=entry_point)
    for name, task in _DREAMS.items():
        if name not in gymnasium.registry:
            gymnasium.register(
                name,
                entry_point="wm_tf.dream.envs:DreamEnv",
                vector_entry_point="wm_tf.dream.envs:DreamVectorEnv",
                kwargs={"task": task},
            )


def task_module(task: str) -> ModuleType:
    """The module of a task's real environment; raises UserError for an unknown task."""
    return importlib.import_module(f"{__name__}.{get_task(task).name}")
