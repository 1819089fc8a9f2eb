"""M against a float64 LSTM in NumPy; what is masked does not count; it learns; it can be saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from wm_tf.config import get_task
from wm_tf.models import Memory, mixture
from wm_tf.models import memory as memory_module

Z, A, H, K = 3, 2, 8, 2
BATCH, STEPS = 4, 7

Batch = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]


def make_memory(**options: Any) -> Memory:
    """A small M whose weights, biases included, are all random."""
    keras.utils.set_random_seed(1)
    memory = Memory(Z, A, H, K, **options)
    generator = np.random.default_rng(1)
    for weight in memory.weights:
        weight.assign(generator.normal(0.0, 0.5, weight.shape))
    return memory


def sequences(length: int = STEPS, seed: int = 0) -> Batch:
    """(inputs, targets) of random sequences: the last two are padded after 3 steps."""
    generator = np.random.default_rng(seed)
    latent = generator.normal(size=(BATCH, length + 1, Z)).astype(np.float32)
    action = generator.uniform(-1, 1, (BATCH, length, A)).astype(np.float32)
    mask = np.ones((BATCH, length), np.float32)
    mask[2:, 3:] = 0.0
    latent_mask = mask.copy()
    latent_mask[1, -1] = 0.0  # the last frame was repeated
    done = np.zeros((BATCH, length), np.float32)
    done[1, -1] = done[3, 2] = 1.0
    reward = generator.normal(size=(BATCH, length)).astype(np.float32)
    targets = {
        "next_latent": latent[:, 1:], "reward": reward, "done": done, "mask": mask,
        "latent_mask": latent_mask,
    }  # fmt: skip
    return {"latent": latent[:, :-1], "action": action}, targets


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def numpy_step(memory: Memory, *arguments: np.ndarray) -> dict[str, np.ndarray]:
    """The equations of the module's docstring, gate by gate, in float64."""
    latent, action, h, c = (argument.astype(np.float64) for argument in arguments)
    kernel, bias, output_kernel, output_bias = (
        weight.astype(np.float64) for weight in memory.get_weights()
    )
    gates = np.concatenate([latent, action, h], -1) @ kernel + bias
    i, f, g, o = (gates[:, part * H : (part + 1) * H] for part in range(4))
    c = sigmoid(f + 1.0) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    output = h @ output_kernel + output_bias
    logits, mean, log_std = output[:, :-2].reshape(-1, 3, Z, K).transpose(1, 0, 2, 3)
    return {
        "logits": logits, "mean": mean, "log_std": log_std, "reward": output[:, -2],
        "done_logit": output[:, -1], "h": h, "c": c,
    }  # fmt: skip


def test_weights_start_as_an_lstms() -> None:
    memory = Memory(Z, A, H, K)
    kernel, bias, _, output_bias = memory.get_weights()
    np.testing.assert_allclose(kernel[Z + A :] @ kernel[Z + A :].T, np.eye(H), atol=1e-5)
    assert not bias.any()
    assert not output_bias.any()
    task = get_task("car_racing")
    paper = Memory(task.latent_size, task.action_size, task.hidden_size, task.mixtures)
    assert paper.count_params() == 4 * 256 * (32 + 3 + 256 + 1) + 257 * (3 * 32 * 5 + 2)


def test_step_is_that_of_float64_numpy() -> None:
    memory = make_memory()
    generator = np.random.default_rng(2)
    arguments = [generator.normal(size=(6, size)).astype(np.float32) for size in (Z, A, H, H)]
    actual = memory.step(*arguments)._asdict()
    for name, expected in numpy_step(memory, *arguments).items():
        # Sums of at most 13 products of about 1, rounded to float32 (6e-8).
        np.testing.assert_allclose(actual[name], expected, rtol=0, atol=3e-6, err_msg=name)


def test_unroll_is_the_repeated_step() -> None:
    memory = make_memory()
    inputs, _ = sequences()
    unrolled = memory.unroll(inputs["latent"], inputs["action"])
    h, c = memory.initial_state(BATCH)
    for t in range(STEPS):
        step = memory.step(inputs["latent"][:, t], inputs["action"][:, t], h, c)
        for name, value in step._asdict().items():
            whole = getattr(unrolled, name)
            assert whole.shape == (BATCH, STEPS, *value.shape[1:]), name
            np.testing.assert_allclose(whole[:, t], value, rtol=0, atol=1e-5, err_msg=name)
        h, c = step.h, step.c


def test_unroll_goes_on_from_a_state() -> None:
    memory = make_memory()
    inputs, _ = sequences()
    whole = memory.unroll(inputs["latent"], inputs["action"])
    first = memory.unroll(inputs["latent"][:, :3], inputs["action"][:, :3])
    second = memory.unroll(
        inputs["latent"][:, 3:], inputs["action"][:, 3:], first.h[:, -1], first.c[:, -1]
    )
    np.testing.assert_allclose(second.mean, whole.mean[:, 3:], rtol=0, atol=1e-5)


def numpy_loss(memory: Memory, batch: Batch, prediction: dict[str, Any]) -> float:
    """The loss step by step in float64."""
    _, y = batch
    log_prob = (
        mixture.log_prob(
            y["next_latent"], *(prediction[name] for name in ("logits", "mean", "log_std"))
        )
        .numpy()
        .astype(np.float64)
    )
    nll, error, cross_entropy = [], [], []
    for row, t in np.argwhere(y["mask"]):
        if y["latent_mask"][row, t]:
            nll.append(-log_prob[row, t].mean())
        error.append((y["reward"][row, t] - prediction["reward"].numpy()[row, t]) ** 2)
        p = sigmoid(float(prediction["done_logit"].numpy()[row, t]))
        weight = memory.done_positive_weight
        cross_entropy.append(-weight * np.log(p) if y["done"][row, t] else -np.log(1.0 - p))
    return float(
        np.mean(nll)
        + memory.reward_weight * np.mean(error)
        + memory.done_weight * np.mean(cross_entropy)
    )


def test_loss_is_that_of_numpy() -> None:
    memory = make_memory(reward_weight=0.7, done_weight=1.3, done_positive_weight=10.0)
    batch = sequences()
    prediction = memory(batch[0])
    actual = memory.compute_loss(y=batch[1], y_pred=prediction)
    np.testing.assert_allclose(actual, numpy_loss(memory, batch, prediction), rtol=1e-5)


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**31), padding=st.integers(0, 5), scale=st.sampled_from([0.0, 1.0, 1e3])
)
def test_padding_never_changes_the_loss(seed: int, padding: int, scale: float) -> None:
    memory = make_memory()
    (inputs, targets) = sequences(seed=seed)
    expected = memory.compute_loss(y=targets, y_pred=memory(inputs))
    generator = np.random.default_rng(seed)

    def padded(array: np.ndarray, zeros: bool = False) -> np.ndarray:
        """Longer by `padding` steps, and other values wherever the mask is zero."""
        wide = np.concatenate([array, np.zeros((BATCH, padding, *array.shape[2:]))], 1)
        rubbish = 0.0 if zeros else scale * generator.normal(size=wide.shape)
        mask = np.pad(targets["mask"], [(0, 0), (0, padding)]) > 0
        mask = mask.reshape(*mask.shape, *[1] * (array.ndim - 2))
        return np.where(mask, wide, rubbish).astype(np.float32)

    other = {
        name: padded(array, zeros=name in ("mask", "latent_mask"))
        for name, array in targets.items()
    }
    prediction = memory({name: padded(array) for name, array in inputs.items()})
    actual = memory.compute_loss(y=other, y_pred=prediction)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_a_repeated_last_frame_is_left_out_of_the_mixtures_loss_alone() -> None:
    memory = make_memory()
    inputs, targets = sequences()
    prediction = memory(inputs)

    def loss(**changes: np.ndarray) -> float:
        return float(memory.compute_loss(y={**targets, **changes}, y_pred=prediction))

    def changed(name: str) -> np.ndarray:
        array = targets[name].copy()
        array[1, -1] = 1.0 - array[1, -1]  # where latent_mask is 0 and mask is 1
        return array

    assert loss(next_latent=changed("next_latent")) == loss()
    assert loss(reward=changed("reward")) != loss()
    assert loss(done=changed("done")) != loss()
    assert loss(latent_mask=targets["mask"]) != loss()


def test_a_batch_of_padding_alone_has_no_loss() -> None:
    memory = make_memory()
    inputs, targets = sequences()
    nothing = {name: np.zeros_like(array) for name, array in targets.items()}
    assert float(memory.compute_loss(y=nothing, y_pred=memory(inputs))) == 0.0


@pytest.mark.parametrize(
    ("policy", "smallest"), [("float32", 512), ("mixed_bfloat16", 512), ("mixed_bfloat16", 1)]
)
def test_it_overfits_a_batch_with_both_heads(
    policy: str, smallest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_module, "_SMALLEST_FOR_BFLOAT16", smallest)
    memory = make_memory(dtype=policy)
    memory.compile(keras.optimizers.Adam(2e-2, global_clipnorm=1.0), jit_compile=False)
    inputs, targets = sequences()
    before = memory(inputs)
    unconditional = targets["reward"][targets["mask"] > 0].var()
    memory.fit(
        tf.data.Dataset.from_tensors((inputs, targets)).repeat(300), verbose=0, shuffle=False
    )
    out = memory(inputs)
    known, there = targets["latent_mask"] > 0, targets["mask"] > 0

    def nll(prediction: dict[str, Any]) -> float:
        names = ("logits", "mean", "log_std")
        log_prob = mixture.log_prob(targets["next_latent"], *(prediction[name] for name in names))
        return float(-log_prob.numpy()[known].mean())

    assert nll(out) < 0.0 < 1.0 < nll(before)  # 1.42 is the entropy of the targets' normal
    error = (out["reward"].numpy() - targets["reward"])[there]
    assert (error**2).mean() < 0.15 * unconditional
    np.testing.assert_array_equal((out["done_logit"].numpy() > 0)[there], targets["done"][there])
    assert {weight.dtype for weight in memory.weights} == {"float32"}
    assert {value.dtype for value in out.values()} == {tf.float32}


def test_dropout_is_one_mask_for_each_sequence() -> None:
    memory = make_memory(dropout=0.3)
    inputs, _ = sequences()
    state = memory.seed_generator.state.numpy()
    mask = memory.dropout_mask(BATCH).numpy()
    assert mask.shape == (BATCH, 1, H)
    memory.seed_generator.state.assign(state)
    out = memory(inputs, training=True)
    expected = memory.heads(out["h"], mask)  # the same at every step
    for name, value in zip(("logits", "mean", "log_std", "reward"), expected, strict=False):
        np.testing.assert_allclose(out[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    plain = memory(inputs)
    # The state itself is never masked.
    np.testing.assert_allclose(plain["h"], out["h"], rtol=1e-5, atol=1e-6)
    assert not np.allclose(plain["mean"], out["mean"])
    again = memory(inputs, training=True)
    assert not np.allclose(again["mean"], out["mean"])  # a new mask for every call


def test_dropout_keeps_the_expected_value() -> None:
    mask = make_memory(dropout=0.25).dropout_mask(4000).numpy()
    np.testing.assert_allclose(np.unique(mask), [0.0, 1.0 / 0.75], rtol=1e-6)
    error = np.sqrt(0.25 / 0.75 / mask.size)
    assert abs(mask.mean() - 1.0) < 5.0 * error


def test_it_is_saved_and_loaded_as_keras_does(tmp_path: Path) -> None:
    memory = make_memory(dropout=0.1, done_weight=2.0)
    path = tmp_path / "memory.keras"
    memory.save(path)
    loaded: Any = keras.models.load_model(path, safe_mode=True)
    assert isinstance(loaded, Memory)
    assert loaded.get_config() == memory.get_config()
    inputs, _ = sequences()
    for name, expected in memory(inputs).items():
        np.testing.assert_array_equal(loaded(inputs)[name], expected, err_msg=name)
