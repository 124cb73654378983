"""Real sentinels over a real master and its replicas, as killable as everything else.

    async with SentinelSet(replicas=1) as sentinels:
        sentinels.servers[0].kill()
        await sentinels.switched(to=sentinels.servers[1])

The program is the one of tests/support/redis_server.py: Redis and Valkey have a sentinel mode. The
periods of the sentinels are a tenth of the usual ones (SENTINEL DEBUG), so that a failover takes
about a second. TILT mode begins late: on a loaded machine it would stop the sentinels for 30 s.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import redis

from tests.support.redis_server import RedisServer, find_binary, free_port
from tests.support.spawn import kill_group, signal_group, spawn
from tests.support.wait import until

SERVICE = "mine"
DOWN_AFTER_MS = 1_000
READY_S = 30.0
PERIODS = {
    "info-period": 400,
    "ping-period": 300,
    "ask-period": 100,
    "publish-period": 500,
    "tilt-trigger": 30_000,
    "slave-reconf-timeout": 1_000,
    "min-link-reconnect-period": 100,
    "election-timeout": 1_000,
}


class SentinelServer:
    """One sentinel in a directory of its own.

    Args:
        lines: further lines of its configuration.
    """

    def __init__(
        self, master: RedisServer, *, quorum: int = 2, lines: tuple[str, ...] = ()
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="trs-"))
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        settings = (
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self.directory}",
            f"sentinel monitor {SERVICE} 127.0.0.1 {master.port} {quorum}",
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {SERVICE} 3000",
            *lines,
        )
        (self.directory / "sentinel.conf").write_text("\n".join(settings) + "\n")

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=2, protocol=2, decode_responses=True)

    def start(self) -> None:
        argv = [find_binary(), str(self.directory / "sentinel.conf"), "--sentinel"]
        env = {"PATH": os.environ.get("PATH", "")}
        self.process = spawn(argv, env=env, output=self.directory / "log")

    def freeze(self) -> None:
        assert self.process is not None
        signal_group(self.process, 19)

    def kill(self) -> None:
        if self.process is not None:
            kill_group(self.process)
            self.process = None

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def view(self) -> dict[str, str]:
        """What the sentinel says about the service; empty: it does not answer."""
        try:
            with self.client() as client:
                found = client.execute_command("SENTINEL", "MASTER", SERVICE)
                return dict(zip(found[::2], found[1::2], strict=True))
        except redis.RedisError:
            return {}

    def log_tail(self) -> str:
        path = self.directory / "log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-25:])


class SentinelSet:
    """A master, its replicas and three sentinels."""

    def __init__(self, *, replicas: int = 1, sentinels: int = 3, quorum: int = 2) -> None:
        master = RedisServer(tcp=True)
        self.servers = [master, *(RedisServer(replica_of=master) for _ in range(replicas))]
        self.sentinels = [SentinelServer(master, quorum=quorum) for _ in range(sentinels)]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}/0"

    async def __aenter__(self) -> SentinelSet:
        try:
            for server in self.servers:
                server.start()
            for server in self.servers[1:]:
                server.wait_replicated()
            for sentinel in self.sentinels:
                sentinel.start()
            await self.settled()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for part in [*self.sentinels, *self.servers]:
            part.close()

    async def settled(self) -> None:
        """Return once every sentinel knows the others and all replicas, and sees nothing down."""
        await until(self._set_periods, READY_S, "sentinels that answer")

        async def is_settled() -> bool:
            views = [sentinel.view() for sentinel in self.sentinels]
            return all(
                view
                and view["num-other-sentinels"] == str(len(self.sentinels) - 1)
                and view["num-slaves"] == str(len(self.servers) - 1)
                and view["flags"] == "master"
                and view["port"] == views[0]["port"]
                for view in views
            )

        try:
            await until(is_settled, READY_S, "sentinels that know one another")
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{self.report()}") from None

    def _set_periods(self) -> bool:
        words = [str(word) for pair in PERIODS.items() for word in pair]
        try:
            for sentinel in self.sentinels:
                with sentinel.client() as client:
                    client.execute_command("SENTINEL", "DEBUG", *words)
        except redis.ConnectionError:
            return False
        return True

    def master(self) -> RedisServer | None:
        """The server that most sentinels name; None: they differ or do not answer."""
        ports = [view["port"] for sentinel in self.sentinels if (view := sentinel.view())]
        for server in self.servers:
            if ports.count(str(server.port)) * 2 > len(self.sentinels):
                return server
        return None

    async def switched(self, to: RedisServer, deadline_s: float = READY_S) -> None:
        """Return once most sentinels name `to` as the master."""

        async def has_switched() -> bool:
            return self.master() is to

        try:
            await until(has_switched, deadline_s, "the switch of the sentinels")
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{self.report()}") from None

    async def failover(self) -> None:
        """Have the first sentinel promote a replica although the master lives; return then.

        On a busy machine the sentinel may refuse, or give up, because what it has last heard of the
        replica is too old.
        """
        before = self.sentinels[0].view()["port"]

        async def is_over() -> bool:
            view = self.sentinels[0].view()
            if view.get("port", before) != before:
                return True
            if "failover_in_progress" not in view.get("flags", ""):
                with self.sentinels[0].client() as client, contextlib.suppress(redis.RedisError):
                    client.execute_command("SENTINEL", "FAILOVER", SERVICE)
            return False

        try:
            await until(is_over, READY_S, "a planned failover")
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{self.report()}") from None

    def report(self) -> str:
        return "\n".join(f"--- sentinel ---\n{part.log_tail()}" for part in self.sentinels)
