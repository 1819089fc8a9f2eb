"""The real take_cover: its contract, its determinism, and its random policies."""

import hashlib
import itertools
import subprocess
import sys
from collections.abc import Iterator

import cv2
import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

import wm_tf  # noqa: F401  (registers the environments)
from wm_tf.envs import take_cover
from wm_tf.envs.doom_engine import DoomEngine
from wm_tf.envs.take_cover import TakeCoverEnv
from wm_tf.errors import UserError

try:
    import vizdoom
except ImportError:
    vizdoom = None

needs_vizdoom = pytest.mark.skipif(vizdoom is None, reason="vizdoom is not installed")

STAY = np.zeros(1, np.float32)


@pytest.fixture(scope="module")
def env() -> Iterator[TakeCoverEnv]:
    """One for all tests: a reset begins anew, also after a close."""
    made = TakeCoverEnv(render_mode="rgb_array")
    yield made
    made.close()


def play(env: TakeCoverEnv, seed: int | None, steps: int = 2100) -> tuple[str, int, bool]:
    """Plays an episode with the random policy: (digest of all it gave, length, terminated)."""
    digest = hashlib.sha256()
    frame, _ = env.reset(seed=seed)
    digest.update(frame)
    actions = take_cover.random_policy(np.random.default_rng(seed))
    length = 0
    for action in itertools.islice(actions, steps):
        length += 1
        frame, reward, terminated, truncated, _ = env.step(action)
        digest.update(frame)
        digest.update(np.array([reward, terminated, truncated]))
        if terminated or truncated:
            break
    return digest.hexdigest(), length, terminated


def engine_of(env: TakeCoverEnv) -> DoomEngine:
    assert env._engine is not None
    return env._engine


# --- The contract


@needs_vizdoom
def test_passes_gymnasiums_checker() -> None:
    env = gymnasium.make("wm_tf/TakeCover-v0", disable_env_checker=True)
    try:
        check_env(env.unwrapped)
    finally:
        env.close()


@needs_vizdoom
def test_frame_is_the_upper_100_rows_averaged_down_in_rgb(env: TakeCoverEnv) -> None:
    frame, info = env.reset(seed=1)
    picture = env.render()
    assert picture is not None
    assert picture.shape == (120, 160, 3)
    expected = cv2.resize(picture[:100], (64, 64), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(frame, expected)
    assert frame.dtype == np.uint8
    assert info == {}


@needs_vizdoom
def test_colours_are_rgb(env: TakeCoverEnv) -> None:
    """Walls are brown and fireballs yellow: what is colourful is redder than blue."""
    env.reset(seed=1)
    for _ in range(80):
        frame = env.step(STAY)[0].astype(int)
        assert (frame[..., 0] - frame[..., 2] > 60).any()
        assert not (frame[..., 2] - frame[..., 0] > 60).any()


@needs_vizdoom
@pytest.mark.parametrize(
    ("value", "buttons"),
    [
        (-1.0, [1, 0]),
        (-0.34, [1, 0]),
        (-0.33, [0, 0]),
        (0.0, [0, 0]),
        (0.33, [0, 0]),
        (0.34, [0, 1]),
        (1.0, [0, 1]),
        (-7.0, [1, 0]),
        (7.0, [0, 1]),
    ],
)
def test_action_to_buttons(env: TakeCoverEnv, value: float, buttons: list[int]) -> None:
    env.reset(seed=1)
    env.step(np.array([value], np.float32))
    assert engine_of(env).game.get_last_action() == buttons


@needs_vizdoom
def test_left_and_right_move_the_player_apart(env: TakeCoverEnv) -> None:
    positions = []
    for value in (-1.0, 0.0, 1.0):
        env.reset(seed=1)
        engine_of(env).game.send_game_command("god")
        for _ in range(40):
            env.step(np.array([value], np.float32))
        positions.append(engine_of(env).game.get_game_variable(vizdoom.GameVariable.POSITION_Y))
    left, middle, right = positions
    assert abs(left - right) > 100
    assert min(left, right) < middle < max(left, right)


@needs_vizdoom
@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(2, np.float32), r"action: expected \[1\], got \[2\]"),
        (np.float32(0), r"action: expected \[1\], got \[\]"),
        (np.array([np.nan], np.float32), "action: expected a finite number, got nan"),
        (np.array([np.inf], np.float32), "action: expected a finite number, got inf"),
    ],
)
def test_bad_action_is_refused_and_plays_nothing(
    env: TakeCoverEnv, action: np.ndarray, message: str
) -> None:
    env.reset(seed=1)
    before = engine_of(env).game.get_episode_time()
    with pytest.raises(ValueError, match=message):
        env.step(action)
    assert engine_of(env).game.get_episode_time() == before


@needs_vizdoom
def test_death_terminates_rewards_the_fatal_tic_and_repeats_the_last_frame(
    env: TakeCoverEnv,
) -> None:
    frame, _ = env.reset(seed=1)
    terminated, rewards = False, []
    while not terminated:
        last = frame
        frame, reward, terminated, truncated, info = env.step(STAY)
        rewards.append(reward)
        assert not truncated
        assert info.pop("end_probability") >= (0.125 if terminated else 0.0)
        assert info == ({"last_frame_repeated": True} if terminated else {})
    assert rewards == [1.0] * len(rewards)
    assert 20 < len(rewards) < 2000
    np.testing.assert_array_equal(frame, last)
    with pytest.raises(ResetNeeded):
        env.step(STAY)


@needs_vizdoom
def test_time_limit_truncates_after_2100_tics_with_a_frame_of_its_own(env: TakeCoverEnv) -> None:
    env.reset(seed=1)
    engine_of(env).game.send_game_command("god")
    for step in range(1, 2101):
        _, reward, terminated, truncated, info = env.step(STAY)
        assert (reward, terminated, truncated) == (1.0, False, step == 2100)
        assert "last_frame_repeated" not in info
    with pytest.raises(ResetNeeded):
        env.step(STAY)


def test_step_before_reset_is_refused() -> None:
    pytest.importorskip("vizdoom", reason="vizdoom is not installed")
    with pytest.raises(ResetNeeded):
        TakeCoverEnv().step(STAY)


@needs_vizdoom
def test_unknown_render_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="render_mode: expected None or 'rgb_array', got 'human'"):
        TakeCoverEnv(render_mode="human")


def test_without_vizdoom_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    with pytest.raises(UserError, match="pip install vizdoom"):
        take_cover.make()


def test_importing_the_module_imports_neither_vizdoom_nor_tensorflow() -> None:
    script = (
        "import sys, wm_tf.envs.take_cover as t;"
        "print({'vizdoom', 'tensorflow', 'pygame'} & set(sys.modules), t.ENVIRONMENT['id'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["set()", "VizdoomTakeCover", "/", "take_cover.cfg"], done.stderr


@pytest.mark.parametrize(
    ("health", "lost", "probability"),
    [
        (100, 0, 0.0), (16, 0, 0.0),
        (100, 21, 4 / 8), (100, 168, 4 / 8), (79, 42, 5 / 8), (37, 63, 7 / 8), (16, 21, 1.0),
        (100, 189, 58 / 64),  # two fireballs: less than 5 by two dice in 6 ways of 64
    ],
)  # fmt: skip
def test_how_likely_hits_were_to_kill(health: int, lost: int, probability: float) -> None:
    assert take_cover._fatal(health, lost) == pytest.approx(probability)


def health(env: TakeCoverEnv) -> float:
    import vizdoom

    return engine_of(env).game.get_game_variable(vizdoom.GameVariable.HEALTH)


@needs_vizdoom
def test_an_immortal_player_sees_the_same_and_goes_on(env: TakeCoverEnv) -> None:
    immortal = TakeCoverEnv(immortal=True)
    hits = 0
    try:
        for seed in range(6):
            env.reset(seed=seed)
            immortal.reset(seed=seed)
            terminated = False
            while not terminated:
                frame, _, terminated, _, info = env.step(STAY)
                same, reward, ended, _, known = immortal.step(STAY)
                assert (reward, ended) == (1.0, False)
                assert known["end_probability"] == info["end_probability"]
                hits += info["end_probability"] > 0.0
                assert terminated or (frame == same).all()
        assert hits > 6  # some did not kill
    finally:
        immortal.close()


@needs_vizdoom
def test_an_immortal_player_has_all_health_again_after_what_would_have_killed() -> None:
    immortal = TakeCoverEnv(immortal=True)
    health, damage, deaths = take_cover.HEALTH, 0, 0
    try:
        immortal.reset(seed=1)
        for _ in range(1000):
            info = immortal.step(STAY)[4]
            lost, damage = engine_of(immortal).damage() - damage, engine_of(immortal).damage()
            assert lost % take_cover.DAMAGE == 0
            assert info["end_probability"] == take_cover._fatal(health, lost)
            health -= lost
            if health <= 0:
                health, deaths = take_cover.HEALTH, deaths + 1
        assert deaths > 3
    finally:
        immortal.close()


@needs_vizdoom
def test_a_hit_is_as_likely_to_kill_as_it_is_said_to_be(env: TakeCoverEnv) -> None:
    expected, deaths, variance = 0.0, 0, 0.0
    for seed in range(40):
        env.reset(seed=seed)
        over = False
        while not over:
            before = health(env)
            *_, terminated, truncated, info = env.step(STAY)
            probability = info["end_probability"]
            assert (before - health(env)) % take_cover.DAMAGE == 0
            assert (probability > 0.0) == (health(env) < before)
            assert env._health == health(env)
            expected, variance = expected + probability, variance + probability * (1 - probability)
            deaths += terminated
            over = terminated or truncated
    assert variance > 2.0  # hits that may or may not kill are what this is about
    assert abs(deaths - expected) < 3.0 * variance**0.5


# --- Determinism


@needs_vizdoom
def test_same_seed_same_episode_first_or_later_or_after_an_unfinished_one(
    env: TakeCoverEnv,
) -> None:
    first = play(env, 5)
    other = play(env, 6)
    again = play(env, 5)
    play(env, 7, steps=33)
    after_an_unfinished_one = play(env, 5)
    env.close()
    in_a_new_engine = play(env, 5)
    assert first[2]
    assert first == again == after_an_unfinished_one == in_a_new_engine
    assert other[0] != first[0]


@needs_vizdoom
def test_two_at_once_do_not_disturb_each_other(env: TakeCoverEnv) -> None:
    second = TakeCoverEnv()
    try:
        alone = play(env, 5, steps=50), play(env, 6, steps=50)
        frames = env.reset(seed=5)[0], second.reset(seed=6)[0]
        digests = [hashlib.sha256(frame) for frame in frames]
        policies = [take_cover.random_policy(np.random.default_rng(seed)) for seed in (5, 6)]
        for _ in range(50):
            for each, digest, policy in zip((env, second), digests, policies, strict=True):
                frame, reward, terminated, truncated, _ = each.step(next(policy))
                digest.update(frame)
                digest.update(np.array([reward, terminated, truncated]))
        assert [digest.hexdigest() for digest in digests] == [episode[0] for episode in alone]
    finally:
        second.close()


@needs_vizdoom
def test_resets_without_seed_go_on_from_the_last_seed(env: TakeCoverEnv) -> None:
    def three() -> list[str]:
        env.reset(seed=5)
        return [play(env, None, steps=1)[0] for _ in range(3)]

    def fireworks() -> list[bytes]:
        env.reset(seed=5)
        pictures = []
        for _ in range(3):
            env.reset()
            for _ in range(60):
                frame = env.step(STAY)[0]
            pictures.append(frame.tobytes())
        return pictures

    pictures = fireworks()
    assert len(set(pictures)) == 3
    assert pictures == fireworks()


# --- Random policies


def test_random_policy_holds_1_to_10_tics() -> None:
    policy = take_cover.random_policy(np.random.default_rng(1))
    actions = np.stack(list(itertools.islice(policy, 20_000)))
    assert actions.shape == (20_000, 1)
    assert actions.dtype == np.float32
    runs = [len(list(run)) for _, run in itertools.groupby(actions[:, 0])][:-1]
    shares = np.bincount(runs, minlength=12)[1:11] / len(runs)
    assert min(runs) == 1
    assert max(runs) == 10
    np.testing.assert_allclose(shares, 0.1, atol=0.025)  # 5 standard errors of 3600 draws


def test_exploring_policy_holds_longer_in_some_episodes_than_in_others() -> None:
    longest = []
    for seed in range(40):
        policy = take_cover.exploring_policy(np.random.default_rng(seed))
        actions = [float(action[0]) for action in itertools.islice(policy, 2000)]
        longest.append(max(len(list(run)) for _, run in itertools.groupby(actions)))
    low, high = take_cover.EXPLORING_HOLDS
    assert low <= min(longest) < 10 and 100 < max(longest) <= high


def test_jitter_policy_draws_each_tic_and_its_three_moves_are_equally_likely() -> None:
    policy = take_cover.jitter_policy(np.random.default_rng(1))
    values = np.concatenate(list(itertools.islice(policy, 10_000)))
    assert values.dtype == np.float32
    assert len(np.unique(values)) > 9_900
    shares = [np.mean(values < -1 / 3), np.mean(np.abs(values) <= 1 / 3), np.mean(values > 1 / 3)]
    np.testing.assert_allclose(shares, 1 / 3, atol=0.025)  # 5 standard errors
