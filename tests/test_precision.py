"""Which processors compute in bfloat16 unless told otherwise, and what it changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wm_tf.models import Memory, Vision
from wm_tf.precision import compute_dtype, computing_in


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("vendor_id : GenuineIntel\nflags : avx512f avx512_bf16 amx_bf16 amx_tile", "bfloat16"),
        ("vendor_id : GenuineIntel\nflags : avx512f avx512_bf16", "float32"),  # AMX is hidden
        ("vendor_id : AuthenticAMD\nflags : avx512f avx512_bf16", "bfloat16"),
        ("vendor_id : AuthenticAMD\nflags : avx2", "float32"),
    ],
)
def test_bfloat16_is_automatic_where_it_is_fast(
    cpuinfo: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path: cpuinfo)
    assert compute_dtype("auto") == expected
    assert (compute_dtype("float32"), compute_dtype("bfloat16")) == ("float32", "bfloat16")


def test_without_the_processors_description_it_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", fail)
    assert compute_dtype("auto") == "float32"


def test_models_trained_in_bfloat16_compute_in_float32_with_the_same_weights() -> None:
    trained = Vision(32, dtype="mixed_bfloat16")
    exported = computing_in(trained, "float32")
    layers = exported.encoder.layers + exported.decoder.layers
    assert {layer.compute_dtype for layer in layers} == {"float32"}
    for mine, theirs in zip(exported.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    memory = Memory(4, 3, 8, dtype="mixed_bfloat16")
    assert computing_in(memory, "float32").compute_dtype == "float32"
    assert computing_in(exported, "float32") is exported


def test_what_v_sees_in_bfloat16_is_what_it_sees_in_float32(keras_models: dict[str, Any]) -> None:
    """As far as C can tell: latents are sampled, and the difference is small beside their noise."""
    vision = keras_models["vision"]
    frames = np.random.default_rng(1).integers(0, 256, (16, 64, 64, 3), np.uint8)
    mean, log_variance = (part.numpy() for part in vision.encode(frames))
    moments = computing_in(vision, "bfloat16").encode(frames)
    other_mean, other_log_variance = (part.numpy() for part in moments)
    assert other_mean.dtype == np.float32
    difference = np.abs(other_mean - mean)
    assert 0 < difference.mean() < 0.002 * np.exp(0.5 * log_variance).mean()
    np.testing.assert_allclose(other_log_variance, log_variance, atol=0.005)
