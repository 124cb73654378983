"""`tailrace top` and `trace` in a real terminal (tmux), narrow and wide."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.client import Client
from tests.support.processes import Deployment
from tests.support.wait import until

ROOT = Path(__file__).resolve().parents[2]
MISSING = "no tmux here: apt-get install tmux"
DEADLINE_S = 30.0
HEIGHT = 30


class Tmux:
    """A tmux server of its own with one terminal."""

    def __init__(self, width: int, environ: dict[str, str], *words: str) -> None:
        program = shutil.which("tmux")
        assert program, MISSING
        self._directory = tempfile.mkdtemp(prefix="trtmux-")
        self._start = [program, "-S", f"{self._directory}/socket", "-f", "/dev/null"]
        variables = {"PYTHONPATH": str(ROOT), **environ}
        sets = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
        command = shlex.join([sys.executable, "-P", "-m", "cli.main", *words])
        # The exit code stays on the screen when the command has ended.
        line = f"{sets} {command}; echo code=$?; sleep 60"
        self._run("new-session", "-d", "-x", str(width), "-y", str(HEIGHT), line)

    def _run(self, *words: str) -> str:
        kept = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TERM": "xterm-256color"}
        run = subprocess.run(
            [*self._start, *words], capture_output=True, text=True, check=True, env=kept
        )
        return run.stdout

    def screen(self, *, has_colours: bool = False) -> str:
        return self._run("capture-pane", "-p", *(["-e"] if has_colours else []))

    def press(self, key: str) -> None:
        self._run("send-keys", key)

    def type(self, line: str) -> None:
        self._run("send-keys", "-l", line)
        self.press("Enter")

    def close(self) -> None:
        self._run("kill-server")
        shutil.rmtree(self._directory, ignore_errors=True)


@pytest.fixture(params=[80, 200])
def width(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def opened() -> Iterator[list[Tmux]]:
    terminals: list[Tmux] = []
    yield terminals
    for terminal in terminals:
        terminal.close()


async def start_long_answer(deployment: Deployment) -> str:
    async with Client(deployment.urls) as client:
        body = {"prompt": "A long story", "model": "demo", "params": {"max_tokens": 2_000}}
        return str((await client.start(body))["id"])


async def test_top_shows_running_answers_until_ctrl_c(
    shared_deployment: Deployment, width: int, opened: list[Tmux]
) -> None:
    name = await start_long_answer(shared_deployment)
    terminal = Tmux(width, {"TAILRACE_URL": shared_deployment.urls[0]}, "top")
    opened.append(terminal)

    await until(lambda: name in terminal.screen(), DEADLINE_S, "the answer is in the table")
    await until(lambda: "tokens/s" in terminal.screen(), DEADLINE_S, "a second picture")
    assert "\x1b[" in terminal.screen(has_colours=True)
    terminal.press("C-c")
    await until(lambda: "code=130" in terminal.screen(), DEADLINE_S, "the end of the command")

    async with Client(shared_deployment.urls) as client:
        await client.cancel(name)


async def test_a_conversation_knows_what_was_said_and_a_key_stops_an_answer(
    shared_deployment: Deployment, width: int, opened: list[Tmux], tmp_path: Path
) -> None:
    environ = {"TAILRACE_URL": shared_deployment.urls[0], "XDG_STATE_HOME": str(tmp_path)}
    session = f"talk-{width}"
    terminal = Tmux(width, environ, "chat", "--model", "demo", "--session", session)
    opened.append(terminal)
    await until(lambda: "Ctrl-D ends" in terminal.screen(), DEADLINE_S, "a prompt")

    terminal.type("What is a lease?")
    await until(lambda: "lease" in terminal.screen().split("?", 1)[1], DEADLINE_S, "an answer")
    terminal.press("C-c")
    await until(lambda: "cancelled" in terminal.screen(), DEADLINE_S, "the end of the answer")
    terminal.type("/exit")
    await until(lambda: "code=0" in terminal.screen(), DEADLINE_S, "the end of the command")

    again = Tmux(width, environ, "chat", "--model", "demo", "--session", session)
    opened.append(again)
    await until(lambda: "Ctrl-D ends" in again.screen(), DEADLINE_S, "a prompt")
    again.press("Up")
    await until(lambda: "> What is a lease?" in again.screen(), DEADLINE_S, "the kept line")
    again.press("C-u")
    again.type("And then?")
    async with Client(shared_deployment.urls) as client:

        async def asked() -> list[str] | None:
            found = await client._call("GET", f"/v1/sessions/{session}", node="")
            if len(found["generations"]) < 2:
                return None
            newest = await client.snapshot(found["generations"][0]["id"])
            return [message["role"] for message in newest["messages"]]

        assert await until(asked, DEADLINE_S, "the second question") == [
            "user", "assistant", "user",
        ]  # fmt: skip


async def test_trace_fits_the_terminal(
    shared_deployment: Deployment, width: int, opened: list[Tmux]
) -> None:
    name = await start_long_answer(shared_deployment)
    async with Client(shared_deployment.urls) as client:
        await client.cancel(name)
    terminal = Tmux(width, {"TAILRACE_URL": shared_deployment.urls[1]}, "trace", name)
    opened.append(terminal)

    screen = await until(
        lambda: terminal.screen() if "code=0" in terminal.screen() else "", DEADLINE_S, "the table"
    )
    assert all(word in screen for word in ("accepted", "queued", "cancel requested", "by owner"))
