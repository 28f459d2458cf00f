"""Progress: a bar in a terminal, plain lines elsewhere, and neither for short work."""

import io
import logging
import re
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from ostinato import progress
from ostinato.progress import Bar, track

COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-9]|4[0-9]|9[0-7])(?:;\d+)*m")
Wait = Callable[[float], None]


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Wait:
    """A function that lets time pass for `Bar`."""
    now = 100.0

    def elapse(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr("ostinato.progress.time.monotonic", lambda: now)
    return elapse


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """The error stream as a terminal of 100 columns."""
    stream = Terminal()
    monkeypatch.setattr("ostinato.progress.sys", SimpleNamespace(stderr=stream))
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "100"}.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    return stream


@pytest.fixture
def lines(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Callable[[], list[str]]:
    """The lines of the log, where the error stream is no terminal."""
    monkeypatch.setattr("ostinato.progress.sys", SimpleNamespace(stderr=io.StringIO()))
    caplog.set_level(logging.INFO, "ostinato")
    return lambda: [record.getMessage() for record in caplog.records]


def work(bar: Bar, wait: Wait, units: int, seconds: float) -> None:
    with bar:
        for unit in range(1, units + 1):
            wait(seconds)
            bar.advance(1, f"loss {1 / unit:.2f}")


def test_a_terminal_shows_title_number_note_and_time_left(terminal: Terminal, wait: Wait) -> None:
    work(Bar("epoch 2/3", 8, unit="examples"), wait, 4, 1.0)
    shown = terminal.getvalue()
    assert "epoch 2/3" in shown
    assert "4 of 8 examples, loss 0.25, 0:00:04 left" in shown
    assert "━" in shown
    assert COLOUR.search(shown)
    assert shown.endswith("\x1b[2K")  # the bar is removed at the end


def test_no_color_is_honoured(
    terminal: Terminal, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    work(Bar("reading", 8, unit="drawings"), wait, 4, 1.0)
    assert "4 of 8 drawings" in terminal.getvalue()
    assert not COLOUR.search(terminal.getvalue())


def test_a_bar_within_a_bar(terminal: Terminal, wait: Wait) -> None:
    for _ in track(range(2), "outer", unit="parts"):
        wait(1)
        for _ in track(range(3), "inner", unit="pairs"):
            wait(1)
    assert "2 of 2 parts" in terminal.getvalue()
    assert "3 of 3 pairs" in terminal.getvalue()


def test_a_bar_is_redrawn_a_few_times_a_second(terminal: Terminal, wait: Wait) -> None:
    work(Bar("reading", 1000, unit="drawings"), wait, 1000, 0.01)  # 10 s
    assert terminal.getvalue().count("drawings") <= 10 / progress.REDRAW_S + 1


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_without_a_terminal_there_are_plain_lines_seconds_apart(
    lines: Callable[[], list[str]], wait: Wait, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    work(Bar("reading", 4000, unit="drawings"), wait, 3000, 0.01)  # 30 s
    assert lines()[-1] == "reading: 3,000 of 4,000 drawings, loss 0.00, 0:00:10 left"
    assert len(lines()) == 30 / progress.LINE_S
    assert all(line.isprintable() for line in lines())


def test_a_dumb_terminal_gets_lines(
    terminal: Terminal,
    wait: Wait,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    caplog.set_level(logging.INFO, "ostinato")
    work(Bar("reading", None, unit="pairs"), wait, 2, 6.0)
    assert terminal.getvalue() == ""
    assert [r.getMessage() for r in caplog.records] == ["reading: 2 pairs, loss 0.50"]


def test_short_work_shows_nothing(terminal: Terminal, wait: Wait) -> None:
    work(Bar("reading", 10, unit="drawings"), wait, 10, 0.01)
    assert terminal.getvalue() == ""


def test_the_time_left_omits_what_was_done_before(
    lines: Callable[[], list[str]], wait: Wait
) -> None:
    work(Bar("epoch 3/3", 120, unit="examples", start=80), wait, 20, 1.0)
    assert lines()[-1] == "epoch 3/3: 100 of 120 examples, loss 0.05, 0:00:20 left"


def test_another_thread_shows_nothing(terminal: Terminal, wait: Wait) -> None:
    bars: list[Bar] = []
    thread = threading.Thread(target=lambda: bars.append(Bar("decoding", 4, unit="batches")))
    thread.start()
    thread.join()
    work(bars[0], wait, 4, 30.0)
    assert terminal.getvalue() == ""


def test_an_iteration_that_is_broken_off_removes_its_bar(terminal: Terminal, wait: Wait) -> None:
    with pytest.raises(ValueError, match="broken"):
        for _ in track(iter(range(9)), "reading", unit="pairs"):
            wait(1)
            if "2 pairs" in terminal.getvalue():
                raise ValueError("broken")
    assert terminal.getvalue().endswith("\x1b[2K")
