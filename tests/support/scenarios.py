"""Runs one row of clients/scenarios.json with a client program, and says what was wrong.

A client program reads lines of JSON and answers each with a line of JSON. The line
`{"op": "each", "runs": […]}` starts all runs at once, each with a client of its own. Its answer is
`{"value": [outcome, …]}` in their order. A run names `url`, `transport`, and `body` (start this) or
`id` and `cursor` (attach). An outcome has `id`, `events`, `result` and `cursor`, or `error`.

Further members of a run: `tokens`, a list of `{token, until}` (s since 1970): asked for a token,
the program gives the first one that lives for another second; `clock`, by how much the program's
clock is wrong from the start (`offset_s`), and by how much it jumps (`jump_s`) after so many events
(`after_events`) or pauses before another try (`after_retries`). A program that cannot replace its
clock may ignore `clock`.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol, Self

from shared.config.credentials import LEEWAY_S
from tests.support.client import Client
from tests.support.demo import demo_body, expected_text
from tests.support.npm import CLIENTS, built, installed, tool
from tests.support.processes import Deployment
from tests.support.scenario_proxy import Faults, ScenarioProxy
from tests.support.tokens import hmac_token
from tests.support.wait import until

TABLE = Path(__file__).parents[2] / "clients" / "scenarios.json"
PYTHON_PACKAGE = TABLE.parent / "python" / "src"
LANGUAGES = ["javascript", "python", "python-sync"]
TRANSPORTS = ["websocket", "sse", "ndjson", "poll", "auto"]
ANSWER_S = 90.0
TOKENS = 30  # of a row with `token_s`, made before the row runs
LINE_BYTES_MAX = 2**26


def rows() -> dict[str, dict[str, Any]]:
    """Return the scenarios by their names."""
    return {row["name"]: row for row in json.loads(TABLE.read_text())["scenarios"]}


class Program(Protocol):
    """What a scenario asks of a client: `ClientProgram`, or a page."""

    async def ask(self, op: str, **told: Any) -> Any:
        """Have something done and return its value."""


class ClientProgram:
    """A client in any language, as a process. Use as an async context manager."""

    def __init__(self, argv: Sequence[str], *, cwd: Path, key: str = "") -> None:
        self._argv = argv
        self._cwd = cwd
        self._key = key
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._argv, cwd=self._cwd, limit=LINE_BYTES_MAX,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "API_KEY": self._key, "PYTHONPATH": str(PYTHON_PACKAGE)},
        )  # fmt: skip
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()

    async def ask(self, op: str, **told: Any) -> Any:
        """Have something done and return its value.

        Raises:
            AssertionError: the program failed, or has ended.
        """
        assert self._process is not None
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"op": op, **told}).encode() + b"\n")
        async with asyncio.timeout(ANSWER_S):
            line = await self._process.stdout.readline()
        assert line, f"{self._argv} has ended"
        said = json.loads(line)
        assert "value" in said, said
        return said["value"]


def problems_of(outcome: dict[str, Any], body: dict[str, Any]) -> list[str]:
    """Audit one reading: exact text, each event once, in order, one end. Empty: all is right."""
    if "error" in outcome:
        return [str(outcome["error"])]
    events, result = outcome["events"], outcome["result"]
    text = expected_text(body, outcome["id"])
    said = "".join(event["text"] for event in events if event["type"] == "token")
    ids = [tuple(map(int, event["id"].split("-"))) for event in events]
    checks = {
        "the text": said == text,
        "the text of the result": result["text"] == text,
        "the order, and each event once": ids == sorted(set(ids)),
        "one end, which is last": [e["type"] == "end" for e in events] == _ends(len(events)),
        "the status": result["status"] == "completed",
        "the cursor": outcome["cursor"] == events[-1]["id"],
    }
    return [name for name, is_right in checks.items() if not is_right]


def _ends(count: int) -> list[bool]:
    return [False] * (count - 1) + [True]


def program_of(language: str, key: str = "") -> ClientProgram:
    """Return the program of one of our own clients, built if that is needed."""
    if language == "javascript":
        installed()
        built()
        return ClientProgram([tool("node"), "tailrace.mjs"], cwd=CLIENTS, key=key)
    argv = [sys.executable, "tailrace_driver.py", *(["sync"] if "sync" in language else [])]
    return ClientProgram(argv, cwd=CLIENTS, key=key)


def command_program(command: str) -> ClientProgram:
    """Return the program of a command line."""
    return ClientProgram(shlex.split(command), cwd=Path.cwd())


class Scenario:
    """One row on all its transports at the same time, each behind a proxy of its own."""

    def __init__(self, row: dict[str, Any], deployment: Deployment, program: Program) -> None:
        self.row = row
        self.deployment = deployment
        self.program = program
        self.transports: list[str] = row.get("transports", TRANSPORTS)
        self.body = demo_body(row["answer"]["tokens"], row["answer"]["per_s"])
        self.proxies: dict[str, ScenarioProxy] = {}
        self.back_s: dict[str, float] = {}

    async def run(self) -> list[str]:
        """Return the problems of all transports."""
        faults = self.row.get("faults", {})
        ports = [role.port for role in self.deployment.api]
        async with AsyncExitStack() as stack:
            for name in self.transports:
                proxy = ScenarioProxy(ports, Faults.read(faults))
                self.proxies[name] = await stack.enter_async_context(proxy)
            asked = await self._asked()
            runs = [
                {"url": self.proxies[name].url, "transport": name, **asked}
                for name in self.transports
                for _ in range(self.row.get("clients", 1))
            ]
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(self.program.ask("each", runs=runs))
                group.create_task(self._disturb())
            outcomes = reading.result()
        problems = [
            f"{run['transport']}: {problem}"
            for run, outcome in zip(runs, outcomes, strict=True)
            for problem in problems_of(outcome, self.body)
        ]
        return problems + [problem for name in self.transports for problem in self._counted(name)]

    async def _asked(self) -> dict[str, Any]:
        """Return what each run is told, beside its address and its transport."""
        asked = {key: self.row[key] for key in ("clock",) if key in self.row}
        if lives_s := self.row.get("token_s"):
            untils = [int(time.time()) + lives_s * (n + 1) for n in range(TOKENS)]
            asked["tokens"] = [
                {"token": hmac_token(exp=int(until - LEEWAY_S)), "until": until} for until in untils
            ]
        if not self.row.get("has_one_answer"):
            return {**asked, "body": self.body}
        async with Client(self.deployment.urls) as client:
            return {**asked, "id": (await client.start(self.body))["id"]}

    async def _disturb(self) -> None:
        if outage := self.row.get("outage"):
            async with asyncio.TaskGroup() as group:
                for name in self.transports:
                    group.create_task(self._outage(name, outage))
        if node := self.row.get("node"):
            for proxy in self.proxies.values():
                await self._passed(proxy, node["after_bytes"])
            for proxy in self.proxies.values():
                proxy.node_left_at = time.monotonic()
            if node["act"] == "kill_worker":
                self.deployment.workers[0].kill()
            else:
                getattr(self.deployment.api[0], node["act"])()

    async def _outage(self, name: str, outage: dict[str, Any]) -> None:
        proxy = self.proxies[name]
        await self._passed(proxy, outage["after_bytes"])
        await proxy.go_away()
        await asyncio.sleep(outage["seconds"])
        before = proxy.connections
        proxy.come_back()
        back_at = time.monotonic()
        bound_s = outage["back_within_s"] + 10
        await until(lambda: proxy.connections > before, bound_s, f"{name} is back")
        self.back_s[name] = time.monotonic() - back_at

    async def _passed(self, proxy: ScenarioProxy, count: int) -> None:
        await until(lambda: proxy.down_bytes >= count, 30, f"{count} bytes of answers")

    def _counted(self, name: str) -> list[str]:
        proxy, row, outage = self.proxies[name], self.row, self.row.get("outage")
        least, most = row.get("connections_min", 1), row["connections_max"]
        problems = []
        crowd, crowd_max = proxy.crowd(0.1), row.get("connections_per_tenth_s_max")
        if crowd_max and not crowd <= crowd_max:
            problems.append(f"{name}: {crowd} connections within a tenth of a second")
        if not least <= proxy.connections <= most:
            problems.append(f"{name}: {proxy.connections} connections, not {least} to {most}")
        if outage and not outage["tries_min"] <= proxy.tries <= outage["tries_max"]:
            problems.append(f"{name}: {proxy.tries} tries during the outage")
        if outage and self.back_s[name] > outage["back_within_s"]:
            problems.append(f"{name}: back after {self.back_s[name]:.1f} s")
        return problems
