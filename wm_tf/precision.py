"""In which arithmetic networks compute.

bfloat16 is used for matrix products and convolutions alone; weights that are trained, states,
losses and whatever is exported stay float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

Arithmetic = Literal["float32", "bfloat16"]
Precision = Literal["auto", "float32", "bfloat16"]
"""auto: bfloat16 where the processor gains from it."""

Model = TypeVar("Model", bound=Any)

_FAST_BFLOAT16 = ({"amx_bf16"}, {"avx512_bf16", "AuthenticAMD"})
"""Words of /proc/cpuinfo that tell of it. avx512_bf16 alone is not enough: a Xeon whose AMX a
virtual machine hides trained V and M 1.4 times as slowly in bfloat16 as in float32. An EPYC of
Zen 5, which has no AMX, multiplies large matrices 1.9 to 2.4 times as fast."""


def compute_dtype(precision: Precision) -> Arithmetic:
    """The type in which this machine computes at that setting."""
    if precision == "auto":
        return "bfloat16" if bfloat16_is_fast() else "float32"
    return precision


def dtype_policy(precision: Precision) -> str:
    """The same as the name of Keras's policy."""
    return "mixed_bfloat16" if compute_dtype(precision) == "bfloat16" else "float32"


def computing_in(model: Model, dtype: Arithmetic) -> Model:
    """The Keras model itself, or one of the same weights that computes in that type.

    In bfloat16, V to encode with: the copy's weights are rounded to it once, not in each call.
    """
    if model.compute_dtype == dtype:
        return model
    copy = type(model).from_config({**model.get_config(), "dtype": dtype})
    copy.set_weights(model.get_weights())
    return copy


def fast_dtypes() -> list[Arithmetic]:
    """float32, and bfloat16 where the processor gains from it."""
    return ["float32", "bfloat16"] if bfloat16_is_fast() else ["float32"]


def bfloat16_is_fast() -> bool:
    """Whether this processor multiplies bfloat16 matrices faster than float32 ones."""
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return any(needed <= words for needed in _FAST_BFLOAT16)
