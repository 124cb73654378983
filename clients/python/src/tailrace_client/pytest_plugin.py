"""A pytest fixture that starts a server with the demo model, for the tests of an application.

    def test_my_application(tailrace_url: str) -> None: ...

The package `tailrace` must be installed. Each test session has a server and data of its own.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

READY_S = 60.0
END_S = 15.0
LOOK_S = 0.1


@pytest.fixture(scope="session")
def tailrace_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a ready server. It ignores the variables TAILRACE_… of the shell."""
    directory = tmp_path_factory.mktemp("tailrace")
    port = _free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TAILRACE_")}
    output = directory / "output"
    with output.open("wb") as log:
        process = subprocess.Popen(
            [_command(), "up", "--port", str(port)],
            env={**kept, "TAILRACE_DATA_DIR": str(directory)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(url, process, output)
            yield url
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _command() -> str:
    beside = Path(sys.executable).parent / "tailrace"
    found = str(beside) if beside.exists() else shutil.which("tailrace")
    if found is None:
        pytest.fail(
            "the command `tailrace` is missing: install the package tailrace", pytrace=False
        )
    return found


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], output: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx2.get(f"{url}/readyz").is_success:
                return
        except httpx2.HTTPError:
            pass
        time.sleep(LOOK_S)
    said = output.read_text(errors="replace")[-4_000:]
    pytest.fail(f"the server was not ready within {READY_S:g} s:\n{said}", pytrace=False)
