"""Tables: the same plain text in every pipe, and rich in a terminal."""

import io
from types import SimpleNamespace

import pytest

from ostinato.tables import Table, show

TABLE = Table(("run", "score"), [("first", "0.5 [bold]"), ("b", "1")])


def shown(monkeypatch: pytest.MonkeyPatch, terminal: bool, **variables: str) -> str:
    stream = io.StringIO()
    stream.isatty = lambda: terminal  # type: ignore[method-assign]
    for name, value in {"TERM": "xterm", "COLUMNS": "60", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("ostinato.tables.sys", SimpleNamespace(stdout=stream))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sys.stdout", stream)
        show(["title", TABLE])
    return stream.getvalue()


@pytest.mark.parametrize("variables", [{}, {"FORCE_COLOR": "1", "COLUMNS": "10"}])
def test_a_pipe_gets_aligned_plain_text(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    text = shown(monkeypatch, False, **variables)
    assert text == "title\n  run    score\n  first  0.5 [bold]\n  b      1\n"


def test_a_dumb_terminal_gets_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" not in shown(monkeypatch, True, TERM="dumb")


def test_a_terminal_gets_a_table_with_every_cell_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, True)
    assert "\x1b[1m" in text
    assert "0.5 [bold]" in text
    assert "─" in text


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[3" not in shown(monkeypatch, True, NO_COLOR="1")


def test_a_table_may_have_a_plain_text_of_its_own() -> None:
    assert Table(("a",), [("b",)], ["a is b"]).lines() == ["a is b"]
