"""Stable-Baselines3's PPO learns to drive inside the dream; its policy then drives the real car.

    pip install -e '.[rl]'
    python examples/ppo_in_dream.py

The policy sees [z, h], as C does. In the dream that is the observation ``state``; in the real
environment V and M make it of the frames (`drive`). Typed again, the command goes on from the last
checkpoint.

What PPO gains in the dream soon is no gain any more in the real environment, where M's dream does
not hold. So the checkpoint counts that drives best on a few real tracks. Then it and the task's
random policy drive other tracks, the same ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import tyro
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from wm_tf.agent import RandomActor, Rollout
from wm_tf.config import get_task
from wm_tf.envs import task_module
from wm_tf.evaluate import summary
from wm_tf.seeding import Purpose
from wm_tf.serving.load import Models, load

TASK = get_task("car_racing")
REPEAT = 4
"""Steps for which an action is held."""
HORIZON = 400
"""Steps of an episode in the dream."""

Policy = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Options:
    """PPO in the dream of car_racing, scored in the real environment."""

    decisions: int = 400_000
    """How long to train; an action is held for four steps."""
    checkpoint: int = 100_000
    """Decisions between two checkpoints."""
    dreams: int = 64
    """At once."""
    temperature: float | None = None
    """Of the dream (default: the manifest's)."""
    seed: int = 1
    """Of training and dreams."""
    episodes: int = 48
    """Real episodes to score with."""
    selection_episodes: int = 8
    """Real episodes to choose a checkpoint with."""
    score_seed: int = 7
    """Of the tracks to score with."""
    models: Path = Path("saved_models")
    """Folder that holds the task's models."""
    folder: Path = Path("runs/ppo")
    """Of the checkpoints. The last one in it is gone on with: another seed, temperature or model
    needs another folder."""


class Dreams(VecEnv):
    """The vectorised dream, as Stable-Baselines3 wants it. No dream of car_racing ends by itself.

    Action [B, 2] in [-1, 1]: steer, and gas where positive, brake where negative.
    """

    def __init__(self, dreams: gymnasium.vector.VectorEnv) -> None:
        self._dreams = dreams
        actions = gymnasium.spaces.Box(-1.0, 1.0, (2,))
        super().__init__(dreams.num_envs, dreams.single_observation_space, actions)

    def reset(self) -> np.ndarray:
        return self._dreams.reset(seed=self._seeds[0])[0]

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = controls(actions)

    def step_wait(self) -> Any:
        total = np.zeros(self.num_envs)
        for _ in range(REPEAT):
            observation, reward, terminated, truncated, info = self._dreams.step(self._actions)
            total += reward
        ended = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in ended]
        for row in np.flatnonzero(ended):
            infos[row]["terminal_observation"] = info["final_obs"][row]
            infos[row]["TimeLimit.truncated"] = not terminated[row]
        return observation, total, ended, infos

    def close(self) -> None:
        self._dreams.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self._dreams, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


def controls(actions: np.ndarray) -> np.ndarray:
    """The policy's actions [B, 2] as the car's [B, 3]."""
    steer, pedal = np.clip(actions, -1.0, 1.0).T
    return np.stack([steer, np.maximum(pedal, 0.0), np.maximum(-pedal, 0.0)], axis=1)


def train(options: Options, models: Models) -> list[Path]:
    """Trains to the end, from the last checkpoint if there is one; returns the checkpoints."""
    dreams = gymnasium.make_vec(
        TASK.dream,
        num_envs=options.dreams,
        models=models,
        observation="state",
        horizon=HORIZON,
        temperature=options.temperature,
        autoreset_mode="SameStep",
    )
    env = VecMonitor(Dreams(dreams))
    done = _checkpoints(options.folder)
    if done:
        ppo = PPO.load(done[-1], env)
    else:
        ppo = PPO(
            "MlpPolicy",
            env,
            n_steps=64,
            batch_size=512,
            n_epochs=5,
            learning_rate=3e-4,
            gamma=0.98,
            policy_kwargs={"net_arch": [64, 64], "log_std_init": -0.5},
            seed=options.seed,
            device="cpu",
            verbose=1,
        )
    every = max(1, min(options.checkpoint, options.decisions) // options.dreams)
    if ppo.num_timesteps < options.decisions:
        ppo.learn(
            options.decisions - ppo.num_timesteps,
            callback=CheckpointCallback(every, str(options.folder), name_prefix="ppo"),
            log_interval=10,
            reset_num_timesteps=False,
        )
    return _checkpoints(options.folder)


def _checkpoints(folder: Path) -> list[Path]:
    """In the order of training: ppo_49984_steps.zip and so on."""
    return sorted(folder.glob("ppo_*_steps.zip"), key=lambda path: int(path.stem.split("_")[1]))


def load_policy(path: Path) -> Policy:
    """A checkpoint's policy: [z, h] to the car's actions, without noise."""
    ppo = PPO.load(path, device="cpu")
    return lambda observation: controls(ppo.predict(observation, deterministic=True)[0])


def tracks(seed: int, purpose: Purpose, count: int) -> list[Rollout]:
    return [Rollout(seed, (int(purpose), index)) for index in range(count)]


def drive(models: Models, policy: Policy, rollouts: list[Rollout]) -> list[float]:
    """The returns of real episodes in which a policy sees [z, h]: z is sampled from V's moments,
    h is what M's step on the frame and action before returned.

    Args:
      policy: [z, h], [B, 288], to actions [B, 3].
      rollouts: which tracks and which noise.
    """
    seeds, generators = zip(*(rollout.streams() for rollout in rollouts), strict=True)
    environments = [gymnasium.make(TASK.environment) for _ in seeds]
    frames = [env.reset(seed=seed)[0] for env, seed in zip(environments, seeds, strict=True)]
    h = c = np.zeros((len(seeds), TASK.hidden_size), np.float32)
    returns = np.zeros(len(seeds))
    ended = np.zeros(len(seeds), bool)
    for step in range(TASK.max_steps):
        mean, log_variance = models.encode(np.stack(frames))
        normal = [generator.standard_normal(TASK.latent_size) for generator in generators]
        latent = mean + np.exp(0.5 * log_variance) * np.stack(normal)
        if step % REPEAT == 0:
            actions = policy(np.concatenate([latent, h], axis=1).astype(np.float32))
        for row in np.flatnonzero(~ended):
            frames[row], reward, terminated, truncated, _ = environments[row].step(actions[row])
            returns[row] += float(reward)
            ended[row] = terminated or truncated
        if ended.all():
            break
        after = models.step(latent, actions, h, c)
        h, c = after["h"], after["c"]
    return returns.tolist()


def drive_at_random(rollouts: list[Rollout]) -> list[float]:
    """The returns of the task's random policy on the same tracks."""
    environment = task_module(TASK.name).make()
    actor = RandomActor(TASK)
    returns = []
    for rollout in rollouts:
        seed, generator = rollout.streams()
        frame, _ = environment.reset(seed=seed)
        actor.begin(0, rollout, generator)
        total, ended = 0.0, False
        while not ended:
            frame, reward, terminated, truncated, _ = environment.step(actor.act(frame[None])[0])
            total, ended = total + float(reward), terminated or truncated
        returns.append(total)
    return returns


def main(options: Options) -> None:
    models = load(options.models, TASK.name)
    few = tracks(options.seed, Purpose.SELECTION, options.selection_episodes)
    means = {}
    for path in train(options, models):
        means[path] = np.mean(drive(models, load_policy(path), few))
        print(f"{path.name}: mean {means[path]:.1f} on {len(few)} real tracks", flush=True)
    best = max(means, key=lambda path: means[path])
    rollouts = tracks(options.score_seed, Purpose.EVALUATION, options.episodes)
    for name, returns in (
        (f"PPO, {best.name}", drive(models, load_policy(best), rollouts)),
        ("random policy", drive_at_random(rollouts)),
    ):
        figures = summary(returns)
        print(f"{name}: mean {figures['mean']:.1f}, standard error {figures['se']:.1f}, "
              f"{len(returns)} real episodes, seed {options.score_seed}")  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Options))
