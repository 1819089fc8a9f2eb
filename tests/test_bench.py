"""How speeds are compared, and what becomes of a peer that is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wm_tf import agent, bench, storage
from wm_tf.bench import compare, footprint, growth, models, rollouts
from wm_tf.bench.compare import Comparison, Disagreement, Goal, Side, close
from wm_tf.bench.table import number, print_table
from wm_tf.config import get_task
from wm_tf.data.episodes import read_episode
from wm_tf.errors import RunFailed, UserError

Capture = pytest.CaptureFixture[str]


def side(name: str, figures: list[float], calls: list[str], answer: Any = None) -> Side:
    """A side that notes its calls; the first figure is that of the warm-up."""
    waiting = iter(figures)

    def measure() -> float:
        calls.append(name)
        return next(waiting)

    def give() -> Any:
        calls.append(f"{name} answers")
        return answer

    return Side(name, measure, give)


def test_the_sides_take_turns_and_the_median_ratio_counts() -> None:
    calls: list[str] = []
    line = compare.compare(
        "work",
        "steps/s",
        side("ours", [1000, 20, 40, 90], calls, 1.0),
        side("theirs", [1, 10, 10, 10], calls, 1.0),
        agree=close(0.0),
        rounds=3,
    )
    assert calls == ["ours answers", "theirs answers", *["ours", "theirs"] * 4]
    assert (line.ours, line.peer, line.ratio, line.spread) == (40.0, 10.0, 4.0, (2.0, 9.0))


def test_nothing_is_timed_before_both_sides_agree() -> None:
    calls: list[str] = []
    with pytest.raises(Disagreement, match=r"work: not the same as theirs: .* by up to 0\.5"):
        compare.compare(
            "work",
            "steps/s",
            side("ours", [], calls, np.array([1.0, 2.0])),
            side("theirs", [], calls, np.array([1.0, 2.5])),
            agree=close(1e-3),
        )
    assert calls == ["ours answers", "theirs answers"]


def test_an_agreement_needs_two_answers() -> None:
    silent = Side("silent", lambda: 1.0)
    with pytest.raises(ValueError, match="silent"):
        compare.compare("work", "steps/s", silent, silent, agree=close(0.0))


@pytest.mark.parametrize(
    "ours, peer",
    [((1.0, 2.0), (1.0, 2.1)), (np.zeros(2), np.zeros(3)), (np.array([np.nan]), np.zeros(1))],
    ids=["one of two", "shape", "nan"],
)
def test_close_finds_what_differs(ours: Any, peer: Any) -> None:
    close(0.1)(peer, peer)
    with pytest.raises(Disagreement):
        close(1e-2)(ours, peer)


def test_a_rate_at_a_percentile_is_that_of_the_slow_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(np.cumsum([0, 1, 0, 1, 0, 4]))  # three calls of 1, 1 and 4 seconds
    monkeypatch.setattr(compare.time, "perf_counter", lambda: float(next(times)))
    assert compare.rate_at(100, 3, lambda: None)() == 0.25


def test_a_curve_compares_its_ends() -> None:
    figures = {10: 1.0, 100: 5.0, 1000: 3.0}
    line = compare.over_sizes("Work", "rows", (10, 100, 1000), "steps/s", figures.__getitem__, 2)
    assert (line.ours, line.peer, line.ratio) == (3.0, 1.0, 3.0)
    assert line.curve is not None
    assert line.curve.figures == ((1.0, 5.0, 3.0),) * 2


def test_what_only_a_large_size_starts_is_warm_before_the_curve_is_measured() -> None:
    workers = 1

    def speed(candidates: int) -> float:
        nonlocal workers
        cold, workers = candidates > 16 and workers == 1, max(workers, 1 + (candidates > 16))
        return 0.0 if cold else 1.0

    line = compare.over_sizes("Work", "candidates", (16, 4096), "steps/s", speed, 2)
    assert line.curve is not None and line.curve.figures == ((1.0, 1.0),) * 2


def test_curves_are_drawn(tmp_path: Path) -> None:
    from PIL import Image

    line = compare.over_sizes("Work", "rows", (10, 20), "steps/s", float, 2)
    growth.plot(tmp_path / "growth.png", [line, line])
    with Image.open(tmp_path / "growth.png") as picture:
        assert picture.width > picture.height
        assert np.unique(np.asarray(picture)).size > 20  # neither blank nor black


@pytest.mark.parametrize(
    "goal, good, bad", [(Goal(2), 2.0, 1.9), (Goal(0.5, most=True), 0.5, 0.6)], ids=str
)
def test_a_missed_goal_is_told(capsys: Capture, goal: Goal, good: float, bad: float) -> None:
    for ratio in (good, bad):
        assert goal.reached_by(ratio) == (ratio == good)
        print_table([Comparison("w", "u", ratio, "a", 1, ratio, (ratio, ratio), goal)], {})
        assert ("(missed)" in "".join(capsys.readouterr().out.split())) == (ratio == bad)


def test_numbers_keep_three_digits() -> None:
    assert [number(value) for value in (0.02134, 3.14159, 21930.4)] == ["0.0213", "3.14", "21,930"]


def test_a_missing_peer_is_a_line_and_no_error(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    bench.bench(["car-racing-envpool"], tmp_path / "bench.json")
    assert "envpool is not installed: pip install -e '.[bench]'" in capsys.readouterr().out
    written = storage.read_json(tmp_path / "bench.json")
    assert written["comparisons"] == []
    assert list(written["omitted"]) == ["car-racing-envpool"]


def test_what_was_measured_before_a_failure_is_kept(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    line = Comparison("what was measured", "u", 1.0, "a", 1.0, 1.0, (1.0, 1.0), None)

    def disagree() -> list[Comparison]:
        raise Disagreement("dream: the two sides differ")

    functions = {"car-racing": lambda: [line], "dream": disagree}
    monkeypatch.setattr(bench, "function_of", functions.__getitem__)
    with pytest.raises(Disagreement):
        bench.bench(["car-racing", "dream", "player"], tmp_path / "bench.json")
    assert "what was measured" in capsys.readouterr().out
    written = storage.read_json(tmp_path / "bench.json")
    assert [held["what"] for held in written["comparisons"]] == ["what was measured"]
    assert written["omitted"] == {"dream": "dream: the two sides differ"}


def test_a_plot_needs_what_it_draws(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="growth"):
        bench.bench(["dream"], plot=tmp_path / "growth.png")


def test_a_repeated_batch_is_not_tuned_by_tensorflow() -> None:
    data = models.repeated({"x": np.arange(3)}, 4)
    assert [batch["x"].numpy().tolist() for batch in data] == [[0, 1, 2]] * 4
    assert data.options().autotune.enabled is False  # a fit to it would end with a sleep


def test_every_benchmark_has_its_function() -> None:
    for name in bench.NAMES:
        assert callable(bench.function_of(name))


def test_peak_memory_is_that_of_the_command() -> None:
    peak = footprint.peak_memory("--help")
    assert 20e6 < peak < 1e9
    with pytest.raises(RunFailed, match="exit status 2"):
        footprint.peak_memory("nonsense")


def test_made_up_episodes_are_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "STEPS", 60)
    task = get_task("car_racing")
    paths = footprint.write_episodes(tmp_path / "00", task, 3, distinct=2)
    first, second, third = (read_episode(path, task) for path in paths)
    assert first.steps == 60
    assert not np.array_equal(first.frames, second.frames)
    np.testing.assert_array_equal(first.frames, third.frames)
    # As real ones, which take about a tenth: neither random nor empty.
    assert 0.01 < paths[0].stat().st_size / first.frames.nbytes < 0.3


def test_growth_that_was_not_measured_is_not_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failure that ended the table is told, and not that of its picture."""

    def fail(_: str) -> Any:
        raise RunFailed("no engine")

    monkeypatch.setattr(bench, "function_of", fail)
    with pytest.raises(RunFailed, match="no engine"):
        bench.bench(plot=tmp_path / "growth.png")
    assert not (tmp_path / "growth.png").exists()


def test_the_peer_of_rollouts_calls_the_networks_for_one_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    played: list[agent.Chunk] = []
    monkeypatch.setattr(agent, "play", lambda chunk: played.append(chunk) or [])
    work = tuple(agent.Rollout(1, (0, index)) for index in range(3))
    rollouts.play_one_by_one(agent.Chunk("car_racing", work, 9))
    assert [(chunk.rows, chunk.rollouts) for chunk in played] == [(1, (one,)) for one in work]
