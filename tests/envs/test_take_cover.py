"""The real take_cover: its contract, its determinism, and that no engine ever stays behind."""

import hashlib
import itertools
import mmap
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

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
from wm_tf.errors import RunFailed, UserError
from wm_tf.execution import LocalExecutor, map_chunks

try:
    import vizdoom
except ImportError:
    vizdoom = None

needs_vizdoom = pytest.mark.skipif(vizdoom is None, reason="vizdoom is not installed")
on_posix = pytest.mark.skipif(os.name != "posix", reason="engines are supervised on POSIX alone")

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


def processes(words: str) -> list[int]:
    """Ids of the living processes that have these words in their command line."""
    listing = subprocess.run(
        ["ps", "-axww", "-o", "pid=,args="], capture_output=True, text=True, check=True
    )
    return [int(line.split()[0]) for line in listing.stdout.splitlines() if words in line]


def leftovers(instance: str, *folders: Path) -> list[object]:
    """What is there of the engine with that instance id, and in the folders."""
    shared = Path("/dev/shm").glob(f"*{instance}") if sys.platform == "linux" else ()
    files = (path for folder in folders for path in folder.iterdir())
    return [*processes(instance), *shared, *files]


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def stop_engine(instance: str) -> None:
    """SIGSTOP to the engine itself, as if it hung."""
    for process in processes(instance):
        arguments = subprocess.run(
            ["ps", "-ww", "-o", "args=", "-p", str(process)], capture_output=True, text=True
        ).stdout
        if "doom_supervisor" not in arguments:
            os.kill(process, signal.SIGSTOP)
            return
    raise AssertionError("no engine")


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


# --- No leftovers


@needs_vizdoom
@on_posix
def test_close_leaves_nothing(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path_factory.mktemp("with a space")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    env = TakeCoverEnv()
    env.reset(seed=1)
    instance = engine_of(env).game.get_instance_id()
    assert len(processes(instance)) == 2
    assert any(scratch.iterdir())
    env.step(STAY)
    env.close()
    assert leftovers(instance, tmp_path, scratch) == []
    env.close()


@needs_vizdoom
@on_posix
def test_close_of_a_hung_engine_does_not_hang(env: TakeCoverEnv) -> None:
    env.reset(seed=1)
    instance = engine_of(env).game.get_instance_id()
    stop_engine(instance)
    start = time.monotonic()
    env.close()
    assert time.monotonic() - start < 2
    assert leftovers(instance) == []


@needs_vizdoom
@on_posix
def test_a_killed_engine_is_an_error_and_the_next_reset_starts_another(env: TakeCoverEnv) -> None:
    expected = play(env, 5)
    env.reset(seed=1)
    instance = engine_of(env).game.get_instance_id()
    for process in processes(instance):
        os.kill(process, signal.SIGKILL)
    with pytest.raises(RunFailed, match="the ViZDoom engine ended"):
        env.step(STAY)
    assert play(env, 5) == expected
    assert leftovers(instance) == []


@needs_vizdoom
@on_posix
def test_an_engine_that_does_not_start_is_an_error_and_leaves_nothing(
    env: TakeCoverEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env.close()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "no python"))
    with pytest.raises(RunFailed, match="no python may not be run"):
        env.reset(seed=1)
    assert list(tmp_path.iterdir()) == []


@needs_vizdoom
@pytest.mark.skipif(sys.platform != "linux", reason="shared memory is seen on Linux alone")
def test_the_next_engine_removes_what_dead_processes_left(
    env: TakeCoverEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env.close()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead = subprocess.Popen(["true"])
    dead.wait()
    names = (f"{dead.pid}_old", f"{os.getpid()}_old", f"{dead.pid}_new")
    folders = [tmp_path / f"wm_tf_doom_{name}" for name in names]
    unused = [Path(f"/dev/shm/ViZDoomMQCtr{dead.pid}{age}") for age in ("old", "new")]
    mapped = Path(f"/dev/shm/ViZDoomSM{dead.pid}old")
    for folder in folders:
        folder.mkdir()
    for file in (*unused, mapped):
        file.write_bytes(b"0")
    with mapped.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), 1)
    try:
        for path in (*folders[:2], unused[0], mapped):
            os.utime(path, (time.time() - 120,) * 2)
        env.reset(seed=1)
        exist = [path.exists() for path in (*folders, *unused, mapped)]
        assert exist == [False, True, True, False, True, True]
    finally:
        env.close()
        memory.close()
        for path in (*unused, mapped):
            path.unlink(missing_ok=True)


def play_for_ever(sender: Connection) -> None:
    """Work of a process that is going to be killed: sends its engine's id, then plays."""
    env = TakeCoverEnv()
    env.reset(seed=1)
    sender.send(engine_of(env).game.get_instance_id())
    while True:
        if any(env.step(STAY)[2:4]):
            env.reset()
        sender.send("alive")


@needs_vizdoom
@on_posix
def test_killing_the_process_ends_its_hung_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    worker = context.Process(target=play_for_ever, args=(sender,))
    worker.start()
    try:
        sender.close()
        assert receiver.poll(60)
        instance = receiver.recv()
        assert len(processes(instance)) == 2
        stop_engine(instance)
        while receiver.poll(1):  # what was sent before
            receiver.recv()
        assert worker.is_alive(), "the engine's stop should have made it wait"
    finally:
        worker.kill()
        worker.join()
    assert wait_until(lambda: not leftovers(instance, tmp_path)), leftovers(instance, tmp_path)


def play_and_hang_once(chunk: tuple[int, str]) -> tuple[str, int, bool]:
    """Work of an executor's process: an episode, whose engine hangs the first time."""
    seed, marker = chunk
    env = TakeCoverEnv()
    env.reset(seed=1)
    try:
        with open(marker, "x") as file:
            instance = engine_of(env).game.get_instance_id()
            file.write(instance)
    except FileExistsError:
        pass
    else:
        stop_engine(instance)
    result = play(env, seed)
    env.close()
    return result


@needs_vizdoom
@on_posix
def test_the_executor_notices_a_hung_engine_and_plays_its_episode_again(
    env: TakeCoverEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    marker = tmp_path / "instance"
    expected = play(env, 5)
    monkeypatch.setenv("TMPDIR", str(scratch))
    with LocalExecutor(workers=1, timeout=6) as executor:
        results = map_chunks(executor, play_and_hang_once, [(5, str(marker))])
    assert results == [expected]
    instance = marker.read_text()
    assert wait_until(lambda: not leftovers(instance, scratch)), leftovers(instance, scratch)


@needs_vizdoom
@on_posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_leave_nothing(tmp_path: Path, number: signal.Signals) -> None:
    script = (
        "from wm_tf.envs.take_cover import make; env = make(); env.reset(seed=1);"
        "print(env._engine.game.get_instance_id(), flush=True)\n"
        "while True:\n"
        "    if any(env.step([0.0])[2:4]): env.reset()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        instance = process.stdout.readline().strip()
        assert len(processes(instance)) == 2
        os.killpg(process.pid, number)  # what a terminal does for Ctrl-C
        _, errors = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -number
    assert "Exception ignored" not in errors
    assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)
    assert wait_until(lambda: not leftovers(instance, tmp_path)), leftovers(instance, tmp_path)
