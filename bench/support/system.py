"""Tailrace as it is measured: Redis, one worker and API nodes, started as an operator does.

Redis keeps an append-only file, as the private server of `tailrace up` does. The settings are the
defaults, except for `SETTINGS`, which many short runs need.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from bench.support import cpu
from bench.support.answer import MODEL, Answer
from bench.support.model_wires import OPENAI, WIRES
from shared.redis import keys
from tests.support.processes import Role
from tests.support.redis_server import RedisServer, free_port
from tests.support.wait import until

# The first model is the default; the others are named by their kinds.
MODEL_TABLE = """
[models.{name}]
backend = "{wire.backend}"
base_url = "{wire.scheme}://127.0.0.1:{port}{wire.base}"
on_takeover = "restart"
"""
ROUTED = ("route-a", "route-b")
ROUTES = """
[models.route-order]
route = ["route-a", "route-b"]

[models.route-prefix]
route = ["route-a", "route-b"]
policy = "prefix"

[models.route-hedge]
route = ["route-a", "route-b"]
hedge_after_s = 60
"""
NODE_READY_S = 180.0  # on a busy machine
SETTINGS = {
    "worker_slots": "2000",
    "retention_s": "60",
    "log_level": "warning",
    "heartbeat_s": "60",  # readers that only read do not answer WebSocket pings
}


class System:
    """One Redis with a worker; API nodes are started as needed. Use `async with`.

    Args:
        settings: additional ones, of all roles.
    """

    def __init__(self, upstream_url: str, **settings: str) -> None:
        self.server = RedisServer(aof="everysec", tcp=True)
        self.directory = Path(tempfile.mkdtemp(prefix="trb-"))
        models = self.directory / "models.toml"
        names = {OPENAI: MODEL, **{wire: wire.backend for wire in WIRES if wire is not OPENAI}}
        port = urlsplit(upstream_url).port
        tables = [MODEL_TABLE.format(name=n, wire=wire, port=port) for wire, n in names.items()]
        tables += [MODEL_TABLE.format(name=n, wire=OPENAI, port=port) for n in ROUTED]
        models.write_text("".join([*tables, ROUTES]))
        self._settings = {
            **SETTINGS,
            "owner_bytes_max": str(2**39),  # all generations have one owner here
            "redis_url": self.server.url,
            "models": str(models),
            "data_dir": str(self.directory),
            **settings,
        }
        self._roles: list[Role] = []
        self.worker = self._role("worker")

    async def __aenter__(self) -> System:
        try:
            self.server.start()
            await self.worker.start().ready()
            self.redis = self.server.client()
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()

    @property
    def redis_pid(self) -> int:
        assert self.server.process is not None
        return self.server.process.pid

    @property
    def redis_url(self) -> str:
        return self._settings["redis_url"]

    @property
    def redis_pids(self) -> dict[str, int]:
        """The processes of Redis, by a name that begins with `redis`."""
        return {"redis": self.redis_pid}

    @asynccontextmanager
    async def node(self, *, program: str = "cli.main", **settings: str) -> AsyncIterator[Role]:
        """Yield a fresh API node with additional settings.

        Args:
            program: the module that is run.
        """
        role = self._role("api", program, port=str(free_port()), **settings)
        try:
            yield await role.start().ready(NODE_READY_S)
        finally:
            role.kill()
            self._roles.remove(role)

    def pin(self, measured: Iterable[int]) -> None:
        """Give the measured processes their own core; the rest of the system shares the others."""
        chosen = {*measured}
        pids = {*self.redis_pids.values(), *(role.pid for role in self._roles if role.is_running)}
        cpu.pin(chosen, cpu.MEASURED)
        cpu.pin(pids - chosen, cpu.OTHERS)

    def unpin(self) -> None:
        """Let all processes of the system run on all cores again."""
        pids = {*self.redis_pids.values(), *(role.pid for role in self._roles if role.is_running)}
        cpu.pin(pids, cpu.CORES)

    async def start(self, node: Role, answers: Sequence[Answer]) -> list[str]:
        """Let answers be generated; return the ids of the generations."""
        async with aiohttp.ClientSession() as http:
            return [await self._start(http, node, answer) for answer in answers]

    async def _start(self, http: aiohttp.ClientSession, node: Role, answer: Answer) -> str:
        async with http.post(f"{node.url}/v1/generations", json=answer.body()) as reply:
            reply.raise_for_status()
            accepted: dict[str, Any] = await reply.json()
            return str(accepted["id"])

    def newest(self, count: int) -> list[str]:
        """Return the ids of the last `count` generations, newest first."""
        found: Any = self.redis.zrevrange(keys.owner("anonymous"), 0, count - 1)
        return [generation_id.decode() for generation_id in found]

    async def cancel_all(self, node: Role) -> None:
        """Cancel all running generations."""
        async with aiohttp.ClientSession() as http:
            running: Any = self.redis.zrange(keys.running(), 0, -1)
            for generation_id in running:
                url = f"{node.url}/v1/generations/{generation_id.decode()}/cancel"
                async with http.post(url) as reply:
                    reply.raise_for_status()

    async def all_ended(self, deadline_s: float) -> None:
        """Wait until no generation runs or waits."""
        await until(self._is_idle, deadline_s, "the end of all generations")

    def _is_idle(self) -> bool:
        names = (keys.running(), keys.waiting("interactive"))
        return not any(self.redis.zcard(name) for name in names)

    def _role(self, name: str, program: str = "cli.main", **settings: str) -> Role:
        merged = {**self._settings, **settings}
        variables = {f"TAILRACE_{key.upper()}": value for key, value in merged.items()}
        role = Role(name, variables, self.directory, program)
        self._roles.append(role)
        return role

    def _close(self) -> None:
        for role in self._roles:
            role.kill()
        self.server.close()
        shutil.rmtree(self.directory, ignore_errors=True)
