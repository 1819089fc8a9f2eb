"""What the tests of faults share: real commands, real damage, and the table of what was seen.

Not part of the default tests, because they take a quarter of an hour: `make faults` runs them.
A test's docstring is the fault and, after an empty line, what must happen; beside them stands what
the test gave to `seen`.
"""

from __future__ import annotations

import inspect
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tools import SMOKE, Command

SEED = 1
"""Of everything random here."""


@pytest.fixture
def seen(request: pytest.FixtureRequest, record_property: Callable[..., None]) -> Callable:
    """Puts what was seen into the table."""
    fault, _, must = inspect.cleandoc(request.function.__doc__).partition("\n\n")
    record_property("fault", fault)
    record_property("must", must.replace("\n", " "))
    return lambda text: record_property("seen", text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_lines=True)
    for name, share in (("fault", 2), ("what must happen", 3), ("seen", 4)):
        table.add_column(name, ratio=share)
    table.add_column("")
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            facts = dict(getattr(report, "user_properties", ()))
            if "fault" in facts:
                reason = report.longrepr[2] if outcome == "skipped" else ""
                table.add_row(facts["fault"], facts["must"], facts.get("seen", reason), outcome)
    Console(width=150).print(table)


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Random numbers of a test's own, the same in every run."""
    return random.Random(f"{SEED} {request.node.name}")


@pytest.fixture
def start() -> Iterator[Callable[..., Command]]:
    """Starts commands; none of them outlives the test."""
    commands: list[Command] = []

    def begin(*arguments: str | Path, **options: object) -> Command:
        commands.append(Command(*arguments, **options))
        return commands[-1]

    yield begin
    for command in commands:
        command.end()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never disturbed: one round of the smoke preset. Not to be altered."""
    folder = tmp_path_factory.mktemp("finished")
    command = Command("reproduce", "car_racing", *SMOKE, "--iterations", "1", "--run", folder)
    status, errors = command.wait()
    assert status == 0, errors
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"
