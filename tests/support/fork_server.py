"""Starts roles by fork from a process that has imported them all.

`python -m cli.main api` takes 0.6 s of CPU time to import its modules, and the tests start hundreds
of roles. A forked role differs from it in nothing but that: it has its own environment, session,
file descriptors and signals, and calls the same `cli.main.main`. Roles with a fault, such as
tests/support/faulty_worker.py, run as `__main__`, as after `python -m`. Linux only, elsewhere roles
are spawned. tests/support/local_up.py and tests/integration/test_nodes.py start the commands as an
operator does.

    test process  -- {"module", "argv", "env", "cwd", "input", "output", "errors"} -->  server
                  <-- {"pid"} ---------------------------------------------------------
                  <-- {"pid", "returncode"}, when the role has ended ------------------

Each message is one packet of JSON. The server ends when the test process does, and its roles with
it. When the tests run in several processes, the first of them starts the server, and the server
forks one like itself for each of the others:

    test process  -- {}, with a socket -->  server
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tests.support.spawn import die_with_parent

PACKET_BYTES = 1 << 17
ANSWER_S = 120.0  # the imports of all roles take a second, on a slow and busy machine a minute
POLL_S = 0.01
MAIN_MODULE = "cli.main"
# What the roles import when they start or with their first request, and what a command imports.
MODULES = (
    "api.server",
    "workers.main",
    "jobs.role",
    MAIN_MODULE,
    "obstore.store",
    "workers.backends.demo.backend",
    "cli.client.batch",  # of tests/support/pty_command.py
    "cli.client.terminal",
)


class ForkedProcess:
    """A role, with the part of `subprocess.Popen` that the tests use."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._server = server

    def poll(self) -> int | None:
        self._server.collect()
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Return the exit code; minus the signal's number after a signal.

        Raises:
            subprocess.TimeoutExpired: the process still runs after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise subprocess.TimeoutExpired(f"role {self.pid}", timeout)
            self._server.collect(left_s)
        assert self.returncode is not None
        return self.returncode


class ForkServer:
    """The test process's side: starts the server with the first role."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._running: dict[int, ForkedProcess] = {}
        self._started: list[int] = []

    def open(self, cwd: Path) -> None:
        """Start the server; it imports while the caller goes on."""
        ours, theirs = _socket_pair()
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("TAILRACE_") and name != "PYTHONASYNCIODEBUG"
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fork_server", str(theirs.fileno())],
            env={**environment, "PYTHONUNBUFFERED": "1"},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        theirs.close()
        self._socket = ours
        atexit.register(self._close, process, os.getpid())

    def divide(self) -> None:
        """Get a server of its own for this process, which was forked after `open`."""
        assert self._socket is not None
        ours, theirs = _socket_pair()
        socket.send_fds(self._socket, [b"{}"], [theirs.fileno()])
        theirs.close()
        self._socket.close()
        self._socket = ours

    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        output: Path,
        cwd: Path,
        input: Path = Path(os.devnull),
        module: str = MAIN_MODULE,
        errors: Path | None = None,
    ) -> ForkedProcess:
        """Fork a role, as `python -m MODULE ARGV`; its output is appended to a file.

        Args:
            input: with `output`, it may be one terminal.
            errors: a file of its own for stderr.
        """
        if self._socket is None:
            self.open(cwd)
        assert self._socket is not None
        request = {"module": module, "argv": list(argv), "env": dict(env), "cwd": str(cwd)}
        request |= {"input": str(input), "output": str(output), "errors": str(errors or output)}
        self._socket.send(json.dumps(request).encode())
        deadline = time.monotonic() + ANSWER_S
        while not self._started:
            left_s = deadline - time.monotonic()
            assert left_s > 0, "the fork server does not answer"
            self.collect(left_s)
        process = ForkedProcess(self, self._started.pop())
        self._running[process.pid] = process
        return process

    def collect(self, timeout_s: float = 0.0) -> None:
        """Take the server's messages; wait up to `timeout_s` seconds for the first."""
        assert self._socket is not None
        while select.select([self._socket], [], [], timeout_s)[0]:
            packet = self._socket.recv(PACKET_BYTES)
            assert packet, "the fork server has ended"
            message = json.loads(packet)
            if "returncode" in message:
                self._running.pop(message["pid"]).returncode = message["returncode"]
            else:
                self._started.append(message["pid"])
            timeout_s = 0.0

    def _close(self, process: subprocess.Popen[bytes], owner: int) -> None:
        assert self._socket is not None
        self._socket.close()
        if os.getpid() == owner:
            process.kill()
            process.wait()


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def serve(requests: socket.socket) -> dict[str, Any]:
    """Fork a role for each request, and report each end. Returns in a forked role: its request."""
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    while True:
        ready, _, _ = select.select([requests, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _report_ends(requests)
        if requests not in ready:
            continue
        packet, sockets, _, _ = socket.recv_fds(requests, PACKET_BYTES, 1)
        if not packet:
            sys.exit()
        request: dict[str, Any] = json.loads(packet)
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for fd in (woken, waker):
                os.close(fd)
            requests.close()
            if sockets:
                die_with_parent()
                return serve(socket.socket(fileno=sockets[0]))
            _become(request)
            return request
        if sockets:
            os.close(sockets[0])
        else:
            requests.send(json.dumps({"pid": pid}).encode())


def _report_ends(requests: socket.socket) -> None:
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            pid, status = ended
            end = {"pid": pid, "returncode": os.waitstatus_to_exitcode(status)}
            requests.send(json.dumps(end).encode())


def _become(request: dict[str, Any]) -> None:
    """Give this forked process what `spawn` gives to a program."""
    os.setsid()
    die_with_parent()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    with (
        open(request["input"], "rb", opener=_open) as source,
        open(request["output"], "ab", opener=_open) as sink,
        open(request["errors"], "ab", opener=_open) as errors,
    ):
        os.dup2(source.fileno(), 0)
        os.dup2(sink.fileno(), 1)
        os.dup2(errors.fileno(), 2)


def _open(path: str, flags: int) -> int:
    """As `open` does, but a terminal does not become the controlling one: its end is no signal."""
    return os.open(path, flags | os.O_NOCTTY, 0o666)


def main() -> NoReturn:
    requests = socket.socket(fileno=int(sys.argv[1]))
    for name in MODULES:
        importlib.import_module(name)
    tasks = os.listdir("/proc/self/task")
    assert len(tasks) == 1, "a fork would not copy the threads that an import has started"
    # A role collects and freezes what it has imported (shared/config/gc_tuning.py). Frozen here
    # already, the objects stay in memory that all roles share: half of the CPU time of a start.
    gc.collect()
    gc.freeze()
    try:
        request = serve(requests)
    except ConnectionError:  # the test process has ended, and had not read all ends of roles
        sys.exit()
    sys.argv = ["tailrace", *request["argv"]]
    if request["module"] == MAIN_MODULE:  # run again as `__main__`, it would import for 10 ms
        sys.exit(sys.modules[MAIN_MODULE].main(request["argv"]))
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    main()
