"""`make peers`: how other resuming clients end in the scenarios of our own, as a table.

Each cell is one run: the answer is exact, or what was wrong with it, and how many connections
the client opened. Our own client stands in the first column, over server-sent events. The
peers are used as their documentation says, with their defaults (tests/peers/peers.mjs). Without
`--no-runtimes`, Deno and Bun run our own client through the whole table first.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.demo import demo_body, expected_text
from tests.support.npm import CLIENTS, built, installed, tool
from tests.support.processes import Deployment
from tests.support.redis_server import RedisServer, free_port
from tests.support.scenario_proxy import Faults, ScenarioProxy
from tests.support.scenarios import ClientProgram, problems_of, program_of, rows
from tests.support.wait import until

PEERS = Path(__file__).parent
COLUMNS = (
    "tailrace",
    "use-chat",
    "use-chat-resumed",
    "resumable-stream",
    "fetch-event-source",
    "eventsource",
)
LIMIT_S = 25.0  # all answers of the table take at most 10 s on a whole network
READY_S = 20.0
SEED = 7  # so that the text is known before the answer has an id
WITHOUT_SOCKETS = "the socket is reset after the handshake"


class Nodes:
    """What a column reads from: two nodes, and what can happen to the first one."""

    def __init__(self, ports: Sequence[int], acts: dict[str, Any]) -> None:
        self.ports = list(ports)
        self.acts = acts


@asynccontextmanager
async def tailrace_nodes() -> AsyncIterator[Nodes]:
    """Start two nodes and two workers of Tailrace."""
    async with Deployment(api=2, workers=2, settings={"heartbeat_s": "1"}) as deployment:
        acts = {
            "kill": deployment.api[0].kill,
            "terminate": deployment.api[0].terminate,
            "kill_worker": deployment.workers[0].kill,
        }
        yield Nodes([role.port for role in deployment.api], acts)


@asynccontextmanager
async def resumable_nodes() -> AsyncIterator[Nodes]:
    """Start two nodes of an application with resumable-stream, on one Redis."""
    server = RedisServer(tcp=True)
    server.start()
    ports, processes = [free_port(), free_port()], []
    try:
        for port in ports:
            process = await asyncio.create_subprocess_exec(
                tool("node"), "resumable-server.mjs", str(port), server.url, cwd=PEERS,
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            processes.append(process)
            assert process.stdout is not None
            async with asyncio.timeout(READY_S):
                assert await process.stdout.readline() == b"ready\n"
        yield Nodes(ports, {"kill": processes[0].kill, "terminate": processes[0].terminate})
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
            await process.communicate()
        server.stop()


async def cell(column: str, row: dict[str, Any]) -> str:
    """Run one scenario with one client; return its cell."""
    open_nodes = resumable_nodes if column == "resumable-stream" else tailrace_nodes
    async with open_nodes() as nodes, program(column) as client:
        act = row.get("node", {}).get("act")
        if act and act not in nodes.acts:
            return "–"  # no worker: the node itself produces the text
        faults = Faults.read(row.get("faults", {}))
        async with ScenarioProxy(nodes.ports, faults) as proxy:
            body = demo_body(row["answer"]["tokens"], row["answer"]["per_s"], seed=SEED)
            count = row.get("clients", 1)
            runs = [run_of(column, proxy, nodes, body, row) for _ in range(count)]
            disturbing = asyncio.create_task(disturb(row, proxy, nodes))
            try:
                outcomes = await client.ask("each", runs=runs)
            finally:
                disturbing.cancel()
                await asyncio.wait({disturbing})
            connections = proxy.connections
    return f"{judge(column, outcomes, body)}, {connections}"


def program(column: str) -> ClientProgram:
    if column == "tailrace":
        return program_of("javascript")
    return ClientProgram([tool("node"), "peers.mjs", column], cwd=PEERS)


def run_of(
    column: str, proxy: ScenarioProxy, nodes: Nodes, body: dict[str, Any], row: dict[str, Any]
) -> dict[str, Any]:
    """Return what one client is told."""
    if column == "tailrace":
        return {"url": proxy.url, "transport": "sse", "body": body}
    text = expected_text(body, "")
    size = max(1, len(text) // row["answer"]["tokens"])
    return {
        "url": proxy.url,
        "start": f"http://127.0.0.1:{nodes.ports[1]}",
        "body": body,
        "id": uuid.uuid4().hex,
        "limit_s": LIMIT_S,
        "pieces": [text[at : at + size] for at in range(0, len(text), size)],
        "per_s": row["answer"]["per_s"],
    }


async def disturb(row: dict[str, Any], proxy: ScenarioProxy, nodes: Nodes) -> None:
    """Do to the network or to a node what the scenario says."""
    if outage := row.get("outage"):
        await until(lambda: proxy.down_bytes >= outage["after_bytes"], LIMIT_S, "bytes")
        await proxy.go_away()
        await asyncio.sleep(outage["seconds"])
        proxy.come_back()
    if node := row.get("node"):
        await until(lambda: proxy.down_bytes >= node["after_bytes"], LIMIT_S, "bytes")
        nodes.acts[node["act"]]()


def judge(column: str, outcomes: list[dict[str, Any]], body: dict[str, Any]) -> str:
    """Return `exact`, or the first thing that was wrong and for how many clients."""
    if column == "tailrace":
        wrong = ["; ".join(found) for each in outcomes if (found := problems_of(each, body))]
    else:
        wrong = [found for each in outcomes if (found := problem_of(each, expected_text(body, "")))]
    if not wrong:
        return "exact"
    return wrong[0] if len(outcomes) == 1 else f"{len(wrong)} of {len(outcomes)}: {wrong[0]}"


def problem_of(outcome: dict[str, Any], text: str) -> str:
    """Return what was wrong with the answer that a peer shows; empty: nothing."""
    said: str = outcome["text"]
    if outcome["how"] != "ended":
        return str(outcome["how"])
    if len(set(outcome["ids"])) != len(outcome["ids"]):
        return "events repeated"
    if said == text:
        return ""
    return "a part is missing, and nothing says so" if len(said) < len(text) else "text repeated"


async def compare(names: Sequence[str], columns: Sequence[str]) -> None:
    """Print the table in Markdown."""
    print(f"| scenario | {' | '.join(columns)} |")
    print("|---" * (len(columns) + 1) + "|")
    for name in names:
        cells = [await cell(column, rows()[name]) for column in columns]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def run_in_runtimes() -> int:
    """Hold our own client to the whole table in Deno and in Bun; return the exit code."""
    built()
    installed(CLIENTS)
    tools = PEERS / "node_modules" / ".bin"
    driver = CLIENTS / "tailrace.mjs"
    for command in (f"{tools}/deno run --allow-all --no-lock {driver}", f"{tools}/bun {driver}"):
        table = ["tests/clients/test_scenarios.py", "-W", "default::ResourceWarning"]
        argv = [sys.executable, "-m", "pytest", "-q", *table, "--client", command]
        print(command.replace(str(PEERS.parents[1]), "."), flush=True)
        if code := subprocess.run(argv, check=False).returncode:
            return code
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="make peers", description=__doc__.split("\n")[0])
    parser.add_argument("--no-runtimes", action="store_true", help="leave Deno and Bun out")
    parser.add_argument("--only", nargs="*", default=COLUMNS, choices=COLUMNS, metavar="CLIENT")
    parser.add_argument("--scenario", default="", help="only the scenarios with these words")
    args = parser.parse_args()
    installed(PEERS)
    if not args.no_runtimes and (code := run_in_runtimes()):
        return code
    built()
    names = [n for n in rows() if args.scenario in n and n != WITHOUT_SOCKETS]
    asyncio.run(compare(names, args.only))
    return 0


if __name__ == "__main__":
    sys.exit(main())
