"""The file with the lines of conversations."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cli.client import history as history_module
from cli.client.history import History, history_path


def test_the_file_is_in_the_state_folder_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    default = Path("/home/ann/.local/state/tailrace/chat_history")

    assert history_path({"XDG_STATE_HOME": "/state"}) == Path("/state/tailrace/chat_history")
    assert history_path({}) == history_path({"XDG_STATE_HOME": "relative"}) == default
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # a user without an entry
    assert history_path({}) is None


def test_lines_come_back_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    first, second = History(path), History(path)
    first.add("one")
    second.add("zwei \u2028 \udcff")
    first.add("three")

    assert History(path).lines() == ["one", "zwei \u2028 \udcff", "three"]
    assert History(None).lines() == [] and not History(path).problem


def test_the_file_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "LINES_MAX", 3)
    monkeypatch.setattr(history_module, "SPARE_LINES", 1)
    path = tmp_path / "h"
    history = History(path)
    for n in range(5):
        history.add(str(n))
    history.add("x" * history_module.LINE_BYTES_MAX)

    assert history.lines() == ["2", "3", "4"]
    assert path.read_text() == "2\n3\n4\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["h"]


def test_of_a_huge_file_only_the_end_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "FILE_BYTES_MAX", 8)
    path = tmp_path / "h"
    path.write_text("first\nsecond\nlast\n")

    assert History(path).lines() == ["last"]


def test_rights_of_others_are_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "h"
    path.write_text("old\n")
    path.chmod(0o644)

    assert History(path).lines() == ["old"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "h"
    target.write_text("of somebody else\n")
    link.symlink_to(target)
    history = History(link)

    assert history.lines() == [] and "keeps no lines" in history.problem
    history.add("a secret")
    assert target.read_text() == "of somebody else\n"


def test_a_pipe_is_no_history(tmp_path: Path) -> None:
    path = tmp_path / "h"
    os.mkfifo(path)
    held = os.open(path, os.O_RDWR)
    history = History(path)

    history.add("a secret")

    os.close(held)
    assert "not a file of this user" in history.problem
