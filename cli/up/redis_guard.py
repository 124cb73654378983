"""The guard of the private Redis server: a separate process, `python -m cli.up.redis_guard`.

Redis cannot watch a lifeline (cli/up/lifeline.py), so the guard does. The guard ends the server
after SIGTERM. If the supervisor has died, the guard first waits until the roles have disconnected,
because they still hand their work back. Guard and server have their own session, so a Ctrl-C in the
terminal does not reach them.

Invariant: when the guard returns, the server has ended. Imports little, because the guard stays in
memory.
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

READY_LINE = "tailrace redis ready"
SERVER_KILL_AFTER_S = 10.0  # between SIGTERM and SIGKILL of the server
START_POLL_S = 0.02  # between two checks whether the server has started
CLIENTS_POLL_S = 0.1  # between two checks whether the roles have disconnected
LOG_NAME = "server.log"


def guard_argv(server: PrivateServer, *, leave_s: float) -> tuple[str, ...]:
    """Return the command line of the guard.

    Args:
        leave_s: how long the guard waits for clients to disconnect when the supervisor has died.
    """
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
        """Run; return the exit code.

        0: ended on request or with the supervisor; 1: the server ended by itself; 2: the server
        never answered.
        """
        wake = _signals_as_bytes()
        with open(Path(self._server.data_dir, LOG_NAME), "wb", opener=open_private) as log:
            process = subprocess.Popen(
                server_argv(self._server),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(self._server.lock_fd,),
                umask=UMASK,  # its append-only file holds all prompts
            )
        while process.poll() is None:
            if not self._is_ready and (
                answer := send_inline_command(self._server.socket_path, "PING")
            ):
                if answer.startswith("+PONG"):
                    self._is_ready = True
                    _print(f"{READY_LINE}: {self._server.url}")
            wait_s = None if self._is_ready else START_POLL_S
            readable, _, _ = select.select([wake, 0], [], [], wait_s)
            if 0 in readable and not os.read(0, 4096):
                self._let_clients_leave(process)
                return self._end(process)
            if wake in readable and signal.SIGTERM in os.read(wake, 64):
                return self._end(process)
        _print(f"the private Redis server ended by itself: {self._last_log_lines()}")
        return 1 if self._is_ready else 2

    def _let_clients_leave(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until all clients have disconnected, at most `leave_s` seconds."""
        deadline = time.monotonic() + self._leave_s
        while time.monotonic() < deadline and process.poll() is None:
            answer = send_inline_command(self._server.socket_path, "INFO clients")
            if "\nconnected_clients:1\r" in answer:  # only this connection
                return
            time.sleep(CLIENTS_POLL_S)

    def _end(self, process: subprocess.Popen[bytes]) -> int:
        process.terminate()
        try:
            process.wait(SERVER_KILL_AFTER_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(Path(self._server.socket_path).parent, ignore_errors=True)
        return 0

    def _last_log_lines(self) -> str:
        path = Path(self._server.data_dir, LOG_NAME)
        lines = path.read_text(errors="replace").split("\n") if path.exists() else []
        return " / ".join(line.strip() for line in lines[-4:] if line.strip()) + f" (see {path})"


def send_inline_command(socket_path: str, command: str) -> str:
    """Send one inline command; return the first read of the reply, "" if there is none."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        connection.connect(socket_path)
        connection.sendall(command.encode() + b"\r\n")
        return connection.recv(65_536).decode(errors="replace")
    return ""


def _signals_as_bytes() -> int:
    """Make SIGTERM and SIGCHLD write to a pipe; return its reading end. Ignore SIGINT."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return reading


def _print(line: str) -> None:
    with contextlib.suppress(OSError):  # the supervisor may have died
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
