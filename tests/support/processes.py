"""Tailrace's roles as real processes, as an operator runs them, and every way to end them.

    async with Deployment(api=2, workers=2, lease_s=0.8) as deployment:
        deployment.workers[0].kill()

Nothing is left behind: each role has a process group of its own that dies with the tests. What a
role wrote to stderr is kept in a file and shown where a wait for it fails.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import redis.asyncio

from shared.config.settings import Settings
from shared.queue.partitions import Partitions, partitions_of
from shared.redis import keys
from tests.support.client import Client
from tests.support.fork_server import ForkServer
from tests.support.redis_masters import RedisMasters
from tests.support.redis_server import RedisServer, free_port
from tests.support.spawn import Process, kill_group, signal_group, spawn
from tests.support.wait import until

ROOT = Path(__file__).resolve().parents[2]
FORK_SERVER = ForkServer()  # one for each test process
MASTERS_MODE = os.environ.get("TEST_REDIS_MODE") == "masters"
READY_S = 30.0  # Python starts slowly on a busy machine


class RoleEnded(Exception):
    """A role that should have become ready has ended; waiting on would not help."""


def start_module(
    module: str,
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    output: Path,
    errors: Path | None = None,
    cwd: Path = ROOT,
) -> Process:
    """Start `python -m MODULE ARGV`, by a fork on Linux; `output` is appended to.

    Args:
        errors: a file of its own for stderr.
        cwd: with another one, `env` must name `ROOT` in PYTHONPATH.
    """
    if sys.platform == "linux":
        return FORK_SERVER.start(
            argv, env=env, output=output, errors=errors, cwd=cwd, module=module
        )
    command = [sys.executable, "-m", module, *argv]
    return spawn(command, env=env, output=output, errors=errors, cwd=cwd)


class Role:
    """One `tailrace <name>` process; may be started again after it ended, at the same address."""

    def __init__(
        self, name: str, settings: Mapping[str, str], directory: Path, module: str = "cli.main"
    ) -> None:
        self.name = name
        self.module = module
        self.settings = dict(settings)
        self.process: Process | None = None
        self.is_ending = False  # it was told to drain
        handle, path = tempfile.mkstemp(prefix=f"{name}-", dir=directory)
        os.close(handle)
        self.output = Path(path)
        self._seen_bytes = 0  # what earlier starts of this role have written

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings['TAILRACE_PORT']}"

    @property
    def port(self) -> int:
        return int(self.settings["TAILRACE_PORT"])

    @property
    def grpc_target(self) -> str:
        return f"127.0.0.1:{self.settings['TAILRACE_GRPC_PORT']}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def ready_name(self) -> str:
        """What the last ready line says after the colon: a worker's id."""
        said = self.output.read_bytes()[self._seen_bytes :].decode(errors="replace")
        line = next(line for line in said.splitlines() if line.startswith(self._ready_line))
        return line.rpartition(": ")[2]

    @property
    def _ready_line(self) -> str:
        return f"tailrace {self.name} ready"

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> Role:
        assert not self.is_running, f"{self.name} is already running"
        self._seen_bytes = self.output.stat().st_size
        self.is_ending = False
        env = _environment(self.settings)
        self.process = start_module(self.module, [self.name], env=env, output=self.output)
        return self

    async def gone(self) -> None:
        """Return once the process has ended."""
        await until(lambda: not self.is_running, READY_S, f"the end of {self.name}")

    async def ready(self, within_s: float = READY_S) -> Role:
        """Return once the role has said that it is ready.

        Raises:
            AssertionError: it ended, or said nothing in time; the message has its stderr.
        """
        try:
            await until(self._said_ready, within_s, f"{self.name} ready")
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{self.stderr()}") from None
        return self

    async def ended(self, deadline_s: float) -> int:
        """Return the exit code once the process has ended by itself."""
        assert self.process is not None
        process = self.process
        try:
            await until(lambda: process.poll() is not None, deadline_s, f"end of {self.name}")
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{self.stderr()}") from None
        assert process.returncode is not None
        return process.returncode

    def kill(self) -> None:
        """SIGKILL, and reap."""
        if self.process is not None:
            kill_group(self.process)

    def terminate(self) -> None:
        """SIGTERM: drain."""
        self.is_ending = True
        self._signal(signal.SIGTERM)

    def freeze(self) -> None:
        """SIGSTOP: the process is there, holds its sockets, and does nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def stderr(self) -> str:
        """The last lines of this role, for failure messages."""
        lines = self.output.read_text(errors="replace").splitlines()
        return f"--- {self.name} ---\n" + "\n".join(lines[-40:])

    def _signal(self, number: int) -> None:
        assert self.process is not None
        signal_group(self.process, number)

    def _said_ready(self) -> bool:
        assert self.process is not None
        said = self.output.read_bytes()[self._seen_bytes :].decode(errors="replace")
        if self._ready_line in said:
            return True
        if self.process.poll() is not None:
            raise RoleEnded(f"{self.name} ended with {self.process.returncode}:\n{said}")
        return False


class Deployment:
    """A Redis, API nodes, workers and the jobs role, with a short lease.

    Args:
        settings: further TAILRACE_ variables for every role, without the prefix in lower case:
            `{"heartbeat_s": "0.5"}`.
        redis_url: what the roles are given, when a proxy stands before the server.
        models: the text of a models file.
        moves_slots: with TEST_REDIS_MODE=masters, slots move from master to master all the time.
        is_waiting_for_workers: False where there are none: then no node will be ready.
        grpc: the nodes have a port for gRPC, too.
        server: a server of the caller's, which the caller closes; else one with AOF everysec, or
            three masters with TEST_REDIS_MODE=masters.
    """

    def __init__(
        self,
        *,
        api: int = 2,
        workers: int = 2,
        jobs: int = 0,
        lease_s: float = 0.8,
        settings: Mapping[str, str] | None = None,
        server: RedisServer | RedisMasters | None = None,
        redis_url: str = "",
        models: str = "",
        is_waiting_for_workers: bool = True,
        moves_slots: bool = False,
        grpc: bool = False,
    ) -> None:
        self._owned_server = None if server else _new_server(moves_slots)
        self.server: Any = server or self._owned_server  # the tests that break it say which one
        self.lease_s = lease_s
        self._is_waiting = is_waiting_for_workers
        self.directory = Path(tempfile.mkdtemp(prefix="trc-"))
        self._redis_url = redis_url
        self._urls: dict[str, str] = {}  # of Redis, when its server has started
        self._settings = {
            "lease_s": str(lease_s),
            "heartbeat_s": "1",
            "drain_s": "3",
            "data_dir": str(self.directory),
            **(settings or {}),
        }
        if models:
            path = self.directory / "models.toml"
            path.write_text(models)
            self._settings["models"] = str(path)
        names = ("port", "grpc_port") if grpc else ("port",)
        self.api = [
            self._role("api", **{name: str(free_port()) for name in names}) for _ in range(api)
        ]
        self.workers = [self._role("worker") for _ in range(workers)]
        self.jobs = [self._role("jobs") for _ in range(jobs)]
        self.urls_seen: list[str] = []

    @property
    def roles(self) -> list[Role]:
        return [*self.api, *self.workers, *self.jobs]

    @property
    def urls(self) -> list[str]:
        """Where clients find the nodes; `urls_seen` sends them through proxies."""
        return self.urls_seen or [role.url for role in self.api]

    async def __aenter__(self) -> Deployment:
        try:
            if isinstance(self._owned_server, RedisMasters):
                await self._owned_server.open()
            elif self._owned_server is not None:
                self._owned_server.start()
            self._name_redis()
            for role in self.roles:
                role.start()
            await self.ready()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def _name_redis(self) -> None:
        """Tell the roles where Redis is: the ports of a cluster are known when it has started."""
        found = {"TAILRACE_REDIS_URL": self._redis_url or self.server.url}
        if isinstance(self.server, RedisMasters):
            found["TAILRACE_JOBS_REDIS_URL"] = self.server.jobs_url
        self._urls = found
        for role in self.roles:
            role.settings = {**found, **role.settings}

    async def ready(self, roles: Sequence[Role] = ()) -> None:
        """Return once all roles are ready, and the nodes answer /readyz with 200."""
        for role in roles or self.roles:
            await role.ready()
        if not self._is_waiting:
            return
        async with Client(self.urls, deadline_s=READY_S) as client:
            for role in self.api:
                if role.is_running:
                    try:
                        await client.readyz(role.url)
                    except AssertionError as exc:
                        raise AssertionError(f"{exc}\n{self.report()}") from None

    async def heal(self) -> None:
        """Start again what is not running, thaw what is frozen, and wait for all of it."""
        if self.server.process is None:
            self.server.start()
        started = []
        for role in self.roles:
            if role.is_running:
                role.thaw()
            if role.is_ending:  # its drain may last a moment longer than the test that began it
                await role.gone()
            if not role.is_running:
                started.append(role.start())
        await self.ready(started or self.roles)

    def add_worker(self, module: str = "cli.main", **settings: str) -> Role:
        """Start one more worker, of another program if asked; the caller waits for `ready`."""
        self.workers.append(self._role("worker", **settings))
        self.workers[-1].module = module
        return self.workers[-1].start()

    async def holder(self, generation_id: str) -> Role:
        """Return the worker that holds a generation now; wait at most 10 s for one.

        A worker that was killed is named until another one has taken the generation over.
        """
        async with self.redis() as client:

            async def running() -> Role | None:
                name = await client.hget(keys.meta(generation_id), "worker") or b""
                named = (role for role in self.workers if role.ready_name == name.decode())
                return next(named, None)

            holder = await until(running, 10, f"a holder of {generation_id}")
        assert holder is not None
        return holder

    def redis(self) -> redis.asyncio.Redis:
        """A client of the server itself, past any proxy; the caller closes it."""
        if isinstance(self.server, RedisMasters):
            return self.server.redis()
        client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(self.server.url, protocol=2)
        return client

    @property
    def partitions(self) -> Partitions:
        """The partitions of the queue."""
        return partitions_of(Settings(redis_url=self._urls["TAILRACE_REDIS_URL"]))

    def jobs_redis(self) -> redis.asyncio.Redis:
        """A client of arq's database; the caller closes it."""
        if isinstance(self.server, RedisMasters):
            return redis.asyncio.Redis.from_url(self.server.jobs_url, protocol=2)
        client = redis.asyncio.Redis.from_url(self.server.url, protocol=2)
        client.connection_pool.connection_kwargs["db"] = 1  # the number in the URL would win
        return client

    def report(self) -> str:
        """The ends of all roles' stderr."""
        return "\n".join(role.stderr() for role in self.roles)

    def close(self) -> None:
        """Kill everything and remove its files."""
        for role in self.roles:
            role.kill()
        if self._owned_server is not None:
            self._owned_server.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _role(self, name: str, **settings: str) -> Role:
        merged = {**self._settings, **settings}
        variables = {f"TAILRACE_{key.upper()}": value for key, value in merged.items()}
        return Role(name, {**self._urls, **variables}, self.directory)


def _new_server(moves_slots: bool) -> RedisServer | RedisMasters:
    return (
        RedisMasters(moves_slots=moves_slots)
        if MASTERS_MODE
        else RedisServer(aof="everysec", tcp=True)
    )


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment without its settings, and without asyncio's slow debug mode."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("TAILRACE_") and name != "PYTHONASYNCIODEBUG"
    }
    return {**kept, "PYTHONUNBUFFERED": "1", **settings}


async def run_role(
    name: str,
    settings: Mapping[str, str],
    *,
    deadline_s: float = READY_S,
    imports_anew: bool = False,
) -> tuple[int, str]:
    """Run a role that should end by itself, for example one that refuses to start.

    Args:
        imports_anew: in a new interpreter; a forked role has imported all packages.

    Returns: its exit code and what it wrote to stdout and stderr.
    """
    with tempfile.TemporaryDirectory(prefix="trr-") as directory:
        role = Role(name, settings, Path(directory))
        if imports_anew:
            argv = [sys.executable, "-m", role.module, name]
            role.process = spawn(argv, env=_environment(settings), output=role.output, cwd=ROOT)
        else:
            role.start()
        try:
            code = await role.ended(deadline_s)
        finally:
            role.kill()
        return code, role.output.read_text(errors="replace")
