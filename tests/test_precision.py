"""Which processors compute in bfloat16 unless told otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from wm_tf.precision import compute_dtype


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
