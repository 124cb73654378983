"""Runs turns of OpenAI's Codex, on a socket and over HTTP, while its node or worker dies.

    make codex

Codex reaches the first of two nodes through one address, which leads to the second node after the
fault. Each scenario demands the whole text, one execution of the command of the turn, and one
request at the model server for each answer. One line per scenario; exit code 1 if one fails.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.codex.model import TEXT, SlowModel
from tests.support.npm import installed, tool
from tests.support.processes import Deployment
from tests.support.proxy import Proxy

FOLDER = Path(__file__).parent
TURN_S = 120.0
MODELS = """
[models.demo]
backend = "openai"
base_url = "http://127.0.0.1:{port}/v1"
on_takeover = "restart"
"""
CONFIG = """
model = "demo"
model_provider = "tailrace"
[model_providers.tailrace]
name = "Tailrace"
base_url = "http://127.0.0.1:{port}/v1"
wire_api = "responses"
env_key = "TAILRACE_KEY"
supports_websockets = {on_socket}
request_max_retries = 0
stream_max_retries = 3
"""
COMMAND = "echo ran >> ran.txt"


@dataclass(frozen=True)
class Scenario:
    """One turn.

    Attributes:
        fault: in the middle of the first answer: `kill` or `drain` of the node, or `worker`.
        has_command: the first answer calls a tool.
        asked: requests at the model server.
        on_socket: over the WebSocket mode; False: over HTTP.
        messages: that Codex shows; an answer that begins anew leaves its first part as one more.
    """

    name: str
    fault: str = ""
    has_command: bool = False
    asked: int = 1
    messages: int = 1
    on_socket: bool = True


SCENARIOS = [
    Scenario("undisturbed"),
    Scenario("node killed in mid-answer", "kill"),
    Scenario("node drained in mid-answer", "drain"),
    Scenario("worker killed in mid-answer", "worker", asked=2, messages=2),
    Scenario("undisturbed, with a command", has_command=True, asked=2),
    Scenario("node killed while the model calls a tool", "kill", has_command=True, asked=2),
    Scenario("node drained while the model calls a tool", "drain", has_command=True, asked=2),
    Scenario("HTTP: undisturbed, with a command", has_command=True, asked=2, on_socket=False),
    Scenario("HTTP: node killed in mid-answer", "kill", on_socket=False),
    Scenario("HTTP: node drained in mid-answer", "drain", on_socket=False),
    Scenario(
        "HTTP: node killed while the model calls a tool",
        "kill",
        has_command=True,
        asked=2,
        on_socket=False,
    ),  # fmt: skip
]


async def play(scenario: Scenario) -> str:
    """Run one scenario; return what is wrong, or nothing."""
    async with SlowModel(COMMAND if scenario.has_command else "") as model:
        models = MODELS.format(port=model.port)
        compressing = {"ws_deflate": "on", "stream_encodings": "gzip,zstd,br"}
        async with Deployment(
            api=2, workers=2, lease_s=0.8, models=models, settings=compressing
        ) as deployment:
            ports = [role.port for role in deployment.api]
            async with Proxy("127.0.0.1", ports[0]) as proxy:
                with tempfile.TemporaryDirectory(prefix="tailrace-codex-") as directory:
                    disturbing = asyncio.create_task(disturb(scenario, model, deployment, proxy))
                    try:
                        said = await run_codex(scenario, Path(directory), proxy.port)
                    finally:
                        disturbing.cancel()
                    runs = lines_of(Path(directory, "project", "ran.txt"))
            has_warm_up = await count_of_warm_ups(deployment) > 0
    return judge(scenario, said, runs, model.asked, has_warm_up=has_warm_up)


async def disturb(
    scenario: Scenario, model: SlowModel, deployment: Deployment, proxy: Proxy
) -> None:
    await model.middle.wait()
    match scenario.fault:
        case "kill":
            proxy.lead_to(deployment.api[1].port)
            deployment.api[0].kill()
        case "drain":
            proxy.lead_to(deployment.api[1].port)
            deployment.api[0].terminate()
        case "worker":
            async with deployment.redis() as redis:
                names = [
                    await redis.hget(key, "worker") async for key in redis.scan_iter("tr:*:meta")
                ]
            held = {name.decode() for name in names if name}
            next(role for role in deployment.workers if role.ready_name in held).kill()


async def run_codex(scenario: Scenario, directory: Path, port: int) -> list[dict[str, Any]]:
    """Run `codex exec` for one turn; return the events that it prints."""
    home, project = directory / "home", directory / "project"
    home.mkdir()
    project.mkdir()
    on_socket = "true" if scenario.on_socket else "false"
    (home / "config.toml").write_text(CONFIG.format(port=port, on_socket=on_socket))
    program = installed(FOLDER) / "@openai" / "codex" / "bin" / "codex.js"
    process = await asyncio.create_subprocess_exec(
        tool("node"), str(program), "exec", "--json", "--skip-git-repo-check",
        "--dangerously-bypass-approvals-and-sandbox", "do it",
        cwd=project, env={**os.environ, "CODEX_HOME": str(home), "TAILRACE_KEY": "any"},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(TURN_S):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return [json.loads(line) for line in output.splitlines() if line.startswith(b"{")]


async def count_of_warm_ups(deployment: Deployment) -> int:
    """Count the generations that no worker wrote: only the WebSocket mode makes such ones."""
    async with deployment.redis() as redis:
        keys = [key async for key in redis.scan_iter("tr:*:meta")]
        return sum([await redis.hexists(key, "producer") for key in keys])


def lines_of(path: Path) -> list[str]:
    """Return the lines of a file; a file that is not there has none."""
    return path.read_text().splitlines() if path.exists() else []


def judge(
    scenario: Scenario,
    said: list[dict[str, Any]],
    runs: list[str],
    asked: int,
    *,
    has_warm_up: bool,
) -> str:
    """Return what is wrong with a turn; empty: nothing."""
    items = [event["item"] for event in said if event["type"] == "item.completed"]
    texts = [item["text"] for item in items if item["type"] == "agent_message"]
    wrong = []
    if not any(event["type"] == "turn.completed" for event in said):
        wrong.append("the turn did not complete")
    if len(texts) != scenario.messages or texts[-1].strip() != TEXT.strip():
        wrong.append(f"the texts are {texts}")
    if len(runs) != scenario.has_command:
        wrong.append(f"the command ran {len(runs)} times")
    if asked != scenario.asked:
        wrong.append(f"the model server was asked {asked} times")
    if has_warm_up != scenario.on_socket:
        wrong.append("Codex did not use the transport of the scenario")
    return "; ".join(wrong)


async def main() -> int:
    """Run all scenarios; return the exit code."""
    failed = 0
    for scenario in SCENARIOS:
        wrong = await play(scenario)
        failed += bool(wrong)
        print(f"{scenario.name}: {wrong or 'exact'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
