"""A sentinel that says what a test wants: one view of one service, and notices.

Real sentinels (tests/support/sentinels.py) agree within a moment. This one can lag, be silent, or
say nonsense, for as long as a test needs.
"""

from __future__ import annotations

import asyncio
import ssl
from types import TracebackType

import hiredis

from shared.redis.wire import encode
from tests.support.listening import stop_listening

SERVICE = "mine"


class FakeSentinel:
    """Use as an async context manager.

    Attributes:
        epoch, master: its view; master None: the service is unknown to it.
        is_silent: it takes connections and answers nothing.
        password: that clients must send first; empty: none.
        asked: how often it was asked for its view.
    """

    def __init__(
        self,
        epoch: int,
        master: tuple[str, int] | None,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._tls = tls
        self.epoch = epoch
        self.master = master
        self.is_silent = False
        self.password = ""
        self.asked = 0
        self.port = 0
        self.subscribers: set[asyncio.StreamWriter] = set()
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> FakeSentinel:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await stop_listening(self._server)
        for writer in self._open:
            writer.close()
        await self._server.wait_closed()

    def publish(self, channel: str, text: str) -> None:
        """Send a notice to all subscribers."""
        for writer in self.subscribers:
            writer.write(encode([b"message", channel.encode(), text.encode()]))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests, self_login = hiredis.Reader(), not self.password
        self._open.add(writer)
        try:
            while data := await reader.read(4_096):
                requests.feed(data)
                while (words := requests.gets()) is not False and not self.is_silent:
                    if words[0] == b"AUTH":
                        self_login = words[-1] == self.password.encode()
                        writer.write(b"+OK\r\n" if self_login else b"-WRONGPASS no\r\n")
                    elif not self_login:
                        writer.write(b"-NOAUTH Authentication required.\r\n")
                    else:
                        writer.write(self._reply(words, writer))
        except ConnectionError:
            pass
        finally:
            self._open.discard(writer)
            self.subscribers.discard(writer)
            writer.close()

    def _reply(self, words: list[bytes], writer: asyncio.StreamWriter) -> bytes:
        name, *rest = (word.upper() for word in words)
        if name == b"SUBSCRIBE":
            self.subscribers.add(writer)
            return b"".join(
                b"*3\r\n$9\r\nsubscribe\r\n$%d\r\n%b\r\n:%d\r\n" % (len(word), word, n)
                for n, word in enumerate(words[1:], 1)
            )
        if name == b"PING":
            return encode([b"pong", b""])
        assert name == b"SENTINEL"
        is_master = rest[0] == b"MASTER"
        self.asked += is_master
        if self.master is None:
            return b"-ERR No such master with that name\r\n" if is_master else b"*-1\r\n"
        if not is_master:
            return encode([self.master[0].encode(), b"%d" % self.master[1]])
        fields = {
            "name": SERVICE,
            "config-epoch": self.epoch,
            "num-slaves": 1,
            "num-other-sentinels": 2,
            "quorum": 2,
            "down-after-milliseconds": 500,
            "failover-timeout": 3_000,
        }
        return encode([str(part).encode() for pair in fields.items() for part in pair])


def url_of(*sentinels: FakeSentinel, options: str = "") -> str:
    hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
    return f"redis+sentinel://{hosts}/{SERVICE}/0{options}"
