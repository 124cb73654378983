"""Watches every key that scripts touch on a real server, and compares it with the declared keys.

Redis's MONITOR shows each EVALSHA with its keys, followed by the commands that the script runs. On
a server that owns all slots a script may touch any key of its slot. A cluster that migrates the
slot refuses an undeclared key in the middle of the script. So only this comparison finds the
mistake beforehand. Knows no script of ours.
"""

from __future__ import annotations

import re
import secrets
import socket

from redis.connection import parse_url

from tests.support.redis_server import RedisServer

KEYLESS = {"CLUSTER", "TIME", "INFO", "PUBLISH", "SPUBLISH"}
SUBCOMMANDS = {"XGROUP", "XINFO"}
ALL_KEYS = {"DEL", "UNLINK", "EXISTS"}
WORD = re.compile(rb'"((?:[^"\\]|\\.)*)"')
ANSWER_S = 10.0


class ScriptMonitor:
    """The scripts that ran since `start`.

    Attributes:
        touched: SHA-1 digest of each script -> the numbers of declared keys that it touched.
    """

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._socket = _connect(server)
        self._lines = self._socket.makefile("rb")
        self._socket.sendall(b"MONITOR\r\n")
        assert self._lines.readline() == b"+OK\r\n"
        self.touched: dict[str, set[int]] = {}

    def violations(self) -> list[str]:
        """Return each use of an undeclared key since the last call: script, command, key."""
        mark = secrets.token_hex(8).encode()
        with self._server.client() as client:
            client.echo(mark)
        found: list[str] = []
        digest, declared = "", list[str]()
        while mark not in (line := self._lines.readline()):
            assert line, "the server closed the connection"
            words = [word.decode("utf-8", "replace") for word in WORD.findall(line)]
            if not words:
                continue
            name = words[0].upper()
            if b" lua] " in line:
                for key in _keys(name, words):
                    if key in declared:
                        self.touched[digest].add(declared.index(key))
                    else:
                        found.append(f"script {digest}: {name} on the undeclared key {key}")
            elif name in ("EVALSHA", "EVAL"):
                digest, declared = words[1], words[3 : 3 + int(words[2])]
                self.touched.setdefault(digest, set())
        return found

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def __enter__(self) -> ScriptMonitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _keys(name: str, words: list[str]) -> list[str]:
    if name in KEYLESS:
        return []
    if name in SUBCOMMANDS:
        return words[2:3]
    return words[1:] if name in ALL_KEYS else words[1:2]


def _connect(server: RedisServer) -> socket.socket:
    address = parse_url(server.url)
    if path := address.get("path"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(ANSWER_S)
        connection.connect(path)
        return connection
    return socket.create_connection((address["host"], address["port"]), ANSWER_S)
