"""A client of Durable Streams that goes on at another node whenever one fails.

Written from the protocol alone. An append carries the three headers of an idempotent producer, so
it may be repeated. A follower remembers only the last offset that it was given.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple

import aiohttp
from yarl import URL

RETRY_S = 0.05
DEADLINE_S = 30.0
PAGE_S = 40.0  # a live read is given up after this
PIECES = 120
TEXT = "".join(f"piece {n}, " for n in range(PIECES))


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def offset(self) -> str:
        return self.headers["stream-next-offset"]


class StreamClient:
    """Talks to several nodes in turn. Use as an async context manager.

    Args:
        key: API key; empty: none.
    """

    def __init__(self, nodes: Sequence[str], *, key: str = "") -> None:
        self._nodes = itertools.cycle(nodes)
        self._node_count = len(nodes)
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._http: aiohttp.ClientSession

    async def __aenter__(self) -> StreamClient:
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True), headers=self._headers
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    def url(self, path: str) -> URL:
        """Return where a stream is; `path` is percent-encoded."""
        return URL(f"{next(self._nodes)}/ds/v1/stream/{path}", encoded=True)

    async def ask(
        self, method: str, path: str, data: bytes = b"", query: str = "", **headers: str
    ) -> Answer:
        """Send until a node answers with less than 500; `stream_seq` becomes Stream-Seq.

        The next node is asked at once; a pause follows when all of them have failed.
        """
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent.setdefault("content-type", "text/plain")
        until_s = time.monotonic() + DEADLINE_S
        for turn in itertools.count(1):
            try:
                async with self._http.request(
                    method, self.url(path + query), data=data, headers=sent,
                    timeout=aiohttp.ClientTimeout(total=PAGE_S),
                ) as response:  # fmt: skip
                    if response.status < 500:
                        return Answer(response.status, response.headers, await response.read())
                    problem = f"{response.status} {await response.text()}"
            except (aiohttp.ClientError, TimeoutError, OSError) as exc:
                problem = repr(exc)
            assert time.monotonic() < until_s, f"{method} {path}: {problem}"
            if turn % self._node_count == 0:
                await asyncio.sleep(RETRY_S)
        raise AssertionError("unreachable")

    async def create(self, path: str, data: bytes = b"", **headers: str) -> Answer:
        return await self.ask("PUT", path, data, **headers)

    async def append(
        self, path: str, data: bytes, seq: int, *, epoch: int = 0, closes: bool = False
    ) -> Answer:
        headers = {"stream_closed": "true"} if closes else {}
        return await self.ask(
            "POST", path, data, producer_id="p", producer_epoch=str(epoch),
            producer_seq=str(seq), **headers,
        )  # fmt: skip

    async def read(self, path: str, offset: str = "-1") -> Answer:
        return await self.ask("GET", path, query=f"?offset={offset}")

    async def events(self, path: str, offset: str) -> AsyncIterator[tuple[str, str]]:
        """Yield the events of one event stream: name and data. Raises aiohttp's errors."""
        query = f"?offset={offset}&live=sse"
        async with self._http.get(self.url(path + query)) as response:
            if response.status != 200:
                raise Refused(response.status)
            name, lines = "", []
            async for raw in response.content:
                line = raw.decode().rstrip("\n")
                if line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data:"):
                    lines.append(line[5:].removeprefix(" "))
                elif not line and lines:
                    yield name, "\n".join(lines)
                    lines = []


class Refused(Exception):
    """A live read was refused with a status below 500."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Follower:
    """Reads a stream of text live to its closure, on any node.

    Attributes:
        text: everything that was read.
        breaks: how often a read broke off.
        refused: the status that ended the reading; 0: none.
        losses: how often the offset was lost, for a patient reader.

    Args:
        is_patient: ask again for an offset that is lost: the producer may send its bytes again.
    """

    def __init__(
        self, client: StreamClient, path: str, mode: str, *, is_patient: bool = False
    ) -> None:
        self.is_patient = is_patient
        self.losses = 0
        self.client = client
        self.path = path
        self.mode = mode
        self.text = ""
        self.offset = "-1"
        self.breaks = 0
        self.refused = 0
        self._changed = asyncio.Event()

    async def run(self) -> str:
        """Read to the end, or to a refusal; return the text."""
        is_over = False
        while not is_over and not self.refused:
            try:
                is_over = await (self._sse() if self.mode == "sse" else self._poll())
            except Refused as exc:
                if exc.status == 410 and self.is_patient:
                    self.losses += 1
                    await asyncio.sleep(RETRY_S)
                elif exc.status < 500:
                    self.refused = exc.status
            except (aiohttp.ClientError, TimeoutError, OSError):
                self.breaks += 1
                await asyncio.sleep(RETRY_S)
        self._changed.set()
        return self.text

    async def reached(self, length: int) -> None:
        """Return once so many characters were read, or the reading is over."""
        while len(self.text) < length and not self.refused:
            self._changed.clear()
            async with asyncio.timeout(DEADLINE_S):
                await self._changed.wait()

    async def _sse(self) -> bool:
        arrived = ""
        async for name, data in self.client.events(self.path, self.offset):
            if name == "data":
                arrived = data
                continue
            state = json.loads(data)
            self._take(arrived, state["streamNextOffset"])
            arrived = ""
            if state.get("streamClosed"):
                return True
        return False

    async def _poll(self) -> bool:
        query = f"?offset={self.offset}&live=long-poll"
        answer = await self.client.ask("GET", self.path, query=query)
        if answer.status >= 400:
            raise Refused(answer.status)
        self._take(answer.body.decode(), answer.offset)
        return answer.headers.get("stream-closed") == "true"

    def _take(self, text: str, offset: str) -> None:
        assert self.offset == "-1" or offset >= self.offset
        self.text += text
        self.offset = offset
        self._changed.set()


async def write(client: StreamClient, path: str, *, goes_back: bool = False) -> None:
    """Append the pieces of `TEXT`, each once, then close the stream.

    Args:
        goes_back: when Redis has lost appends, send them again.
    """
    n = 0
    while n < PIECES:
        answer = await client.append(path, f"piece {n}, ".encode(), n)
        if answer.status == 409 and goes_back:
            n = int(answer.headers["producer-expected-seq"])
            continue
        assert answer.status in (200, 204), answer
        n += 1
    answer = await client.append(path, b"", PIECES, closes=True)
    assert answer.status == 204, answer
