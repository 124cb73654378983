"""The guard of the private Redis server: a separate process, `python -m cli.up.redis_guard`.

Redis cannot watch a lifeline (cli/up/lifeline.py), so the guard does. The guard ends the server
after SIGTERM. If the supervisor has died, the guard first waits until the roles have disconnected,
because they still hand their work back. Guard and server have their own session, so a Ctrl-C in the
terminal does not reach them.

Something may remove the socket or its folder, for instance a program that cleans /tmp. Redis cannot
listen again while it runs, so the guard then makes the folder again and restarts the server; its
append-only file has all data.

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
import stat
import subprocess
import sys
import time
from pathlib import Path

from cli.up.privacy import OTHERS_MASK, UMASK
from cli.up.private_server import PrivateServer, open_private, server_argv

READY_LINE = "tailrace redis ready"
SERVER_KILL_AFTER_S = 10.0  # between SIGTERM and SIGKILL of the server
START_POLL_S = 0.02  # between two checks whether the server has started
SOCKET_CHECK_S = 1.0  # between two checks whether the socket is still there
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
        *(("--cluster-ports", *map(str, server.cluster_ports)) if server.cluster_ports else ()),
        *(("--password-file", server.password_file) if server.password_file else ()),
        *("--leave-s", str(leave_s)),
    )


class Guard:
    """Runs the server until SIGTERM, the end of standard input, or the server's own end."""

    def __init__(self, server: PrivateServer, *, leave_s: float) -> None:
        self._server = server
        self._leave_s = leave_s
        self._password = Path(server.password_file).read_text() if server.password_file else ""
        self._was_ready = False
        self._socket: tuple[int, int] | None = None  # the identity of the server's socket file

    def run(self) -> int:
        """Run; return the exit code.

        0: ended on request or with the supervisor; 1: the server ended by itself; 2: the server
        never answered.
        """
        wake = _signals_as_bytes()
        while True:
            if why_not := make_folder(Path(self._server.socket_path).parent):
                _print(why_not)
                return 1
            code = self._watch(self._start(), wake)
            if code is not None:
                return code
            _print("the socket of the private Redis server was removed: the server starts again")

    def _start(self) -> subprocess.Popen[bytes]:
        self._socket = None
        with open(Path(self._server.data_dir, LOG_NAME), "wb", opener=open_private) as log:
            return subprocess.Popen(
                server_argv(self._server),
                stdin=self._configuration(),
                stdout=log,
                stderr=log,
                pass_fds=(self._server.lock_fd,),
                umask=UMASK,  # its append-only file holds all prompts
            )

    def _configuration(self) -> int:
        """Return a file descriptor with the password, which must not be on a command line."""
        reading, writing = os.pipe()
        if self._password:
            os.write(writing, f"requirepass {self._password}\n".encode())
        os.close(writing)
        return reading

    def _ask(self, command: str) -> str:
        return send_inline_command(self._server.socket_path, command, password=self._password)

    def _watch(self, process: subprocess.Popen[bytes], wake: int) -> int | None:
        """Wait until the guard shall end, and return the exit code; None: the socket was removed.

        The server has ended when this returns.
        """
        while process.poll() is None:
            if self._socket is None:
                self._look_for_answer()
            elif _identity(self._server.socket_path) != self._socket:
                self._end(process)
                return None
            wait_s = SOCKET_CHECK_S if self._socket else START_POLL_S
            readable, _, _ = select.select([wake, 0], [], [], wait_s)
            is_orphan = 0 in readable and not os.read(0, 4096)
            if is_orphan:
                self._let_clients_leave(process)
            if is_orphan or (wake in readable and signal.SIGTERM in os.read(wake, 64)):
                self._end(process)
                shutil.rmtree(Path(self._server.socket_path).parent, ignore_errors=True)
                return 0
        _print(f"the private Redis server ended by itself: {self._last_log_lines()}")
        return 1 if self._was_ready else 2

    def _look_for_answer(self) -> None:
        """Note and print that the server answers, if it does."""
        # The identity is read first: if the socket is removed after the answer, the guard sees it.
        found = _identity(self._server.socket_path)
        if found and self._ask("PING").startswith("+PONG"):
            self._socket, self._was_ready = found, True
            _print(f"{READY_LINE}: {self._server.url}")

    def _let_clients_leave(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until all clients have disconnected, at most `leave_s` seconds."""
        deadline = time.monotonic() + self._leave_s
        while time.monotonic() < deadline and process.poll() is None:
            answer = self._ask("INFO clients")
            if "\nconnected_clients:1\r" in answer:  # only this connection
                return
            time.sleep(CLIENTS_POLL_S)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(SERVER_KILL_AFTER_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _last_log_lines(self) -> str:
        path = Path(self._server.data_dir, LOG_NAME)
        lines = path.read_text(errors="replace").split("\n") if path.exists() else []
        return " / ".join(line.strip() for line in lines[-4:] if line.strip()) + f" (see {path})"


def make_folder(folder: Path) -> str:
    """Make the folder of the socket where it is missing; return why it cannot be used, or "".

    The folder is usually in /tmp, where another user may have made one of the same name.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as exc:
        return f"{folder}: {exc.strerror}: the private Redis server needs this folder"
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if not is_ours or found.st_mode & OTHERS_MASK:
        return f"{folder} belongs to another user or is open to others: remove it, then start again"
    return ""


def _identity(path: str) -> tuple[int, int] | None:
    """Return the device and inode of a file; None: there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def send_inline_command(socket_path: str, command: str, *, password: str = "") -> str:
    """Send one inline command; return the first read of the reply, "" if there is none."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        connection.connect(socket_path)
        if password:
            connection.sendall(f"AUTH {password}\r\n".encode())
            connection.recv(64)
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
    parser.add_argument("--cluster-ports", type=int, nargs=2)
    parser.add_argument("--password-file", default="")
    args = parser.parse_args(argv)
    server = PrivateServer(
        binary=args.binary,
        data_dir=args.data_dir,
        socket_path=args.socket,
        lock_fd=args.lock_fd,
        bytes_max=args.bytes_max,
        cluster_ports=tuple(args.cluster_ports) if args.cluster_ports else None,
        password_file=args.password_file,
    )
    return Guard(server, leave_s=args.leave_s).run()


if __name__ == "__main__":
    sys.exit(main())
