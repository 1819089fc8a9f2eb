"""Packages that only some commands need, and that pyproject.toml lists as extras."""

from __future__ import annotations

import importlib.util

from wm_tf.errors import UserError


def require(module: str, extra: str) -> None:
    """Raises UserError unless a module of an extra is installed; does not import it."""
    if importlib.util.find_spec(module) is None:
        raise UserError(f"{module} is not installed: pip install -e '.[{extra}]'")
