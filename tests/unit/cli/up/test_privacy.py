"""Which directories are reported as open, and which files are closed."""

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


def make_directory(path: Path, mode: int) -> Path:
    path.mkdir()
    path.chmod(mode)
    return path


@pytest.mark.parametrize("bits", [0o700, 0o500])
def test_a_closed_directory_is_not_reported(tmp_path: Path, bits: int) -> None:
    assert judge(make_directory(tmp_path / "data", bits)) == ""
    assert judge(tmp_path / "absent") == ""


@pytest.mark.parametrize(
    ("bits", "what"), [(0o755, "read"), (0o750, "read"), (0o701, "read"), (0o777, "written to")]
)
def test_an_open_directory_is_reported_with_the_command_that_closes_it(
    tmp_path: Path, bits: int, what: str
) -> None:
    path = make_directory(tmp_path / "my data", bits)

    line = judge(path)

    assert f"can be {what} by others" in line and f"mode {bits:o}" in line
    assert line.endswith(f"chmod 700 '{path}'")


def test_directories_inside_a_closed_one_are_not_reported(tmp_path: Path) -> None:
    data = make_directory(tmp_path / "data", 0o755)
    make_directory(data / "files", 0o755)
    elsewhere = make_directory(tmp_path / "elsewhere", 0o755)

    both = open_directories(Settings(data_dir=str(data)))
    apart = open_directories(Settings(data_dir=str(data), files_url=str(elsewhere)))
    away = open_directories(Settings(data_dir=str(data), redis_url="redis://r", files_url="s3://b"))
    data.chmod(0o700)

    assert len(both) == 2 and len(apart) == 2 and str(elsewhere) in apart[1]
    assert away == []
    assert open_directories(Settings(data_dir=str(data))) == []


def test_older_files_of_the_server_are_closed(tmp_path: Path) -> None:
    for name in ("appendonlydir", "files"):
        make_directory(tmp_path / name, 0o755)
    names = ["server.log", "dump.rdb", "appendonlydir/a.incr.aof", "appendonlydir/a.manifest"]
    for name in [*names, "somebody-elses"]:
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o644)

    close_own(tmp_path)

    assert [mode(tmp_path / name) for name in names] == [0o600] * len(names)
    assert mode(tmp_path / "appendonlydir") == mode(tmp_path / "files") == 0o700
    assert mode(tmp_path / "somebody-elses") == 0o644


def test_links_and_files_of_other_users_are_not_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = make_directory(tmp_path / "outside", 0o755)
    (outside / "file").write_text("x")
    (outside / "file").chmod(0o644)
    data = make_directory(tmp_path / "data", 0o755)
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
