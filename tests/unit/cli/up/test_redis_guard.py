"""The folder of the private server's socket: made where it is missing, and never a foreign one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cli.up.redis_guard import make_folder


def test_a_missing_folder_is_made_for_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "gone" / "tailrace-1"

    assert make_folder(folder) == ""
    assert make_folder(folder) == "", "it is there now"

    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o755)

    assert "is open to others" in make_folder(folder)


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real")

    assert "belongs to another user" in make_folder(link)


def test_a_folder_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    (tmp_path / "theirs").mkdir(mode=0o700)

    assert "belongs to another user" in make_folder(tmp_path / "theirs")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert str(tmp_path / "file") in make_folder(tmp_path / "file" / "tailrace-1")
