"""The evolution loop: selects, saves, goes on after being killed, stops at NaN."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wm_tf import storage
from wm_tf.config import ControllerConfig, get_task
from wm_tf.errors import DamagedFile, RunFailed
from wm_tf.evolution.evolution import Evolution
from wm_tf.evolution.fitness import Fitness
from wm_tf.evolution.space import Weights
from wm_tf.evolution.train import Trained, train_controller

TASK = get_task("take_cover")
CONFIG = ControllerConfig(
    generations=12, population=8, sigma=0.3, selection_interval=5, selection_episodes=4
)
GOAL = np.linspace(-1.0, 1.0, 6)


def quadratic(candidates: np.ndarray, generation: int) -> Fitness:
    """Noise that depends on the generation alone, as a real fitness's does."""
    noise = np.random.default_rng(generation).normal(0.0, 0.01, len(candidates))
    return Fitness(-((candidates - GOAL) ** 2).sum(axis=1) + noise, 100)


def select(parameters: np.ndarray) -> np.ndarray:
    return quadratic(np.repeat(parameters[np.newaxis], 4, 0), 0).returns


def run(folder: Path, config: ControllerConfig = CONFIG, **changes: Any) -> Trained:
    arguments = {
        "fitness": quadratic, "select": select, "space": Weights(np.full(6, 0.1)),
        "task": TASK, "seed": 3, "facts": {"env": "dream"},
        "path": folder / "controller.npz", "logs": folder / "logs", **changes,
    }  # fmt: skip
    made = [arguments.pop(name) for name in ("fitness", "space")]
    learner = Evolution(*made, config, arguments.pop("seed"))
    return train_controller(learner, config=config, **arguments)


def state(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The saved state without the seconds, the one thing that differs from run to run."""
    arrays, metadata = storage.read_npz(folder / "controller.npz")
    del metadata["seconds"]
    return arrays, metadata


def assert_same_state(one: Path, other: Path) -> None:
    (arrays, metadata), (others, other_metadata) = state(one), state(other)
    assert metadata == other_metadata
    assert arrays.keys() == others.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, others[name], err_msg=name)


def test_it_improves_and_keeps_the_best_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evolved = run(tmp_path)
    assert [generation for generation, _, _ in evolved.selections] == [0, 5, 10, 12]
    scores = [score for _, score, _ in evolved.selections]
    assert scores[-1] > scores[0] + 1.0
    assert evolved.best_score == max(scores)
    np.testing.assert_allclose(select(evolved.best).mean(), evolved.best_score)
    lines = capsys.readouterr().out.splitlines()
    assert sum("steps/s" in line for line in lines) == 12
    text = (tmp_path / "logs" / "metrics.jsonl").read_text()
    logged = [json.loads(line) for line in text.splitlines()]
    assert {"best", "mean", "sigma", "steps_per_second"} <= logged[1].keys()
    assert [line["step"] for line in logged if "selection" in line] == [0, 5, 10, 12]


def test_an_evolution_that_is_drawn_otherwise_here_is_not_gone_on_with(tmp_path: Path) -> None:
    run(tmp_path, dataclasses.replace(CONFIG, generations=3))
    path = tmp_path / "controller.npz"
    arrays, metadata = storage.read_npz(path)
    storage.write_npz(path, {**arrays, "mean": arrays["mean"] + 1e-3}, metadata)
    with pytest.raises(DamagedFile, match="does not draw the candidates that it tells of"):
        run(tmp_path)


def test_the_state_of_another_version_is_not_gone_on_with(tmp_path: Path) -> None:
    """In which something else learnt, so that arrays are missing or of another shape."""
    run(tmp_path, dataclasses.replace(CONFIG, generations=3))
    path = tmp_path / "controller.npz"
    arrays, metadata = storage.read_npz(path)
    learnt = sorted(arrays.keys() - {"best", "mean", "selections"})
    storage.write_npz(path, {name: arrays[name] for name in arrays if name != learnt[0]}, metadata)
    kept = path.read_bytes()
    with pytest.raises(DamagedFile, match="does not fit what learns in this version"):
        run(tmp_path)
    assert path.read_bytes() == kept


def test_the_best_mean_is_kept_even_if_later_ones_are_worse(tmp_path: Path) -> None:
    scores = iter([1.0, 9.0, 2.0, 3.0])
    seen: list[np.ndarray] = []

    def falling(parameters: np.ndarray) -> np.ndarray:
        seen.append(parameters)
        return np.full(4, next(scores))

    evolved = run(tmp_path, select=falling)
    assert evolved.best_score == 9.0
    np.testing.assert_array_equal(evolved.best, seen[1])
    np.testing.assert_array_equal(state(tmp_path)[0]["best"], seen[1])


def test_going_on_is_as_never_having_stopped(tmp_path: Path) -> None:
    run(tmp_path / "whole", dataclasses.replace(CONFIG, generations=10))
    for generations in (5, 10):
        run(tmp_path / "parts", dataclasses.replace(CONFIG, generations=generations))
    assert_same_state(tmp_path / "whole", tmp_path / "parts")


def test_what_began_with_zeros_and_was_stopped_early_has_the_same_selections(
    tmp_path: Path,
) -> None:
    config = dataclasses.replace(CONFIG, generations=10, selection_interval=10)
    zeros = Weights(np.zeros(6))
    run(tmp_path / "whole", config, space=zeros)

    def stopped(candidates: np.ndarray, generation: int) -> Fitness:
        if generation == 3:
            raise KeyboardInterrupt
        return quadratic(candidates, generation)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", config, space=zeros, fitness=stopped)
    assert len(state(tmp_path / "parts")[0]["selections"]) == 0
    ended = shutil.copytree(tmp_path / "parts", tmp_path / "ended")
    run(tmp_path / "parts", config, space=zeros)
    assert_same_state(tmp_path / "whole", tmp_path / "parts")
    # Where it shall go on no further, what it has is scored.
    fewer = run(ended, dataclasses.replace(config, generations=2), space=zeros)
    assert [generation for generation, _, _ in fewer.selections] == [3]
    assert [generation for generation, *_ in state(ended)[0]["selections"]] == [3]


def test_what_is_evolved_enough_is_left_alone(tmp_path: Path) -> None:
    first = run(tmp_path)
    written = (tmp_path / "controller.npz").read_bytes()

    def never(*_: object) -> Fitness:
        raise AssertionError

    again = run(tmp_path, fitness=never, select=never)
    np.testing.assert_array_equal(again.best, first.best)
    assert again.selections == first.selections
    assert (tmp_path / "controller.npz").read_bytes() == written


def test_nan_stops_the_run_and_leaves_its_state(tmp_path: Path) -> None:
    def broken(candidates: np.ndarray, generation: int) -> Fitness:
        result = quadratic(candidates, generation)
        if generation == 7:
            result.returns[2] = np.nan
        return result

    with pytest.raises(RunFailed, match=r"generation 7: .* 2 is nan \(evolution seed 3\)"):
        run(tmp_path / "broken", fitness=broken)
    run(tmp_path / "seven", dataclasses.replace(CONFIG, generations=7))
    arrays, _ = state(tmp_path / "broken")
    np.testing.assert_array_equal(arrays["fitness"], state(tmp_path / "seven")[0]["fitness"])
    run(tmp_path / "broken")  # once it is mended
    run(tmp_path / "whole")
    assert_same_state(tmp_path / "broken", tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"facts": {"env": "real"}}, "another env"),
        ({"config": dataclasses.replace(CONFIG, sigma=0.2)}, "another config"),
        ({"task": get_task("car_racing")}, "another task"),
    ],
)
def test_the_state_of_something_else_is_refused(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    run(tmp_path)
    with pytest.raises(DamagedFile, match=f"controller.npz: belongs to {named}"):
        run(tmp_path, **changes)


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "controller.npz"
    path.write_bytes(b"damaged")
    with pytest.raises(DamagedFile, match=r"controller.npz: damaged"):
        run(tmp_path)
    storage.write_npz(path, {}, {"kind": "checkpoint"})
    with pytest.raises(DamagedFile, match=r"controller.npz: not the state of an evolution"):
        run(tmp_path)
    storage.write_npz(path, {}, {"kind": "evolution", "format_version": 99})
    with pytest.raises(DamagedFile, match=r"controller.npz: format version 99, expected 1"):
        run(tmp_path)


_CHILD = """
import importlib.util, sys, time
from pathlib import Path
specification = importlib.util.spec_from_file_location("evolving", sys.argv[1])
evolving = importlib.util.module_from_spec(specification)
specification.loader.exec_module(evolving)

def slowly(candidates, generation):
    time.sleep(0.03)  # so that the kill meets every part of the loop
    return evolving.quadratic(candidates, generation)

print("started", flush=True)
evolving.run(Path(sys.argv[2]), fitness=slowly)
print("finished", flush=True)
"""


def test_a_killed_evolution_goes_on_with_the_identical_trajectory(tmp_path: Path) -> None:
    """Real processes, killed by SIGKILL after random times until one of them finishes."""
    run(tmp_path / "whole")
    kills, generations = 0, set()
    delays = random.Random(1)
    path = tmp_path / "killed" / "controller.npz"
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", _CHILD, __file__, str(tmp_path / "killed")],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        ) as child:  # fmt: skip
            assert child.stdout is not None
            assert child.stdout.readline() == "started\n"
            if kills < 2:
                before = len(state(path.parent)[0]["fitness"]) if path.exists() else 0
                _wait_for_generation(path, before + 1)
                time.sleep(delays.uniform(0.0, 0.1))
                child.send_signal(signal.SIGKILL)
            child.communicate()
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL
        kills += 1
        generations.add(len(state(path.parent)[0]["fitness"]))
    assert kills == 2
    assert min(generations) >= 1
    assert max(generations) < 12  # each was killed in the middle
    assert_same_state(tmp_path / "whole", tmp_path / "killed")


def _wait_for_generation(path: Path, generation: int) -> None:
    """Until the state has so many generations."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if path.exists() and len(state(path.parent)[0]["fitness"]) >= generation:
            return
        time.sleep(0.005)
    raise TimeoutError(path)
