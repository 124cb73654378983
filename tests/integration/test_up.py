"""`tailrace up` as a real process with a real private server; the roles are stand-ins.

Every test ends with nothing left: no process, no socket, no temporary file.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from cli.up.private_server import running_url
from cli.up.redis_guard import send_inline_command
from shared.redis.cluster.slots import SLOTS, key_slot
from tests.support.processes import ROOT, start_module
from tests.support.redis_server import find_binary, free_port, free_ports
from tests.support.spawn import Process, kill_group, spawn
from tests.support.wait import DeadlineMissed, until_sync

STAND_IN = ROOT / "tests" / "support" / "fake_roles.py"
SOON_S = 30.0  # Python starts slowly on a busy machine


class Up:
    """One `tailrace up` in a directory of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes = folder / "notes"
        self.temporary = folder / "tmp"
        self.data = folder / "data"
        self.output = folder / "output"
        self.port = free_ports(2)  # two nodes take consecutive ones
        self.process: Process | None = None
        self.seen: set[int] = set()
        for path in (self.notes, self.temporary, folder / "bin"):
            path.mkdir(exist_ok=True)
        (folder / "bin" / "redis-server").symlink_to(find_binary())

    def start(
        self,
        *flags: str,
        worker: str = "",
        kill_margin_s: str = "",
        output: Path | None = None,
        port: int = 0,
        **settings: str,
    ) -> Up:
        environ = {
            "PATH": f"{self.folder / 'bin'}:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(self.temporary),
            "STAND_IN": str(self.notes),
            "STAND_IN_WORKER": worker,
            "STAND_IN_KILL_MARGIN_S": kill_margin_s,
            "TAILRACE_DATA_DIR": str(self.data),
            "TAILRACE_PORT": str(port or self.port),
            "TAILRACE_DRAIN_S": "0.2",
            "TAILRACE_MODELS_DISCOVER": "off",  # this machine may have model servers
            **{f"TAILRACE_{name.upper()}": value for name, value in settings.items()},
        }
        self.process = start_module(
            "tests.support.fake_roles",
            ["up", *flags],
            env=environ,
            output=output or self.output,
            cwd=self.folder,
        )
        return self

    def ready(self) -> Up:
        def said() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, f"up has ended:\n{self.text()}"
            return "Tailrace is ready" in self.text()

        try:
            until_sync(said, SOON_S, "readiness")
        except DeadlineMissed as exc:
            raise AssertionError(f"{exc}\n{self.text()}") from None
        self.seen |= {self.pid, *self.pids("api"), *self.pids("worker"), *self.pids("jobs")}
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def interrupt(self) -> None:
        """What a terminal does on Ctrl-C: SIGINT to the whole foreground group."""
        os.killpg(self.pid, signal.SIGINT)

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(SOON_S)

    def text(self) -> str:
        return self.output.read_text() if self.output.exists() else ""

    def pids(self, role: str) -> list[int]:
        return [int(path.suffix[1:]) for path in self.notes.glob(f"{role}.*")]

    @property
    def socket_path(self) -> str:
        (found,) = self.temporary.glob("tailrace-*/redis.sock")
        return str(found)

    def redis_pid(self) -> int:
        answer = send_inline_command(self.socket_path, "INFO server")
        return int(answer.split("process_id:")[1].split("\r")[0])

    def nothing_is_left(self) -> bool:
        return not any(is_alive(pid) for pid in self.seen) and not list(self.temporary.iterdir())


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def up() -> Iterator[Up]:
    folder = Path(tempfile.mkdtemp(prefix="tru-"))
    up = Up(folder)
    yield up
    if up.process is not None:
        kill_group(up.process)
    until_sync(up.nothing_is_left, SOON_S, "the end of every child")
    shutil.rmtree(folder, ignore_errors=True)


def test_up_runs_every_role_and_ctrl_c_leaves_no_process(up: Up) -> None:
    up.start("--api", "2", "--workers", "2").ready()
    up.seen.add(up.redis_pid())
    counts = [len(up.pids(role)) for role in ("api", "worker", "jobs")]
    up.interrupt()

    assert counts == [2, 2, 1]
    assert f"http://127.0.0.1:{up.port}/" in up.text()
    assert f"http://127.0.0.1:{up.port + 1}/" in up.text()
    assert up.wait() == 0
    assert up.nothing_is_left()


def test_ctrl_c_drains_the_roles_and_stops_redis_last(up: Up) -> None:
    up.start(worker="slow").ready()
    (worker,) = up.pids("worker")
    up.interrupt()
    until_sync(lambda: not up.pids("api"), SOON_S, "the drained api")

    assert is_alive(worker)
    assert send_inline_command(up.socket_path, "PING") == "+PONG\r\n"

    (up.notes / "drain").touch()

    assert up.wait() == 0
    (up.notes / "drain").unlink()


def test_a_second_ctrl_c_kills_the_draining_roles(up: Up) -> None:
    up.start(worker="stubborn").ready()
    up.interrupt()
    until_sync(lambda: not up.pids("api"), SOON_S, "the drained api")
    up.interrupt()

    assert up.wait() == 1
    assert "worker 1 had to be killed" in up.text()


def test_a_role_that_outlasts_its_drain_is_killed(up: Up) -> None:
    up.start(worker="stubborn", kill_margin_s="0.5").ready()
    up.interrupt()

    assert up.wait() == 1
    assert up.nothing_is_left()


def test_a_killed_worker_is_started_again(up: Up) -> None:
    up.start().ready()
    (first,) = up.pids("worker")
    os.kill(first, signal.SIGKILL)
    until_sync(lambda: set(up.pids("worker")) - {first}, SOON_S, "another worker")
    up.seen |= set(up.pids("worker"))

    assert f"worker 1 (pid {first}) was killed by SIGKILL; again in" in up.text()


def masters_of(up: Up) -> list[redis.Redis]:
    folder = up.data / "cluster"
    password = (folder / "password").read_text()
    ports = [port for port, _ in json.loads((folder / "ports.json").read_text())]
    return [redis.Redis(port=port, password=password, socket_timeout=5) for port in ports]


def is_well(master: redis.Redis) -> bool:
    try:
        return bool(master.cluster("info")["cluster_state"] == "ok")
    except redis.RedisError:
        return False


def test_up_with_a_cluster_starts_three_masters_that_keep_their_data(up: Up) -> None:
    up.start("--cluster").ready()
    masters = masters_of(up)
    for master in masters:
        until_sync(lambda one=master: is_well(one), SOON_S, "a master that is well")
        assert master.cluster("info")["cluster_known_nodes"] == "3"
        up.seen.add(master.info("server")["process_id"])
    for number, master in enumerate(masters):
        assert master.set(key_of(number), "1")
    assert running_url(str(up.data)).startswith("redis+cluster://127.0.0.1:")
    killed = masters[1].info("server")["process_id"]
    os.kill(killed, signal.SIGKILL)
    until_sync(lambda: is_well(masters[1]), SOON_S, "the killed master again")
    up.interrupt()
    assert up.wait() == 0
    assert up.nothing_is_left()
    assert running_url(str(up.data)) == ""

    up.start("--cluster").ready()
    for master in masters:
        until_sync(lambda one=master: is_well(one), SOON_S, "a master that is well")
        up.seen.add(master.info("server")["process_id"])
    assert [master.get(key_of(number)) for number, master in enumerate(masters)] == [b"1"] * 3
    for master in masters:
        master.close()  # a guard without a supervisor waits for the clients to leave


def key_of(number: int) -> str:
    """Return a key that the master of this number has."""
    names = (f"kept:{n}" for n in range(1_000))
    return next(name for name in names if key_slot(name.encode()) * 3 // SLOTS == number)


def test_a_cluster_beside_a_named_redis_is_refused(up: Up) -> None:
    up.start("--cluster", redis_url="redis://127.0.0.1:1/0")

    assert up.wait() == 2
    assert "unset TAILRACE_REDIS_URL" in up.text()


def test_a_killed_redis_comes_back_on_the_same_socket_with_its_data(up: Up) -> None:
    up.start().ready()
    path, before = up.socket_path, up.redis_pid()
    assert send_inline_command(path, "SET kept 1") == "+OK\r\n"
    os.kill(before, signal.SIGKILL)
    until_sync(lambda: send_inline_command(path, "PING") == "+PONG\r\n", SOON_S, "redis again")
    up.seen |= {before, up.redis_pid()}

    assert send_inline_command(path, "GET kept") == "$1\r\n1\r\n"


def test_a_removed_folder_of_the_socket_is_made_again(up: Up) -> None:
    up.start().ready()
    path, before = up.socket_path, up.redis_pid()
    assert send_inline_command(path, "SET kept 1") == "+OK\r\n"
    shutil.rmtree(Path(path).parent)
    until_sync(lambda: send_inline_command(path, "PING") == "+PONG\r\n", SOON_S, "redis again")
    up.seen |= {before, up.redis_pid()}

    assert send_inline_command(path, "GET kept") == "$1\r\n1\r\n"
    assert Path(path).parent.stat().st_mode & 0o777 == 0o700
    assert "was removed: the server starts again" in up.text()

    up.interrupt()
    assert up.wait() == 0
    assert up.nothing_is_left()


def test_the_private_server_refuses_writes_above_its_memory_bound(up: Up) -> None:
    up.start(redis_bytes_max="5000000").ready()
    up.seen.add(up.redis_pid())

    assert "\nmaxmemory:5000000\r" in send_inline_command(up.socket_path, "INFO memory")
    answers = {
        send_inline_command(up.socket_path, f"SET k{n} {'x' * 60_000}")[:4] for n in range(100)
    }
    assert answers == {"+OK\r", "-OOM"}, "it evicts nothing"

    up.interrupt()
    assert up.wait() == 0


def test_data_is_kept_from_one_run_to_the_next_in_plain_commands(up: Up) -> None:
    """Plain commands: Redis 7 and Valkey 9 read each other's; their RDB formats differ."""
    up.start().ready()
    send_inline_command(up.socket_path, "SET kept 1")
    send_inline_command(up.socket_path, "BGREWRITEAOF")
    up.interrupt()
    assert up.wait() == 0
    up.output.unlink()
    up.start().ready()

    assert send_inline_command(up.socket_path, "GET kept") == "$1\r\n1\r\n"
    bases = list((up.data / "appendonlydir").glob("*.base.*"))
    assert [path.suffix for path in bases] == [".aof"]


def test_everything_ends_when_the_supervisor_is_killed(up: Up) -> None:
    up.start("--workers", "2").ready()
    up.seen.add(up.redis_pid())
    os.kill(up.pid, signal.SIGKILL)
    up.wait()

    until_sync(up.nothing_is_left, SOON_S, "the end of every child")


def test_redis_waits_for_the_roles_when_the_supervisor_is_killed(up: Up) -> None:
    up.start(worker="slow").ready()
    path = up.socket_path
    up.seen.add(up.redis_pid())
    with socket.socket(socket.AF_UNIX) as client:  # stands for a draining worker's connection
        client.connect(path)
        os.kill(up.pid, signal.SIGKILL)
        up.wait()
        client.settimeout(1.0)
        with pytest.raises(TimeoutError):  # the server would close it
            client.recv(1)

        assert send_inline_command(path, "PING") == "+PONG\r\n"

    (up.notes / "drain").touch()
    until_sync(lambda: send_inline_command(path, "PING") == "", SOON_S, "the end of redis")


def test_a_taken_port_is_one_line_and_exit_2(up: Up) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        up.start(port=taken.getsockname()[1])

        assert up.wait() == 2
    assert up.text().count("\n") == 1
    assert "is taken" in up.text()


def test_a_second_up_on_one_data_directory_is_one_line_and_exit_2(up: Up) -> None:
    up.start().ready()
    first, second = up.process, up.folder / "second"
    up.start(output=second, port=free_port())

    assert up.wait() == 2
    assert second.read_text().count("\n") == 1
    assert "in use by another `tailrace up`" in second.read_text()
    up.process = first


def test_a_server_that_cannot_read_its_data_says_so_and_exit_2(up: Up) -> None:
    (up.data / "appendonlydir").mkdir(parents=True)
    (up.data / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")
    up.start()

    assert up.wait() == 2
    assert "the private Redis server ended by itself" in up.text()
    assert "server.log" in up.text()


def test_a_role_that_cannot_start_ends_everything_with_exit_2(up: Up) -> None:
    up.start(worker="refuses")

    assert up.wait() == 2
    assert "worker: no good" in up.text()


def test_a_named_redis_is_used_and_left_alone(up: Up) -> None:
    url = "redis://user:secret@127.0.0.1:1/0"
    environ = {"STAND_IN": str(up.notes), "PYTHONPATH": str(ROOT), "TAILRACE_REDIS_URL": url}
    environ |= {"TAILRACE_PORT": str(up.port), "PATH": os.environ["PATH"]}
    environ |= {"TAILRACE_MODELS_DISCOVER": "off"}
    argv = [sys.executable, "-P", str(STAND_IN), "up"]
    up.process = spawn(argv, env=environ, output=up.output, cwd=up.folder)
    up.ready()
    (worker,) = up.notes.glob("worker.*")

    assert worker.read_text() == url
    assert "secret" not in up.text()
    assert not up.data.exists()
    up.interrupt()
    assert up.wait() == 0
