"""Checkpoints hold everything that training goes on from, and refuse what is not theirs."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from wm_tf import storage
from wm_tf.errors import DamagedFile
from wm_tf.models import Memory
from wm_tf.training import checkpoint


def compiled(hidden_size: int = 4, seed: int = 1) -> Memory:
    memory = Memory(2, 1, hidden_size, 2, seed=seed)
    memory.compile(keras.optimizers.Adam(1e-3))
    return memory


def state(memory: Memory) -> list[np.ndarray]:
    variables = [*memory.weights, *memory.optimizer.variables, memory.seed_generator.state]
    return [variable.numpy() for variable in variables]


def test_weights_optimiser_and_random_state_round_trip(tmp_path: Path) -> None:
    one, other = compiled(seed=1), compiled(seed=2)
    one.optimizer.build(one.trainable_variables)
    generator = np.random.default_rng(1)
    for variable in (*one.weights, *one.optimizer.variables[2:]):
        variable.assign(generator.normal(size=variable.shape))
    one.optimizer.iterations.assign(17)
    one.dropout_mask(2)  # advances the random state
    path = tmp_path / "memory.npz"
    checkpoint.save(path, one, {"epochs": 3})
    held = checkpoint.restore(path, other)
    assert held["epochs"] == checkpoint.facts(path)["epochs"] == 3
    for expected, actual in zip(state(one), state(other), strict=True):
        np.testing.assert_array_equal(actual, expected)
    np.testing.assert_array_equal(one.dropout_mask(2), other.dropout_mask(2))
    assert checkpoint.digest(one) == checkpoint.digest(other)


def test_weights_only_leave_the_rest_alone(tmp_path: Path) -> None:
    one, other = compiled(seed=1), compiled(seed=2)
    path = tmp_path / "memory.npz"
    checkpoint.save(path, one, {})
    before = other.seed_generator.state.numpy()
    checkpoint.restore(path, other, weights_only=True)
    assert checkpoint.digest(one) == checkpoint.digest(other)
    np.testing.assert_array_equal(other.seed_generator.state, before)
    uncompiled = Memory(2, 1, 4, 2)
    checkpoint.restore(path, uncompiled, weights_only=True)
    assert checkpoint.digest(uncompiled) == checkpoint.digest(one)


def test_a_digest_names_the_weights() -> None:
    memory = compiled()
    before = checkpoint.digest(memory)
    bias = memory.bias.numpy()
    memory.bias.assign(bias + 1e-6)
    assert checkpoint.digest(memory) != before
    memory.bias.assign(bias)
    assert checkpoint.digest(memory) == before


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "memory.npz"
    checkpoint.save(path, compiled(4), {})
    with pytest.raises(DamagedFile, match=r"memory.npz: .*kernel: expected \[8, 20\], got \[7, 16"):
        checkpoint.restore(path, compiled(5))
    storage.write_npz(path, {}, {"kind": "checkpoint"})
    with pytest.raises(DamagedFile, match=r"memory.npz: .*kernel: expected .*, got nothing"):
        checkpoint.restore(path, compiled(4))


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "memory.npz"
    with pytest.raises(DamagedFile, match=r"memory.npz: no such file"):
        checkpoint.facts(path)
    storage.write_npz(path, {}, {"kind": "episode"})
    with pytest.raises(DamagedFile, match=r"memory.npz: not a checkpoint"):
        checkpoint.restore(path, compiled())
    held = {"kind": "checkpoint", "format_version": 99}
    storage.write_npz(path, {}, held)
    with pytest.raises(DamagedFile, match=r"memory.npz: format version 99, expected 1"):
        checkpoint.restore(path, compiled())
    path.write_bytes(path.read_bytes()[1:])
    with pytest.raises(DamagedFile, match=r"memory.npz: damaged"):
        checkpoint.facts(path)
