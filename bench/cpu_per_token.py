"""CPU per token of each process, for many answers at once, each with one reader.

    python -m bench.cpu_per_token [--generations 100] [--tokens-per-s 20] [--seconds 10]

Starts `tailrace up` on free ports, lets the built-in demo model answer, reads every answer over
SSE and checks its text, and takes the processes' CPU time (user and system, /proc) over the middle
of the run. The unit beside it is a bare `send()` of the same frames in this process, so that the
ratio means something on another machine. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import socket
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from shared.request import Request
from workers.backends.demo import expected_text

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
FRAME = b'2f\r\nid: 1-123\nevent: token\ndata: {"text":" word"}\n\n\r\n'
SETTLE_S = 2.0


def role_of(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    for role in (b"api", b"worker", b"jobs"):
        if b"cli.main" in words and role in words:
            return role.decode()
    return "redis" if any(b"valkey-server" in w or b"redis-server" in w for w in words[:1]) else ""


def descendants(root: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found, todo = [], [root]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def by_role(root: int) -> dict[str, float]:
    spent: dict[str, float] = {}
    for pid in descendants(root):
        if role := role_of(pid):
            spent[role] = spent.get(role, 0.0) + cpu_s(pid)
    return spent


@asynccontextmanager
async def system(port: int) -> Any:
    """One node, one worker, a private server; ends with nothing left behind."""
    with tempfile.TemporaryDirectory() as data:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("TAILRACE_")}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cli.main", "up", "--port", str(port),
            env=environ | {"TAILRACE_DATA_DIR": data, "TAILRACE_WORKER_SLOTS": "2000",
                           "TAILRACE_LOG_LEVEL": "warning"},
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with aiohttp.ClientSession() as client, asyncio.timeout(30):
                while not await is_ready(client, port):  # noqa: ASYNC110  another process's state
                    await asyncio.sleep(0.1)
            yield process.pid
        finally:
            process.terminate()
            await process.wait()


async def is_ready(client: aiohttp.ClientSession, port: int) -> bool:
    try:
        async with client.get(f"http://127.0.0.1:{port}/readyz") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


async def read(
    client: aiohttp.ClientSession, port: int, n: int, args: Any, count: list[int]
) -> bool:
    """Read one answer, counting tokens as they come; whether its text is exact."""
    tokens = args.tokens_per_s * args.seconds
    params = {"demo": {"tokens_per_s": args.tokens_per_s, "tokens": tokens, "seed": str(n)}}
    body = {"prompt": f"bench {n}", "params": params}
    pieces: list[str] = []
    url = f"http://127.0.0.1:{port}/v1/generations"
    async with client.post(url, json=body, headers={"accept": "text/event-stream"}) as answer:
        answer.raise_for_status()
        kind = ""
        async for line in answer.content:
            if line.startswith(b"event: "):
                kind = line[7:-1].decode()
            elif line.startswith(b"data: ") and kind == "token":
                pieces.append(json.loads(line[6:])["text"])
                count[0] += 1
    asked = Request([{"role": "user", "content": f"bench {n}"}], params)
    return "".join(pieces) == expected_text(asked, str(n), {})


def bare_send_us(readers: int, frames: int = 200_000) -> float:
    """CPU of a loop that does nothing but send the frame to each of many sockets, µs a frame."""
    pairs = [socket.socketpair() for _ in range(readers)]
    for out, into in pairs:
        out.setblocking(False)
        into.setblocking(False)
    spent = 0.0
    for _ in range(frames // readers):
        before = resource.getrusage(resource.RUSAGE_SELF)
        for out, _ in pairs:
            out.send(FRAME)
        after = resource.getrusage(resource.RUSAGE_SELF)
        spent += after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        for _, into in pairs:
            into.recv(65_536)
    for pair in pairs:
        for end in pair:
            end.close()
    return 1e6 * spent / (frames // readers * readers)


async def measure(args: Any) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    count = [0]
    connector = aiohttp.TCPConnector(limit=0)
    async with system(port) as root, aiohttp.ClientSession(connector=connector) as client:
        async with asyncio.TaskGroup() as readers:
            tasks = [
                readers.create_task(read(client, port, n, args, count))
                for n in range(args.generations)
            ]
            await asyncio.sleep(SETTLE_S)
            before, tokens, at_s = by_role(root), count[0], time.monotonic()
            await asyncio.sleep(max(1.0, args.seconds - 2 * SETTLE_S))
            after, tokens, took_s = by_role(root), count[0] - tokens, time.monotonic() - at_s
    wrong = sum(not task.result() for task in tasks)
    bare_us = bare_send_us(args.generations)
    print(f"{args.generations} answers, {tokens / took_s:,.0f} tokens/s read, {wrong} texts wrong")
    print(f"{'process':10}{'CPU µs/token':>14}{'x bare send':>14}")
    for role in ("api", "worker", "redis"):
        us = 1e6 * (after[role] - before[role]) / tokens
        print(f"{role:10}{us:14.1f}{us / bare_us:14.1f}")
    print(f"{'bare send':10}{bare_us:14.1f}{1:14.1f}")
    sys.exit(bool(wrong))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--generations", type=int, default=100)
    parser.add_argument("--tokens-per-s", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=10)
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
