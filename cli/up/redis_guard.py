"""The guard that runs the private Redis server: a process of its own, `python -m cli.redis_guard`.

A Redis server knows no lifeline (cli/up/lifeline.py), so the guard holds it: it ends the server
when told to (SIGTERM), and also when the supervisor has died, then only after the roles have left
or their time is over, since they still hand their work back. Guard and server stand in a session of
their own, so that a terminal's Ctrl-C reaches neither.

Invariant: the server does not outlive the guard's return. Imports little: it stays in memory.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from cli.up.privacy import UMASK
from cli.up.private_server import PrivateServer, open_private, server_argv

READY = "tailrace redis ready"
END_S = 10.0  # between SIGTERM and SIGKILL for the server
POLL_S = 0.02
LOG_NAME = "server.log"


def guard_argv(server: PrivateServer, *, leave_s: float) -> tuple[str, ...]:
    """Return the guard's command line; `leave_s` is what clients get when the supervisor died."""
    return (
        *(sys.executable, "-P", "-m", "cli.up.redis_guard"),
        *("--binary", server.binary, "--data-dir", server.data_dir),
        *("--socket", server.socket_path, "--lock-fd", str(server.lock_fd)),
        *("--bytes-max", str(server.bytes_max)),
        *("--leave-s", str(leave_s)),
    )


class Guard:
    """Runs the server until SIGTERM, the end of standard input, or the server's own end."""

    def __init__(self, server: PrivateServer, *, leave_s: float) -> None:
        self._server = server
        self._leave_s = leave_s
        self._is_ready = False

    def run(self) -> int:
        """Return 0 when asked to end, 2 when the server never answered, 1 when it died later."""
        wake = _signals_as_bytes()
        with open(Path(self._server.data_dir, LOG_NAME), "wb", opener=open_private) as log:
            process = subprocess.Popen(
                server_argv(self._server),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(self._server.lock_fd,),
                umask=UMASK,  # its append-only file has everybody's prompts
            )
        while process.poll() is None:
            if not self._is_ready and (answer := ask(self._server.socket_path, "PING")):
                if answer.startswith("+PONG"):
                    self._is_ready = True
                    _print(f"{READY}: {self._server.url}")
            readable, _, _ = select.select([wake, 0], [], [], None if self._is_ready else POLL_S)
            if 0 in readable and not os.read(0, 4096):
                self._let_clients_leave(process)
                return self._end(process)
            if wake in readable and signal.SIGTERM in os.read(wake, 64):
                return self._end(process)
        _print(f"the private Redis server ended by itself: {self._last_words()}")
        return 1 if self._is_ready else 2

    def _let_clients_leave(self, process: subprocess.Popen[bytes]) -> None:
        """The supervisor is dead and its roles are ending: wait for them, at most `leave_s`."""
        deadline = time.monotonic() + self._leave_s
        while time.monotonic() < deadline and process.poll() is None:
            answer = ask(self._server.socket_path, "INFO clients")
            if "\nconnected_clients:1\r" in answer:  # the asker itself
                return
            time.sleep(5 * POLL_S)

    def _end(self, process: subprocess.Popen[bytes]) -> int:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(Path(self._server.socket_path).parent, ignore_errors=True)
        return 0

    def _last_words(self) -> str:
        path = Path(self._server.data_dir, LOG_NAME)
        lines = path.read_text(errors="replace").split("\n") if path.exists() else []
        return " / ".join(line.strip() for line in lines[-4:] if line.strip()) + f" (see {path})"


def ask(socket_path: str, command: str) -> str:
    """Send one inline command and return the first piece of its answer; empty: no answer."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        connection.connect(socket_path)
        connection.sendall(command.encode() + b"\r\n")
        return connection.recv(65_536).decode(errors="replace")
    return ""


def _signals_as_bytes() -> int:
    """Turn SIGTERM and SIGCHLD into bytes on a pipe and return its reading end; ignore SIGINT."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return reading


def _print(line: str) -> None:
    with contextlib.suppress(OSError):  # nobody may be left to read it
        print(line, file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tailrace-redis-guard")
    for name in ("--binary", "--data-dir", "--socket"):
        parser.add_argument(name, required=True)
    parser.add_argument("--lock-fd", type=int, required=True)
    parser.add_argument("--bytes-max", type=int, required=True)
    parser.add_argument("--leave-s", type=float, required=True)
    args = parser.parse_args(argv)
    server = PrivateServer(
        binary=args.binary,
        data_dir=args.data_dir,
        socket_path=args.socket,
        lock_fd=args.lock_fd,
        bytes_max=args.bytes_max,
    )
    return Guard(server, leave_s=args.leave_s).run()


if __name__ == "__main__":
    sys.exit(main())
