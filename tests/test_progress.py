"""Progress as a person at a terminal and a reader of a log file see it."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from wm_tf import progress
from wm_tf.progress import Progress, clock


@pytest.fixture
def now(monkeypatch):
    """A clock that only the test moves."""
    hands = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: hands.seconds))
    return hands


def lines(stream):
    return stream.getvalue().splitlines()


def test_lines_at_the_start_every_ten_seconds_and_at_the_end(now):
    log = io.StringIO()
    with Progress("collect", total=60, unit="episodes", stream=log) as shown:
        for _ in range(60):
            now.seconds += 0.5
            shown.advance()
    assert lines(log) == [
        "collect: 0/60 episodes",
        "collect: 20/60 episodes, 2.0/s, 0:20 left",
        "collect: 40/60 episodes, 2.0/s, 0:10 left",
        "collect: 60/60 episodes, 2.0/s, 0:30",
    ]


def test_figures_stay_until_they_are_replaced(now):
    log = io.StringIO()
    with Progress("train-vision", total=200, stream=log) as shown:
        now.seconds += 10
        shown.advance(50, loss=12.34567, frames_per_second=530)
        now.seconds += 10
        shown.advance(50, loss=9.5)
    assert lines(log)[1:3] == [
        "train-vision: 50/200 steps, 5.0/s, 0:30 left, loss 12.35, frames per second 530",
        "train-vision: 100/200 steps, 5.0/s, 0:20 left, loss 9.5, frames per second 530",
    ]


def test_a_total_that_is_known_after_the_first_epoch(now):
    log = io.StringIO()
    with Progress("train-vision", stream=log) as shown:
        now.seconds += 10
        shown.advance(50)
        shown.expect(150)
        now.seconds += 10
        shown.advance(50)
    assert lines(log)[1:3] == [
        "train-vision: 50 steps, 5.0/s, 0:10",
        "train-vision: 100/150 steps, 5.0/s, 0:10 left",
    ]


def test_a_total_that_is_not_known(now):
    log = io.StringIO()
    with Progress("serve", unit="requests", stream=log) as shown:
        now.seconds += 90
        shown.advance(3)
    assert lines(log)[1] == "serve: 3 requests, 2.0/min, 1:30"


def test_what_an_earlier_run_did_is_not_part_of_the_rate(now):
    log = io.StringIO()
    with Progress("evolve", total=30, unit="generations", done=20, stream=log) as shown:
        now.seconds += 600
        shown.advance(2)
    assert lines(log)[:2] == [
        "evolve: 20/30 generations",
        "evolve: 22/30 generations, 12.0/h, 40:00 left",
    ]


def test_an_exception_passes_and_is_noted(now):
    log = io.StringIO()
    with pytest.raises(KeyboardInterrupt), Progress("collect", total=9, stream=log) as shown:
        shown.advance()
        raise KeyboardInterrupt
    assert lines(log)[-1] == "collect: 1/9 steps (stopped)"


def test_a_stream_that_fails_does_not_hide_what_ended_the_work():
    class Full(io.StringIO):
        full = False

        def write(self, text):
            if self.full:
                raise OSError(28, "No space left on device")
            return super().write(text)

    log = Full()
    with pytest.raises(KeyboardInterrupt), Progress("collect", total=9, stream=log):
        log.full = True
        raise KeyboardInterrupt
    log.full = False
    with pytest.raises(OSError, match="No space left"), Progress("collect", stream=log) as shown:
        shown.advance()
        log.full = True


def test_no_work_at_all():
    log = io.StringIO()
    with Progress("collect", total=0, unit="episodes", stream=log):
        pass
    assert set(lines(log)) == {"collect: 0/0 episodes"}


def test_stdout_stays_clean(capsys):
    with Progress("collect", total=1) as shown:
        shown.advance()
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("collect: 0/1 steps\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (92, "1:32"), (3599.9, "1:00:00"), (90061, "25:01:01")],
)
def test_clock(seconds, text):
    assert clock(seconds) == text


SCRIPT = """
import sys, time
from wm_tf.progress import Progress
with Progress("evolve [C]", total=4, unit="generations") as shown:
    for _ in range(int(sys.argv[1])):
        time.sleep(0.2)
        shown.advance(score=12.5)
    while int(sys.argv[1]) < 4:
        time.sleep(0.1)
"""


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("interrupted", [False, True])
def test_a_bar_on_a_terminal(interrupted):
    import pty

    terminal, side = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    arguments = [sys.executable, "-c", SCRIPT, "2" if interrupted else "4"]
    process = subprocess.Popen(arguments, stderr=side, stdout=subprocess.PIPE, env=environ)
    os.close(side)
    seen = b""
    while True:
        try:
            data = os.read(terminal, 4096)
        except OSError:  # Linux: the other side is closed
            break
        if not data:
            break
        seen += data
        if interrupted and b"2/4" in seen:
            interrupted = False
            time.sleep(0.1)
            process.send_signal(signal.SIGINT)
    os.close(terminal)
    assert process.communicate()[0] == b""
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode())
    if process.returncode == 0:
        assert re.search(r"evolve \[C\] ━+ 4/4 generations, [45]\.\d/s, 0:01, score 12\.5", text)
        assert re.search(r"2/4 generations, [45]\.\d/s, 0:00 left, score 12\.5", text)
    else:
        assert process.returncode == -signal.SIGINT
        assert "2/4 generations" in text and "(stopped)" in text
    assert seen.rfind(b"\x1b[?25h") > seen.rfind(b"\x1b[?25l")  # the cursor is shown again


PRINTS = """
from wm_tf.progress import Progress

with Progress("evolve", 3) as shown:
    for generation in range(3):
        print("generation", generation, flush=True)
        shown.advance()
"""


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_what_is_printed_meanwhile_has_lines_of_its_own_above_the_bar():
    import pty

    terminal, side = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    subprocess.run(
        [sys.executable, "-c", PRINTS], stdout=side, stderr=side, env=environ, check=True
    )
    os.close(side)
    seen = os.read(terminal, 65536).decode()
    os.close(terminal)
    for generation in range(3):
        assert re.search(rf"(^|\r\n|\x1b\[2K)generation {generation} *\r\n", seen), seen
