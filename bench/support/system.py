"""The product under measurement: Redis, one worker and API nodes, started as an operator does.

Redis keeps an append-only file, as the private server of `tailrace up` does. Settings are the
defaults but for what a run of many short measurements needs, which `SETTINGS` says.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from bench.support import cpu
from bench.support.answer import MODEL, Answer
from shared.redis import keys
from tests.support.processes import Role
from tests.support.redis_server import RedisServer, free_port
from tests.support.wait import until

MODELS = """
[models.{name}]
backend = "openai"
base_url = "{url}"
on_takeover = "restart"
"""
SETTINGS = {
    "worker_slots": "2000",
    "retention_s": "60",
    "log_level": "warning",
    "heartbeat_s": "60",  # readers that only read do not answer a WebSocket's pings
}


class System:
    """One Redis with a worker; nodes come and go. Use `async with`."""

    def __init__(self, upstream_url: str) -> None:
        self.server = RedisServer(aof="everysec", tcp=True)
        self.directory = Path(tempfile.mkdtemp(prefix="trb-"))
        models = self.directory / "models.toml"
        models.write_text(MODELS.format(name=MODEL, url=upstream_url))
        self._settings = {
            **SETTINGS,
            "owner_bytes_max": str(2**39),  # one owner asks for everything here
            "redis_url": self.server.url,
            "models": str(models),
            "data_dir": str(self.directory),
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

    @asynccontextmanager
    async def node(self, **settings: str) -> AsyncIterator[Role]:
        """A fresh API node, with settings of its own."""
        role = self._role("api", port=str(free_port()), **settings)
        try:
            yield await role.start().ready()
        finally:
            role.kill()
            self._roles.remove(role)

    def pin(self, measured: Iterable[int]) -> None:
        """Give what is measured a core to itself, and the rest of the system the others."""
        chosen = {*measured}
        pids = {self.redis_pid, *(role.pid for role in self._roles if role.is_running)}
        cpu.pin(chosen, cpu.MEASURED)
        cpu.pin(pids - chosen, cpu.OTHERS)

    def unpin(self) -> None:
        pids = {self.redis_pid, *(role.pid for role in self._roles if role.is_running)}
        cpu.pin(pids, cpu.CORES)

    async def start(self, node: Role, answers: Sequence[Answer]) -> list[str]:
        """Have answers generated; return the generations' ids."""
        async with aiohttp.ClientSession() as http:
            return [await self._start(http, node, answer) for answer in answers]

    async def _start(self, http: aiohttp.ClientSession, node: Role, answer: Answer) -> str:
        async with http.post(f"{node.url}/v1/generations", json=answer.body()) as reply:
            reply.raise_for_status()
            accepted: dict[str, Any] = await reply.json()
            return str(accepted["id"])

    def newest(self, count: int) -> list[str]:
        """The ids of the last generations that were asked for, newest first."""
        found: Any = self.redis.zrevrange(keys.owner("anonymous"), 0, count - 1)
        return [generation_id.decode() for generation_id in found]

    async def cancel_all(self, node: Role) -> None:
        """Cancel whatever runs."""
        async with aiohttp.ClientSession() as http:
            running: Any = self.redis.zrange(keys.RUNNING, 0, -1)
            for generation_id in running:
                url = f"{node.url}/v1/generations/{generation_id.decode()}/cancel"
                async with http.post(url) as reply:
                    reply.raise_for_status()

    async def all_ended(self, deadline_s: float) -> None:
        """Return once nothing runs and nothing waits."""
        await until(self._is_idle, deadline_s, "the end of all generations")

    def _is_idle(self) -> bool:
        names = (keys.RUNNING, keys.waiting("interactive"))
        return not any(self.redis.zcard(name) for name in names)

    def _role(self, name: str, **settings: str) -> Role:
        merged = {**self._settings, **settings}
        variables = {f"TAILRACE_{key.upper()}": value for key, value in merged.items()}
        role = Role(name, variables, self.directory)
        self._roles.append(role)
        return role

    def _close(self) -> None:
        for role in self._roles:
            role.kill()
        self.server.close()
        shutil.rmtree(self.directory, ignore_errors=True)
