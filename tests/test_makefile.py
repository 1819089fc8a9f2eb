"""What `make` says of a Python that wm_tf does not run on."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[1] / "Makefile"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.mark.parametrize(
    ("script", "found"),
    [("echo Python 3.10.1; test $1 = --version", "Python 3.10.1"), (None, "none")],
)
def test_a_wrong_python_gets_one_line(tmp_path: Path, script: str | None, found: str) -> None:
    python = tmp_path / "python"
    if script:
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
    made = subprocess.run(
        ["make", "-f", MAKEFILE, ".venv/python", f"PYTHON={python}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    told = [line for line in made.stderr.splitlines() if not line.startswith("make")]
    assert told == [f"wm_tf needs Python 3.11, 3.12 or 3.13; found: {found}"]
    assert made.returncode == 2
    assert not (tmp_path / ".venv").exists()
