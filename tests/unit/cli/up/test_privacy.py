"""Which directories are said to be open, and whose files are closed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cli.up import privacy
from cli.up.privacy import close_own, judge, open_directories
from shared.config.settings import Settings


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def made(path: Path, mode: int) -> Path:
    path.mkdir()
    path.chmod(mode)
    return path


@pytest.mark.parametrize("bits", [0o700, 0o500])
def test_a_closed_directory_is_not_named(tmp_path: Path, bits: int) -> None:
    assert judge(made(tmp_path / "data", bits)) == ""
    assert judge(tmp_path / "absent") == ""


@pytest.mark.parametrize(
    ("bits", "what"), [(0o755, "read"), (0o750, "read"), (0o701, "read"), (0o777, "written to")]
)
def test_an_open_one_is_named_with_what_to_do(tmp_path: Path, bits: int, what: str) -> None:
    path = made(tmp_path / "my data", bits)

    line = judge(path)

    assert f"can be {what} by others" in line and f"mode {bits:o}" in line
    assert line.endswith(f"chmod 700 '{path}'")


def test_data_and_files_are_looked_at_and_what_lies_in_a_closed_one_is_not(tmp_path: Path) -> None:
    data = made(tmp_path / "data", 0o755)
    made(data / "files", 0o755)
    elsewhere = made(tmp_path / "elsewhere", 0o755)

    both = open_directories(Settings(data_dir=str(data)))
    apart = open_directories(Settings(data_dir=str(data), files_url=str(elsewhere)))
    away = open_directories(Settings(data_dir=str(data), redis_url="redis://r", files_url="s3://b"))
    data.chmod(0o700)

    assert len(both) == 2 and len(apart) == 2 and str(elsewhere) in apart[1]
    assert away == []
    assert open_directories(Settings(data_dir=str(data))) == []


def test_what_the_server_has_written_before_is_closed(tmp_path: Path) -> None:
    for name in ("appendonlydir", "files"):
        made(tmp_path / name, 0o755)
    names = ["server.log", "dump.rdb", "appendonlydir/a.incr.aof", "appendonlydir/a.manifest"]
    for name in [*names, "somebody-elses"]:
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o644)

    close_own(tmp_path)

    assert [mode(tmp_path / name) for name in names] == [0o600] * len(names)
    assert mode(tmp_path / "appendonlydir") == mode(tmp_path / "files") == 0o700
    assert mode(tmp_path / "somebody-elses") == 0o644


def test_nothing_behind_a_link_is_changed_and_nothing_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = made(tmp_path / "outside", 0o755)
    (outside / "file").write_text("x")
    (outside / "file").chmod(0o644)
    data = made(tmp_path / "data", 0o755)
    (data / "appendonlydir").symlink_to(outside)
    (data / "server.log").symlink_to(outside / "file")
    (data / "dump.rdb").write_text("x")
    (data / "dump.rdb").chmod(0o644)
    owner = os.geteuid()

    with monkeypatch.context() as patch:
        patch.setattr(privacy.os, "geteuid", lambda: owner + 1)
        close_own(data)
    assert mode(data / "dump.rdb") == 0o644

    close_own(data)
    assert (mode(outside), mode(outside / "file")) == (0o755, 0o644)
    assert mode(data / "dump.rdb") == 0o600
