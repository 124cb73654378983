"""Prepares the private cluster of `tailrace up --cluster`: three masters on this machine.

For trying it out: there are no replicas, so a master that is killed comes back with its file. The
masters listen on loopback ports, because a cluster needs ports, and ask for a password, because
another user of this machine can reach a port. Their list of nodes is written before their first
start, so they are a cluster at once. Their ports stay the same, because the list names them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from cli.up.private_server import PrivateServer, find_server, open_private, server_version
from shared.errors import ConfigurationError

MASTERS = 3
SLOTS = 16_384
VERSION_MIN = (7, 0)  # sharded channels
# From this version on the list of nodes names the shards. Valkey 9.1.2 stops with an assertion at
# the first SPUBLISH if its own node has none (clusterGetNodesInMyShard). Version 7.0 would take the
# name of the shard for a host name.
VERSION_WITH_SHARDS = (7, 2)
FOLDER = "cluster"  # in the data directory
PASSWORD = "password"
PORTS = "ports.json"  # pairs: of clients, and of the bus between the masters
PORT_MAX = 55_535  # some versions take the port above by 10,000 for the bus


def private_masters(jobs: PrivateServer) -> tuple[list[PrivateServer], str]:
    """Prepare three masters beside the private server, which stays for arq.

    Returns:
        the masters, and the URL of the cluster.

    Raises:
        ConfigurationError: no server is new enough, or a port of the masters is taken.
    """
    binary = find_server(VERSION_MIN)
    has_shards = server_version(binary) >= VERSION_WITH_SHARDS
    folder = Path(jobs.data_dir, FOLDER)
    folder.mkdir(mode=0o700, exist_ok=True)
    password = _kept(folder / PASSWORD, secrets.token_hex(16))
    ports: list[tuple[int, int]] = json.loads(_kept(folder / PORTS, json.dumps(_free_pairs())))
    masters = []
    for number, (port, bus) in enumerate(ports):
        data_dir = folder / str(number + 1)
        data_dir.mkdir(mode=0o700, exist_ok=True)
        _kept(data_dir / "nodes.conf", _nodes(ports, number, password, has_shards=has_shards))
        _check_free(port, folder)
        _check_free(bus, folder)
        socket_path = f"{Path(jobs.socket_path).parent}/master-{number + 1}.sock"
        masters.append(
            replace(
                jobs,
                binary=binary,
                data_dir=str(data_dir),
                socket_path=socket_path,
                bytes_max=jobs.bytes_max // MASTERS,
                cluster_ports=(port, bus),
                password_file=str(folder / PASSWORD),
            )
        )
    hosts = ",".join(f"127.0.0.1:{port}" for port, _ in ports)
    url = f"redis+cluster://{hosts}?password_file={quote(str(folder / PASSWORD))}"
    os.truncate(jobs.lock_fd, 0)
    os.write(jobs.lock_fd, url.encode())  # for `running_url`
    return masters, url


def _kept(path: Path, text: str) -> str:
    """Return the text of a file of an earlier run. If there is no such file, write `text`."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_text()
    with open(path, "w", opener=open_private) as file:
        file.write(text)
    return text


def _nodes(
    ports: Sequence[tuple[int, int]], own: int, secret: str, *, has_shards: bool = False
) -> str:
    """Return the list of nodes for the first start of one master.

    The names of the nodes differ in each data directory. Two clusters with the same names would
    become one if they ever met on a port.

    Source: the file that Redis 7 and Valkey write themselves (`cluster-config-file`).
    """
    lines = []
    for number, (port, bus) in enumerate(ports):
        first, after = number * SLOTS // MASTERS, (number + 1) * SLOTS // MASTERS
        flags = "myself,master" if number == own else "master"
        name = hashlib.sha1(f"{secret} {number}".encode()).hexdigest()
        epoch = number + 1
        shard = hashlib.sha1(f"{secret} shard {number}".encode()).hexdigest()
        more = f",,tls-port=0,shard-id={shard}" if has_shards else ""
        head = f"{name} 127.0.0.1:{port}@{bus}{more} {flags}"
        lines.append(f"{head} - 0 0 {epoch} connected {first}-{after - 1}")
    return "\n".join([*lines, f"vars currentEpoch {MASTERS} lastVoteEpoch 0", ""])


def _free_pairs() -> list[tuple[int, int]]:
    with contextlib.ExitStack() as held:
        found = list(_free_ports(2 * MASTERS, held))
    return list(zip(found[::2], found[1::2], strict=True))


def _free_ports(count: int, held: contextlib.ExitStack) -> Iterator[int]:
    """Yield free ports; the sockets stay open in `held`, so that no port comes twice."""
    while count:
        listener = held.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        if port <= PORT_MAX:
            count -= 1
            yield port


def _check_free(port: int, folder: Path) -> None:
    """Raise ConfigurationError if another program listens on a port of the masters."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as exc:
            raise ConfigurationError(
                f"port {port}, which {folder} names for a master, is taken: end the program that "
                "listens there, or remove this directory with its data"
            ) from exc
