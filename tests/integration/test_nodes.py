"""`tailrace api --processes N` as real processes: one port, several nodes, nobody left behind."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.redis_server import RedisServer, free_port
from tests.support.spawn import kill_group, spawn
from tests.support.wait import until_sync

ROOT = Path(__file__).resolve().parents[2]
SOON_S = 20.0


class Nodes:
    """One `tailrace api --processes N`."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self.output = folder / "output"
        self.port = free_port()
        self.environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "TAILRACE_REDIS_URL": redis_url,
            "TAILRACE_DATA_DIR": str(folder / "data"),
            "TAILRACE_PORT": str(self.port),
            "TAILRACE_DRAIN_S": "1",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, count: int) -> Nodes:
        argv = [sys.executable, "-P", "-m", "cli.main", "api", "--processes", str(count)]
        self.process = spawn(argv, env=self.environ, output=self.output, cwd=self.output.parent)
        return self

    def ready(self, count: int) -> Nodes:
        line = f"tailrace api ready on http://127.0.0.1:{self.port}, {count} processes"
        until_sync(lambda: line in self.output.read_text(), SOON_S, "readiness")
        return self

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(SOON_S)

    @property
    def pids(self) -> set[int]:
        """The nodes: the supervisor's children."""
        assert self.process is not None
        pid = self.process.pid
        return {int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}

    @property
    def listeners(self) -> set[int]:
        """Which of them have a listening socket of their own on the port."""
        wanted = f":{self.port:04X}"
        rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        inodes = {row[9] for row in rows if row[1].endswith(wanted) and row[3] == "0A"}
        return {pid for pid in self.pids if inodes & _sockets(pid)}

    def ask(self) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SOON_S)
        try:
            connection.request("GET", "/livez")
            return connection.getresponse().status
        finally:
            connection.close()


def _sockets(pid: int) -> set[str]:
    links = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))
        except OSError:  # closed meanwhile
            continue
    return links


@pytest.fixture
def nodes(tmp_path: Path, redis_server: RedisServer) -> Iterator[Nodes]:
    nodes = Nodes(tmp_path, redis_server.url)
    yield nodes
    if nodes.process is not None:
        kill_group(nodes.process)


def test_each_node_listens_on_its_own_socket_and_a_dead_node_is_replaced(nodes: Nodes) -> None:
    nodes.start(3).ready(3)
    before = nodes.pids
    assert len(before) == 3 and nodes.listeners == before
    assert {nodes.ask() for _ in range(20)} == {200}

    lost = before.pop()
    os.kill(lost, signal.SIGKILL)
    until_sync(lambda: len(nodes.listeners - {lost}) == 3, SOON_S, "another node")
    assert nodes.listeners > before
    assert {nodes.ask() for _ in range(20)} == {200}

    assert nodes.process is not None
    nodes.process.send_signal(signal.SIGTERM)
    assert nodes.wait() == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", nodes.port), timeout=SOON_S)


def test_a_port_that_is_taken_is_refused_in_one_line(nodes: Nodes) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # even by one that would share
        other.bind(("127.0.0.1", nodes.port))
        other.listen()
        nodes.start(2)
        assert nodes.wait() == 2
    (line,) = nodes.output.read_text().splitlines()
    assert line.startswith(f"tailrace api: port {nodes.port} on 127.0.0.1 is taken")


@pytest.mark.parametrize("count", [0, 65])
def test_a_wrong_number_is_refused_in_one_line(nodes: Nodes, count: int) -> None:
    nodes.start(count)
    assert nodes.wait() == 2
    assert "--processes must be from 1 to 64" in nodes.output.read_text()
