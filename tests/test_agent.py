"""The rollout loop: what it plays, records and ends, in car_racing and in a made-up task."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from wm_tf import agent
from wm_tf.agent import Chunk, ModelsAt, Outcome, Rollout, action_range, play
from wm_tf.config import get_task
from wm_tf.data.episodes import read_episode
from wm_tf.envs import task_module
from wm_tf.errors import UserError
from wm_tf.execution import SerialExecutor, map_chunks
from wm_tf.models import controller
from wm_tf.seeding import Purpose
from wm_tf.serving import manifest

TASK = get_task("car_racing")
KEY = int(Purpose.COLLECTION)
STEPS = 30


def rollouts(folder: Path | None, count: int = 3, **fields: Any) -> tuple[Rollout, ...]:
    return tuple(
        Rollout(1, (KEY, 0, i), record=folder and folder / f"{i}.npz", **fields)
        for i in range(count)
    )


def random_chunk(folder: Path | None = None, **fields: Any) -> Chunk:
    return Chunk("car_racing", rollouts(folder), STEPS, **fields)


@pytest.fixture(scope="module")
def models_at(saved_models: Path) -> ModelsAt:
    return ModelsAt(saved_models, manifest.checksum(saved_models / "car_racing"))


def test_random_rollouts_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    outcomes = play(random_chunk(tmp_path))
    module = task_module("car_racing")
    environment = module.make()
    for index, (rollout, outcome) in enumerate(zip(rollouts(None), outcomes, strict=True)):
        seed, generator = rollout.streams()
        frame, _ = environment.reset(seed=seed)
        policy = module.exploring_policy(generator)
        episode = read_episode(tmp_path / f"{index}.npz", TASK)
        np.testing.assert_array_equal(episode.frames[0], frame)
        total = 0.0
        for t in range(STEPS):
            action = next(policy)
            frame, reward, *_ = environment.step(action)
            np.testing.assert_array_equal(episode.actions[t], action)
            np.testing.assert_array_equal(episode.frames[t + 1], frame)
            assert episode.rewards[t] == np.float32(reward)
            total += float(reward)
        assert outcome == Outcome(pytest.approx(total), STEPS, False, True)
        assert (episode.steps, episode.seed, episode.policy) == (STEPS, seed, "random")
        assert (episode.terminated, episode.truncated) == (False, True)
    environment.close()


def test_chunks_may_be_cut_anywhere() -> None:
    together = play(random_chunk())
    apart = [
        outcome
        for chunk in agent.chunks(rollouts(None), 2, task="car_racing", max_steps=STEPS)
        for outcome in play(chunk)
    ]
    assert apart == together
    assert len({outcome.total for outcome in together}) == 3


def test_threads_have_environments_of_their_own() -> None:
    chunks = agent.chunks(rollouts(None, 4), 2, task="car_racing", max_steps=STEPS)
    expected = map_chunks(SerialExecutor(), play, chunks)
    with ThreadPoolExecutor(2) as threads:
        assert map_chunks(threads, play, chunks) == expected


def test_where_a_rollout_ends_the_chunks_next_one_begins(
    models_at: ModelsAt,
) -> None:
    """Six rollouts in two rows, of several lengths; each is what it is alone."""
    for models, noise in ((None, 0.0), (models_at, 5.0)):
        work = rollouts(None, 6, noise=noise)
        chunk = Chunk("car_racing", work, 70, models, patience=30, rows=2)
        apart = [play(dataclasses.replace(chunk, rollouts=(rollout,)))[0] for rollout in work]
        assert play(chunk) == apart
        assert len({outcome.steps for outcome in apart}) > 1


def test_a_rollouts_random_numbers_depend_on_its_seed_and_key() -> None:
    def drawn(seed: int, key: tuple[int, ...]) -> tuple[int, float]:
        environment_seed, generator = Rollout(seed, key).streams()
        return environment_seed, generator.random()

    assert drawn(1, (2, 3)) == drawn(1, (2, 3))
    others = {drawn(1, (2, 3)), drawn(2, (2, 3)), drawn(1, (2, 4)), drawn(1, (3, 3))}
    assert len(others) == 4
    assert len({seed for seed, _ in others}) == 4


def controlled(models_at: ModelsAt, folder: Path | None, **fields: Any) -> Chunk:
    return Chunk("car_racing", rollouts(folder, **fields), 12, models_at)


def test_the_controller_acts_as_the_paper_says(
    models_at: ModelsAt, keras_models: dict[str, Any], tmp_path: Path
) -> None:
    """The recorded actions are those of V, M and C called one after the other on the frames."""
    play(controlled(models_at, tmp_path))
    vision, memory, c_model = (keras_models[name] for name in ("vision", "memory", "controller"))
    for index, rollout in enumerate(rollouts(None)):
        episode = read_episode(tmp_path / f"{index}.npz", TASK)
        _, generator = rollout.streams()
        h, c = memory.initial_state(1)
        drawn = [generator.standard_normal(TASK.latent_size, np.float32)]
        disturbance = agent._smooth_noise(generator, TASK.action_size)
        for t, action in enumerate(episode.actions):
            if t:
                drawn.append(generator.standard_normal(TASK.latent_size, np.float32))
            next(disturbance)  # it shares the generator, in this order
            mean, log_variance = vision.encode(episode.frames[t : t + 1])
            latent = mean + tf.exp(0.5 * log_variance) * drawn[-1]
            np.testing.assert_allclose(c_model.act(latent, h, c)[0], action, atol=1e-4)
            step = memory.step(latent, action[np.newaxis], h, c)
            h, c = step.h, step.c
        assert episode.policy == "controller, noise 0.0"


def test_a_chunk_says_in_which_arithmetic_v_sees(models_at: ModelsAt, tmp_path: Path) -> None:
    actions = {}
    for precision in ("float32", "bfloat16"):
        play(dataclasses.replace(controlled(models_at, tmp_path), precision=precision))
        actions[precision] = read_episode(tmp_path / "0.npz", TASK).actions
    difference = np.abs(actions["bfloat16"] - actions["float32"])
    assert 0 < difference.max() < 0.05


def test_the_controller_plays_the_same_again_and_elsewhere_in_a_chunk(
    models_at: ModelsAt,
) -> None:
    chunk = controlled(models_at, None)
    first = play(chunk)
    assert play(chunk) == first
    alone = play(dataclasses.replace(chunk, rollouts=chunk.rollouts[2:]))
    assert alone[0].total == pytest.approx(first[2].total, abs=1e-6)


def test_playing_leaves_no_file_for_the_end_of_a_process(
    models_at: ModelsAt, tmp_path: Path
) -> None:
    """A worker is killed at its end, and removes nothing then, such as AutoGraph's sources."""
    program = """
import os, sys, tempfile
from pathlib import Path
from wm_tf import agent
models = agent.ModelsAt.now(Path(sys.argv[1]) / "car_racing")
agent.play(agent.Chunk("car_racing", (agent.Rollout(1, (0,)),), 2, models=models))
print(os.listdir(tempfile.gettempdir()))
"""
    command = [sys.executable, "-c", program, str(models_at.folder)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_a_recorded_episode_replays_to_the_same_rewards(
    models_at: ModelsAt, tmp_path: Path
) -> None:
    play(controlled(models_at, tmp_path, noise=0.3))
    episode = read_episode(tmp_path / "1.npz", TASK)
    environment = task_module("car_racing").make()
    environment.reset(seed=episode.seed)
    rewards = [float(environment.step(action)[1]) for action in episode.actions]
    np.testing.assert_array_equal(np.float32(rewards), episode.rewards)
    environment.close()


def test_noise_changes_the_actions_within_their_range(models_at: ModelsAt, tmp_path: Path) -> None:
    actions = {}
    for noise in (0.0, 0.3, 5.0):
        play(controlled(models_at, tmp_path, noise=noise))
        episodes = [read_episode(tmp_path / f"{index}.npz", TASK) for index in range(3)]
        actions[noise] = np.stack([episode.actions for episode in episodes])
        assert episodes[0].policy == f"controller, noise {noise}"
    low, high = action_range(TASK)
    for noise, taken in actions.items():
        assert (taken >= low).all()
        assert (taken <= high).all()
        if noise:
            assert not np.allclose(taken, actions[0.0])
    assert (actions[5.0] == low).any()
    assert (actions[5.0] == high).any()


def test_a_watched_chunk_tells_what_the_controller_saw_and_did(
    models_at: ModelsAt, tmp_path: Path
) -> None:
    """Without what it tells, and without exploration, the rollouts are the same."""
    plain = controlled(models_at, tmp_path)
    unwatched = play(plain)
    outcomes = play(dataclasses.replace(plain, watched=True))
    assert outcomes == unwatched
    assert unwatched[0].sight is None and unwatched[0].rewards is None
    for index, outcome in enumerate(outcomes):
        episode = read_episode(tmp_path / f"{index}.npz", TASK)
        assert outcome.sight is not None and outcome.rewards is not None
        np.testing.assert_array_equal(np.float32(outcome.rewards), episode.rewards)
        actions = controller.squash(TASK, outcome.sight.raw)
        np.testing.assert_allclose(actions, episode.actions, atol=1e-6)
        sizes = [(288,), (32,), (3,), (39,), ()]
        assert [part.shape for part in outcome.sight] == [(12, *size) for size in sizes]
        paid = outcome.rewards[:-1] + np.diff(outcome.sight.ahead)
        np.testing.assert_allclose(paid, -0.1, atol=1e-3)  # no tile is missed at the start
        assert not outcome.sight.features[0, 32:].any()  # M's state begins with zeros
        assert outcome.sight.features[1, 32:].any()


def test_the_drawn_actions_have_the_density_that_is_learnt_by(models_at: ModelsAt) -> None:
    """Around what C makes of V's means, with what its weights make of V's variance and the noise:
    so centred and whitened they are standard normal."""
    parameters = np.random.default_rng(1).normal(size=867).astype(np.float32)
    chunk = dataclasses.replace(
        controlled(models_at, None, parameters=parameters, exploration=0.5),
        max_steps=200,
        watched=True,
    )
    drawn = []
    for outcome in play(chunk):
        assert outcome.sight is not None
        seen, variance, raw, *_ = outcome.sight
        ((kernel, bias),) = controller.split_parameters(TASK, parameters)
        reads = np.asarray(kernel)[:, :32]
        covariance = np.einsum("iz,tz,jz->tij", reads, variance, reads) + 0.25 * np.eye(3)
        centred = raw - (seen @ np.asarray(kernel).T + np.asarray(bias))
        drawn.append(np.linalg.solve(np.linalg.cholesky(covariance), centred[..., np.newaxis]))
    values = np.concatenate(drawn)[..., 0]
    error = 1.0 / np.sqrt(len(values))
    np.testing.assert_allclose(values.mean(0), 0.0, atol=4.0 * error)
    np.testing.assert_allclose(np.cov(values.T), np.eye(3), atol=4.0 * np.sqrt(2.0) * error)


def test_rollouts_may_have_their_own_parameters(models_at: ModelsAt, tmp_path: Path) -> None:
    full_gas = np.zeros(867, np.float32)
    full_gas[-2] = 50.0  # the bias of gas
    work = (Rollout(1, (KEY, 0, 0), np.zeros(867, np.float32), record=tmp_path / "0.npz"),
            Rollout(1, (KEY, 0, 0), full_gas, record=tmp_path / "1.npz"))  # fmt: skip
    play(Chunk("car_racing", work, 3, models_at))
    middle, fast = (read_episode(tmp_path / name, TASK).actions for name in ("0.npz", "1.npz"))
    np.testing.assert_array_equal(middle, [[0.0, 0.5, 0.0]] * 3)
    np.testing.assert_array_equal(fast, [[0.0, 1.0, 0.0]] * 3)


def test_models_without_a_controller_are_bad_input(
    monkeypatch: pytest.MonkeyPatch, models_at: ModelsAt, keras_models: dict[str, Any]
) -> None:
    without = (keras_models["vision"], keras_models["memory"], None)
    monkeypatch.setattr(agent, "load_models", lambda *_: without)
    with pytest.raises(UserError, match="there is no controller of car_racing"):
        play(controlled(models_at, None))
    play(controlled(models_at, None, parameters=np.zeros(867)))  # brings its own


def test_smooth_noise_has_unit_variance_and_memory() -> None:
    noise = agent._smooth_noise(np.random.default_rng(1), 50)
    values = np.stack([next(noise) for _ in range(2000)])
    # Each column has about 2000 / 19 independent values.
    assert abs(values.var() - 1.0) < 5.0 * np.sqrt(2.0 * 19 / values.size)
    assert np.mean(values[1:] * values[:-1]) == pytest.approx(0.9, abs=0.05)


def test_act_serves_every_task() -> None:
    for name in ("car_racing", "take_cover"):
        task = get_task(name)
        low, high = action_range(task)
        value = np.array([[-1e3] * task.action_size, [1e3] * task.action_size], np.float32)
        np.testing.assert_array_equal(controller.squash(task, value), [low, high])


class Scripted:
    """An environment that gives a list of (reward, terminated, truncated, info)."""

    def __init__(self, *script: tuple[float, bool, bool, dict[str, bool]]) -> None:
        self.script = script
        self.actions: list[np.ndarray] = []

    def reset(self, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
        self.time = 0
        return self._frame(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, bool]]:
        reward, terminated, truncated, info = self.script[self.time]
        self.time += 1
        self.actions.append(action)
        return self._frame(), reward, terminated, truncated, info

    def _frame(self) -> np.ndarray:
        return np.full((64, 64, 3), self.time, np.uint8)


def scripted(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *environments: Scripted, **fields: Any
) -> list[Outcome]:
    monkeypatch.setattr(agent._environments, "of", lambda *_: list(environments))
    work = rollouts(folder, len(environments))
    return play(Chunk("car_racing", work, **{"max_steps": 10, **fields}))


ON: tuple[float, bool, bool, dict[str, bool]] = (0.0, False, False, {})
PAID: tuple[float, bool, bool, dict[str, bool]] = (2.0, False, False, {})


def test_ended_rollouts_are_not_stepped_and_ends_are_kept_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environments = (
        Scripted(PAID, (1.0, True, False, {"last_frame_repeated": True})),
        Scripted(ON, ON, (1.0, False, True, {})),
        Scripted(*[ON] * 10),
    )
    outcomes = scripted(monkeypatch, tmp_path, *environments)
    assert outcomes == [
        Outcome(3.0, 2, True, False),
        Outcome(1.0, 3, False, True),
        Outcome(0.0, 10, False, True),  # cut by max_steps
    ]
    episodes = [read_episode(tmp_path / f"{index}.npz", TASK) for index in range(3)]
    flags = [(e.terminated, e.truncated, e.last_frame_repeated, e.steps) for e in episodes]
    assert flags == [(True, False, True, 2), (False, True, False, 3), (False, True, False, 10)]
    np.testing.assert_array_equal(episodes[1].frames[:, 0, 0, 0], [0, 1, 2, 3])
    np.testing.assert_array_equal(episodes[0].rewards, [2.0, 1.0])
    np.testing.assert_array_equal(episodes[0].actions, environments[0].actions)
    assert episodes[0].end_probability is None


def test_what_the_environment_knows_of_ends_is_recorded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    steps = [
        (1.0, False, False, {"end_probability": 0.5}),
        (1.0, True, False, {"end_probability": 0.75}),
    ]
    scripted(monkeypatch, tmp_path, Scripted(*steps))
    ends = read_episode(tmp_path / "0.npz", TASK).end_probability
    np.testing.assert_array_equal(ends, np.array([0.5, 0.75], np.float32))


def test_patience_gives_up_what_is_not_rewarded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outcomes = scripted(
        monkeypatch, tmp_path,
        Scripted(*[ON] * 10),
        Scripted(ON, ON, PAID, *[ON] * 7),
        Scripted(*[PAID, ON] * 5),
        Scripted(ON, ON, (-5.0, True, False, {})),
        patience=3,
    )  # fmt: skip
    assert [(outcome.steps, outcome.terminated, outcome.truncated) for outcome in outcomes] == [
        (3, False, True), (6, False, True), (10, False, True), (3, True, False),
    ]  # fmt: skip
