"""`tailrace batch` as a person runs it, against real roles that end in between."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.processes import Deployment, start_module
from tests.support.spawn import kill_group, signal_group
from tests.support.wait import until

DEADLINE_S = 40
MODELS = '[models.demo]\nbackend = "demo"\non_takeover = "continue"\ntokens_per_s = 0\n'


@pytest.fixture(scope="module")
async def deployment() -> AsyncIterator[Deployment]:
    async with Deployment(api=1, workers=1, jobs=True, models=MODELS) as deployment:
        yield deployment


class Command:
    """One `tailrace batch …`; its output grows while it runs."""

    def __init__(self, deployment: Deployment, *words: str) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="trb-"))
        self._out, self._err = self._directory / "out", self._directory / "err"
        environ = {**os.environ, "TAILRACE_URL": deployment.urls[0], "PYTHONASYNCIODEBUG": ""}
        self.process = start_module(
            "cli.main", ["batch", *words], env=environ, output=self._out, errors=self._err
        )

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    async def __aenter__(self) -> Command:
        return self

    async def __aexit__(self, *_: object) -> None:
        kill_group(self.process)
        shutil.rmtree(self._directory)

    async def ended(self) -> int:
        """Return the exit code once the command has ended."""
        await until(lambda: self.process.poll() is not None, DEADLINE_S, "the end of the command")
        assert self.process.returncode is not None
        return self.process.returncode


async def run(deployment: Deployment, *words: str) -> tuple[int, str, str]:
    """Run a command to its end; return its exit code, its output and its messages."""
    async with Command(deployment, *words) as command:
        return await command.ended(), command.out, command.err


def requests(path: Path, count: int, **demo: float) -> Path:
    body = {"messages": [{"role": "user", "content": "x"}], "demo": {"tokens": 3, **demo}}
    line = {"method": "POST", "url": "/v1/chat/completions", "body": body}
    path.write_text(
        "".join(json.dumps({"custom_id": f"c{n}", **line}) + "\n" for n in range(count))
    )
    return path


async def test_submit_watch_and_save_a_batch_in_the_terminal(
    deployment: Deployment, tmp_path: Path
) -> None:
    path, out = requests(tmp_path / "in.jsonl", 40), tmp_path / "out.jsonl"
    code, said, messages = await run(deployment, "submit", str(path), "--watch")
    batch_id = said.strip()
    assert code == 0, messages
    assert "completed: 40 of 40 lines done" in messages

    code, _, messages = await run(deployment, "results", batch_id, "-o", str(out))
    assert code == 0, messages
    _, printed, _ = await run(deployment, "results", batch_id)
    assert printed == read(out)
    assert {json.loads(line)["custom_id"] for line in printed.splitlines()} == {
        f"c{n}" for n in range(40)
    }
    _, listed, _ = await run(deployment, "ls")
    assert f"{batch_id}  completed" in listed and "40/40" in listed


async def test_ctrl_c_leaves_the_batch_running_and_a_killed_node_does_not_stop_it(
    deployment: Deployment, tmp_path: Path
) -> None:
    path = requests(tmp_path / "in.jsonl", 200, tokens=100, tokens_per_s=10)
    async with Command(deployment, "submit", str(path), "--watch") as submitting:
        await until(lambda: "in_progress" in submitting.err, DEADLINE_S, "progress is shown")
        signal_group(submitting.process, signal.SIGINT)
        assert await submitting.ended() == 130
        batch_id = submitting.out.strip()
        assert f"{batch_id} goes on; come back: tailrace batch watch {batch_id}" in submitting.err

    async with Command(deployment, "watch", batch_id) as watching:
        await until(lambda: "in_progress" in watching.err, DEADLINE_S, "progress is shown again")
        deployment.api[0].kill()
        await until(lambda: "connection lost" in watching.err, DEADLINE_S, "the cut is seen")
        await deployment.heal()
        _, cancelled, _ = await run(deployment, "cancel", batch_id)
        assert cancelled in (f"{batch_id} cancelling\n", f"{batch_id} cancelled\n")
        assert await watching.ended() == 1
        assert "cancelled: " in watching.err and "of 200 lines done" in watching.err


async def test_a_refused_input_file_is_reported_with_its_line(
    deployment: Deployment, tmp_path: Path
) -> None:
    path = requests(tmp_path / "in.jsonl", 3)
    path.write_text(read(path) + "no JSON\n")
    code, said, messages = await run(deployment, "submit", str(path), "--watch")

    assert code == 1
    assert "line 4: " in messages
    code, _, messages = await run(deployment, "redrive", said.strip())
    assert code == 2 and "no line of this batch has failed" in messages


def read(path: Path) -> str:
    return path.read_text()
