"""Somebody else on the machine, and what `tailrace up` keeps: prompts and secrets in plain text."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import ROOT, run_role
from tests.support.redis_server import free_port
from tests.support.spawn import kill_group, spawn
from tests.support.wait import until_sync

READY_S = 30.0
PROMPT = "a prompt that is nobody else's"


def open_to_others(directory: Path) -> list[str]:
    """Return what others can read below a directory, if they can enter it."""
    found = []
    for folder, folders, names in os.walk(directory):
        for name in [*folders, *names]:
            path = Path(folder, name)
            if not path.is_symlink() and path.stat().st_mode & 0o077:
                found.append(f"{path.relative_to(directory)} {path.stat().st_mode & 0o777:o}")
    return found


def ask(port: int, prompt: str) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/generations",
        json.dumps({"prompt": prompt}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=READY_S) as answer:
        assert answer.status == 202


@pytest.fixture
def lax_umask() -> object:
    before = os.umask(0o022)
    yield None
    os.umask(before)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory so short that `up` keeps its socket in it; pytest's own may be too long."""
    with tempfile.TemporaryDirectory(prefix="tro-") as directory:
        yield Path(directory)


def test_other_users_cannot_read_the_files_of_up(
    tmp_path: Path, short_path: Path, lax_umask: object
) -> None:
    """The directory stood there, open, with the files of an older version in it."""
    data = tmp_path / "data"
    (data / "appendonlydir").mkdir(parents=True)
    (data / "files").mkdir()
    for path in (data / "server.log", data / "appendonlydir" / "appendonly.aof.1.incr.aof"):
        path.touch(0o644)
    (data / "appendonlydir" / "appendonly.aof.manifest").write_text(
        "file appendonly.aof.1.incr.aof seq 1 type i\n"
    )
    port, output = free_port(), tmp_path / "output"
    environ = {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TAILRACE_DATA_DIR": str(data),
        "TAILRACE_PORT": str(port), "TAILRACE_DRAIN_S": "0.2", "TMPDIR": str(short_path),
    }  # fmt: skip
    argv = [sys.executable, "-P", "-m", "cli.main", "up"]
    process = spawn(argv, env=environ, output=output, cwd=tmp_path)
    try:
        until_sync(lambda: "Tailrace is ready" in output.read_text(), READY_S, "readiness")
        ask(port, PROMPT)

        def is_kept() -> bool:
            files = (data / "appendonlydir").iterdir()
            return any(PROMPT.encode() in path.read_bytes() for path in files)

        until_sync(is_kept, READY_S, "the prompt stands in the append-only file")
        (socket_folder,) = short_path.glob("tailrace-*")

        assert open_to_others(data) == []
        assert stat.S_IMODE(socket_folder.stat().st_mode) == 0o700
        said = output.read_text()
        assert said.count(f"chmod 700 {data}\n") == 1 and "mode 755" in said
    finally:
        process.terminate()
        try:
            process.wait(READY_S)
        except subprocess.TimeoutExpired:
            kill_group(process)
    assert stat.S_IMODE(data.stat().st_mode) == 0o755  # its owner's to close


async def test_the_doctor_names_files_that_other_users_can_read(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    settings = {"TAILRACE_DATA_DIR": str(data)}

    _, said = await run_role("doctor", settings)
    data.chmod(0o700)
    _, then = await run_role("doctor", settings)

    assert f"chmod 700 {data}" in said and "warn  private" in said
    assert "private" not in then
