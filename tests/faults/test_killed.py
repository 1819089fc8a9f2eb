"""Commands killed at random points: what was done is kept, and the same command goes on."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tools import SMOKE, Command, arrays, unsound, until

from wm_tf import storage
from wm_tf.evolution.strategy import Strategy
from wm_tf.training import checkpoint

KILLS = 20
EVOLVE = (
    *("train-controller", "car_racing", *SMOKE, "--generations", "100", "--population", "8"),
    *("--rollouts", "2", "--horizon", "60", "--selection-interval", "25"),
    *("--selection-episodes", "1", "--workers", "1"),
)


def state(run: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    return storage.read_npz(run / "checkpoints" / "controller-00.npz")


def generations(run: Path) -> int:
    path = run / "checkpoints" / "controller-00.npz"
    return len(state(run)[0]["fitness"]) if path.exists() else 0


def without_controller(finished: Path, folder: Path) -> Path:
    shutil.copytree(finished, folder)
    (folder / "checkpoints" / "controller-00.npz").unlink()
    (folder / "stages" / "controller-00.json").unlink()
    return folder


def test_trainer(
    finished: Path, tmp_path: Path, start: Callable, seen: Callable, chance: random.Random
) -> None:
    """SIGKILL of the trainer at 20 random points, ten of them while it saves

    The same command goes on, 20 of 20 times, with at most one generation lost; in the end next
    candidates, mean, sigma and history are the uninterrupted run's, bit for bit.
    """
    whole, killed = (without_controller(finished, tmp_path / name) for name in ("whole", "killed"))
    status, errors = start(*EVOLVE, "--run", whole).wait()
    assert status == 0, errors
    most_lost, in_saves = 0, 0
    for number in range(KILLS):
        before = generations(killed)
        trainer = start(*EVOLVE, "--run", killed)
        said = _generations_said(trainer, 1 + chance.randrange(3))
        if number % 2:
            saving = (killed / "checkpoints").glob
            assert until(lambda: any(saving(".controller-00.npz.*")), 60)  # noqa: B023
            in_saves += 1
        else:
            time.sleep(chance.uniform(0.0, 0.15))
        trainer.kill()
        assert generations(killed) < 100, "it was not killed in the middle"
        # What it said of a generation came after the save, and at most the next one is lost.
        most_lost = max(most_lost, said - generations(killed))
        assert generations(killed) > before
        assert unsound(killed) == []
    status, errors = start(*EVOLVE, "--run", killed).wait()
    assert status == 0, errors
    (one, facts), (other, others) = state(whole), state(killed)
    for held in (facts, others):
        del held["seconds"]
    assert facts == others
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)
    asked = [Strategy.restore(dict(held), facts["strategy"]).ask() for held in (one, other)]
    np.testing.assert_array_equal(*asked)
    assert most_lost == 0
    seen(
        f"{KILLS} of {KILLS} went on ({in_saves} killed with the new state half written); 100 "
        "generations' fitness, mean, sigma, selections and next candidates bitwise those of the "
        "uninterrupted run; no saved generation lost"
    )


def _generations_said(trainer: Command, count: int) -> int:
    """Reads so many lines of finished generations; the number of generations in the last."""
    for line in trainer.process.stdout:
        if line.startswith("generation ") and "steps/s" in line:
            count -= 1
            if not count:
                return 1 + int(line.split(":")[0].split()[1])
    raise AssertionError(trainer.process.stderr.read())


STAGES: dict[str, Sequence[str]] = {
    "collect": ("--episodes", "12", "--workers", "2"),
    "train-vision": ("--epochs", "4", "--frame-stride", "8"),
    "encode": (),
    "train-memory": ("--epochs", "6", "--batch-size", "8"),
}


def test_stages(tmp_path: Path, start: Callable, seen: Callable, chance: random.Random) -> None:
    """SIGKILL of collect, train-vision, encode and train-memory at random points

    The same command goes on; nothing half written is read as whole, and finished episodes and
    epochs are kept.
    """
    kept: dict[str, int] = {}
    kills = 0
    for folder, disturbed in ((tmp_path / "whole", False), (tmp_path / "killed", True)):
        for name, flags in STAGES.items():
            arguments = (name, "car_racing", *SMOKE, *flags, "--run", folder)
            for _ in range(3 * disturbed):
                done = progress(folder)
                command = start(*arguments)
                # In the middle of the work: after something new was finished.
                until(lambda: progress(folder) != done or command.process.poll() is not None)  # noqa: B023
                time.sleep(chance.uniform(0.0, 0.5))
                if command.process.poll() is None:
                    command.kill()
                    kills += 1
                    kept[name] = kept.get(name, 0) + 1
                assert unsound(folder) == []
                assert done.items() <= progress(folder).items() | _replaced(done, folder)
            status, errors = start(*arguments).wait()
            assert status == 0, errors
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for path in sorted((whole / "rollouts").rglob("*.npz")):
        assert (killed / path.relative_to(whole)).read_bytes() == path.read_bytes()
    same = [
        arrays(whole / "checkpoints" / name) == arrays(killed / "checkpoints" / name)
        for name in ("vision-00.npz", "memory-00.npz")
    ]
    epochs = [
        checkpoint.facts(killed / "checkpoints" / name)["epochs"]
        for name in ("vision-00.npz", "memory-00.npz")
    ]
    assert epochs == [4, 6]
    assert same == [True, True]
    seen(
        f"{kills} kills ({', '.join(f'{name} {count}' for name, count in kept.items())}): every "
        "file whole after each, finished episodes and epochs kept; episodes and both checkpoints "
        "bitwise those of the undisturbed run"
    )


def progress(folder: Path) -> dict[str, Any]:
    """What is finished: each episode by its time, each checkpoint by its epochs."""
    done: dict[str, Any] = {}
    for place in ("rollouts", "latents"):
        for path in (folder / place).rglob("episode-*.npz"):
            done[str(path.relative_to(folder))] = path.stat().st_mtime_ns
    for path in (folder / "checkpoints").glob("*.npz"):
        done[path.name] = checkpoint.facts(path)["epochs"]
    return done


def _replaced(done: dict[str, Any], folder: Path) -> set[tuple[str, Any]]:
    """Of what was done, the checkpoints that now have more epochs."""
    now = progress(folder)
    return {
        (name, value)
        for name, value in done.items()
        if not name.startswith(("rollouts", "latents")) and now.get(name, 0) >= value
    }


def test_reproduce(
    finished: Path, tmp_path: Path, start: Callable, seen: Callable, chance: random.Random
) -> None:
    """SIGKILL of reproduce at random points

    The same command goes on to the results of the undisturbed run.
    """
    run = tmp_path / "run"
    arguments = ("reproduce", "car_racing", *SMOKE, "--iterations", "1", "--run", run)
    kills, stages = 0, []
    while kills < 8:
        command = start(*arguments)
        time.sleep(chance.uniform(4.0, 25.0))
        if command.process.poll() is not None:
            break
        command.kill()
        kills += 1
        stages.append(len(list((run / "stages").glob("*.json"))))
        assert unsound(run) == []
    status, errors = start(*arguments).wait()
    assert status == 0, errors
    for path in sorted((finished / "checkpoints").glob("*.npz")):
        assert arrays(path) == arrays(run / "checkpoints" / path.name), path.name
    for path in sorted((finished / "rollouts").rglob("*.npz")):
        assert (run / path.relative_to(finished)).read_bytes() == path.read_bytes()
    seen(
        f"{kills} kills, after which {stages} of 4 stages had begun: every file whole after each, "
        "and in the end episodes, V, M and C bitwise those of the undisturbed run"
    )


def test_exports_are_replaced_in_one_step(
    finished: Path, tmp_path: Path, start: Callable, seen: Callable, chance: random.Random
) -> None:
    """SIGKILL of export at random points

    The models that were there, or the new ones: never a part.
    """
    out = tmp_path / "models"
    arguments = ("export", "car_racing", *SMOKE, "--run", finished, "--out", out)
    status, errors = start(*arguments).wait()
    assert status == 0, errors
    began = time.monotonic()
    assert start(*arguments).wait()[0] == 0
    usual = time.monotonic() - began
    for _ in range(6):
        command = start(*arguments)
        time.sleep(chance.uniform(0.4, 1.0) * usual)
        command.kill()
        status, errors = start("verify", out).wait()
        assert status == 0, errors
    assert start(*arguments).wait()[0] == 0
    assert [path.name for path in out.iterdir() if path.name.startswith(".car")] == []
    seen("6 kills: the exported models were complete and verified after each, old or new")
