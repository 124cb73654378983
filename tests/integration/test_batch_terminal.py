"""`tailrace batch` as a person runs it, against real roles that end in between."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.processes import ROOT, Deployment
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
        self.argv = [sys.executable, "-P", "-m", "cli.main", "batch", *words]
        self.environ = {
            **os.environ, "PYTHONPATH": str(ROOT), "TAILRACE_URL": deployment.urls[0],
            "PYTHONASYNCIODEBUG": "", "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        self.out = self.err = ""

    async def __aenter__(self) -> Command:
        self.process = await asyncio.create_subprocess_exec(
            *self.argv, env=self.environ, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self.tasks = asyncio.TaskGroup()
        await self.tasks.__aenter__()
        self.tasks.create_task(self._read())
        self.tasks.create_task(self._hear())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self.tasks.__aexit__(None, None, None)

    async def ended(self) -> int:
        async with asyncio.timeout(DEADLINE_S):
            return await self.process.wait()

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.out += line.decode()

    async def _hear(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.err += line.decode()


async def run(deployment: Deployment, *words: str) -> Command:
    async with Command(deployment, *words) as command:
        await command.ended()
    return command


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
    submitted = await run(deployment, "submit", str(path), "--watch")
    batch_id = submitted.out.strip()
    assert submitted.process.returncode == 0, submitted.err
    assert "completed: 40 of 40 lines done" in submitted.err

    saved = await run(deployment, "results", batch_id, "-o", str(out))
    printed = await run(deployment, "results", batch_id)
    assert saved.process.returncode == 0, saved.err
    assert printed.out == read(out)
    assert {json.loads(line)["custom_id"] for line in printed.out.splitlines()} == {
        f"c{n}" for n in range(40)
    }
    listed = await run(deployment, "ls")
    assert f"{batch_id}  completed" in listed.out and "40/40" in listed.out


async def test_ctrl_c_leaves_the_batch_running_and_a_killed_node_does_not_stop_it(
    deployment: Deployment, tmp_path: Path
) -> None:
    path = requests(tmp_path / "in.jsonl", 200, tokens=100, tokens_per_s=10)
    async with Command(deployment, "submit", str(path), "--watch") as submitting:
        await until(lambda: "in_progress" in submitting.err, DEADLINE_S, "progress is shown")
        submitting.process.send_signal(signal.SIGINT)
        assert await submitting.ended() == 130
    batch_id = submitting.out.strip()
    assert f"{batch_id} goes on; come back: tailrace batch watch {batch_id}" in submitting.err

    async with Command(deployment, "watch", batch_id) as watching:
        await until(lambda: "in_progress" in watching.err, DEADLINE_S, "progress is shown again")
        deployment.api[0].kill()
        await until(lambda: "connection lost" in watching.err, DEADLINE_S, "the cut is seen")
        await deployment.heal()
        cancelled = await run(deployment, "cancel", batch_id)
        assert cancelled.out in (f"{batch_id} cancelling\n", f"{batch_id} cancelled\n")
        assert await watching.ended() == 1
    assert "cancelled: " in watching.err and "of 200 lines done" in watching.err


async def test_a_refused_input_file_is_reported_with_its_line(
    deployment: Deployment, tmp_path: Path
) -> None:
    path = requests(tmp_path / "in.jsonl", 3)
    path.write_text(read(path) + "no JSON\n")
    refused = await run(deployment, "submit", str(path), "--watch")

    assert refused.process.returncode == 1
    assert "line 4: " in refused.err
    again = await run(deployment, "redrive", refused.out.strip())
    assert again.process.returncode == 2 and "no line of this batch has failed" in again.err


def read(path: Path) -> str:
    return path.read_text()
