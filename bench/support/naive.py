"""A typical self-written app: Starlette and sse-starlette, with a blocking XREAD per reader.

It reads the same log that Tailrace's worker writes, so only the fan-out differs.

    python -m bench.support.naive --port 8000 --redis redis://…
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvicorn
from redis.asyncio import Redis
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shared.redis import keys
from tests.support.processes import ROOT
from tests.support.redis_server import free_port
from tests.support.spawn import kill_group, spawn
from tests.support.wait import until

WHO = "sse-starlette, XREAD per reader"
BLOCK_MS = 10_000


async def events(request: Request) -> Response:
    """Stream the events of one generation."""
    generation_id = request.path_params["generation_id"]
    redis, ping_s = request.app.state.redis, request.app.state.ping_s
    return EventSourceResponse(read(redis, generation_id), sep="\n", ping=ping_s)


async def read(redis: Redis, generation_id: str) -> AsyncIterator[ServerSentEvent]:
    """Yield every event of a log as it comes."""
    last: Any = "0-0"
    while True:
        found = await redis.xread({keys.log(generation_id): last}, block=BLOCK_MS)
        for _, entries in found:
            for event_id, fields in entries:
                last = event_id
                event = json.loads(fields[keys.FIELD])
                kind = event.pop("type")
                yield ServerSentEvent(json.dumps(event), id=event_id.decode(), event=kind)
                if kind == "end":
                    return


async def healthy(request: Request) -> Response:
    """Answer the check whether the app is ready."""
    return Response("ok")


def make_app(redis_url: str, ping_s: int) -> Starlette:
    """Return the app; `ping_s` is the time between two comments to each reader."""
    routes = [
        Route("/v1/generations/{generation_id}/events", events),
        Route("/readyz", healthy),
    ]
    app = Starlette(routes=routes)
    app.state.redis = Redis.from_url(redis_url, protocol=2)
    app.state.ping_s = ping_s
    return app


class Naive:
    """The app as a separate process. Use `async with`."""

    def __init__(self, redis_url: str, *, ping_s: int) -> None:
        self._redis_url = redis_url
        self._ping_s = ping_s
        self.port = free_port()

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    async def __aenter__(self) -> Naive:
        self._directory = TemporaryDirectory(prefix="trx-")
        argv = [sys.executable, "-m", "bench.support.naive"]
        argv += ["--port", str(self.port), "--redis", self._redis_url, "--ping", str(self._ping_s)]
        output = Path(self._directory.name) / "out"
        env = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"}
        self._process: subprocess.Popen[bytes] = spawn(argv, env=env, output=output, cwd=ROOT)
        self.pid = self._process.pid
        await until(lambda: b"running on" in output.read_bytes(), 30, f"naive app: {output}")
        return self

    async def __aexit__(self, *_: object) -> None:
        kill_group(self._process)
        self._directory.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--redis", required=True)
    parser.add_argument("--ping", type=int, required=True)
    args = parser.parse_args()
    app = make_app(args.redis, args.ping)
    uvicorn.run(app, port=args.port, access_log=False, backlog=2_048)


if __name__ == "__main__":
    main()
