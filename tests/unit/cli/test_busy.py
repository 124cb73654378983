"""The bar for work of unknown length."""

from __future__ import annotations

import io
import sys
import threading

import pytest

from cli import busy as busy_module
from cli.busy import busy


class Terminal(io.StringIO):
    """A terminal that says when the text has come."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.has_text = threading.Event()
        self._text = text

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        count = super().write(text)
        if self._text in self.getvalue():
            self.has_text.set()
        return count


def test_a_bar_appears_while_the_work_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal("examining")
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(busy_module, "SHOWN_AFTER_S", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    before = set(threading.enumerate())

    with busy("examining"):
        assert terminal.has_text.wait(10.0)

    for thread in set(threading.enumerate()) - before:
        thread.join(10.0)  # rich tells its own thread to stop, and does not wait for it
    assert set(threading.enumerate()) <= before


def test_short_work_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal("x")
    monkeypatch.setattr(sys, "stderr", terminal)

    with busy("examining"):
        pass

    assert terminal.getvalue() == ""


def test_a_pipe_gets_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(busy_module, "SHOWN_AFTER_S", 0.0)

    with busy("examining"):
        pass

    assert capsys.readouterr() == ("", "")
