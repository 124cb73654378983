"""A careful reader: it reads one generation to its end, whichever connections break meanwhile.

After a break the reader resumes from its cursor, at the next node and over the next transport. It
records each connection, event and break in a `Reading`, which the history checker judges. A reader
may also leave a connection that works after a number of events, so that tests try resuming without
a fault, too.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import aiohttp
import websockets
from websockets.asyncio.client import connect

from tests.support.deliveries import Closed, Delivery, Opened, Reading
from tests.support.sse import SseParser

# A stream that sends no byte for so long is dead: nodes under test have a heartbeat well below it.
STALL_S = 12.0
RETRY_S = 0.05  # the first pause after a connection without an event; each further one is doubled
RETRY_MAX_S = 0.4
POLL_S = 2  # `wait` of a long poll
TRANSPORTS = ("sse", "ws", "ndjson", "longpoll")


class CarefulReader:
    """Reads into `reading` until the end.

    Args:
        nodes: base URLs, used in turn; each reconnect goes to the next.
        transports: used in turn, each on every node before the next.
        hop_after: leave after so many events of one connection; 0: only when it breaks.
        path: below which the log is found by its id.

    Attributes:
        faults: departures from the wire format, in words.
    """

    def __init__(
        self,
        reading: Reading,
        nodes: Sequence[str],
        *,
        transports: Sequence[str] = ("sse",),
        hop_after: int = 0,
        key: str = "",
        path: str = "/v1/generations",
    ) -> None:
        self.reading = reading
        self._path = path
        self.faults: list[str] = []
        self._nodes = nodes
        self._transports = transports
        self._hop_after = hop_after
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._taken = 0  # events of this connection

    async def run(self, generation_id: str, *, deadline_s: float) -> Reading:
        """Read until the end event, a final refusal, or the deadline; never raises for them.

        The history checker reports the events that are missing then.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=2, sock_read=STALL_S)
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, headers=self._headers
        ) as http:
            try:
                async with asyncio.timeout(deadline_s):
                    await self._read_on(http, generation_id)
            except TimeoutError:
                self.reading.steps.append(Closed("deadline", time.monotonic()))
        return self.reading

    async def _read_on(self, http: aiohttp.ClientSession, generation_id: str) -> None:
        pause_s = RETRY_S
        for turn in itertools.count():
            node = self._nodes[turn % len(self._nodes)]
            transport = self._transports[turn // len(self._nodes) % len(self._transports)]
            self._open(node, transport)
            how = await self._connection(http, node, transport, generation_id)
            self.reading.steps.append(Closed(how, time.monotonic()))
            if self.reading.end is not None or _is_final(how):
                return
            if self._taken:
                pause_s = RETRY_S
            else:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, RETRY_MAX_S)

    async def _connection(
        self, http: aiohttp.ClientSession, node: str, transport: str, generation_id: str
    ) -> str:
        """One connection; returns how it closed."""
        url = f"{node}{self._path}/{generation_id}/events"
        try:
            if transport == "ws":
                return await self._read_ws(node, generation_id)
            read: Callable[[aiohttp.ClientSession, str], Awaitable[str]] = {
                "sse": self._read_sse,
                "ndjson": self._read_ndjson,
                "longpoll": self._read_longpoll,
            }[transport]
            return await read(http, url)
        except (
            aiohttp.ClientConnectorError,
            aiohttp.ConnectionTimeoutError,  # it never came to be: on a machine that is too busy
            ConnectionRefusedError,
        ):
            return "refused"
        except (aiohttp.ServerTimeoutError, aiohttp.SocketTimeoutError):
            return "stalled"
        except (aiohttp.ClientError, OSError):
            return "broken"

    async def _read_sse(self, http: aiohttp.ClientSession, url: str) -> str:
        parser = SseParser()
        headers = {"Accept": "text/event-stream"}
        if self.reading.cursor:
            headers["Last-Event-ID"] = self.reading.cursor
        try:
            async with http.get(url, headers=headers) as response:
                if response.status != 200:
                    return f"status {response.status}"
                async for piece in response.content.iter_any():
                    for block in parser.feed(piece):
                        if self._take(block.delivery(time.monotonic())):
                            return "left"
            return "clean"
        finally:
            self.faults += parser.faults

    async def _read_ndjson(self, http: aiohttp.ClientSession, url: str) -> str:
        params = {"last_event_id": self.reading.cursor} if self.reading.cursor else {}
        headers = {"Accept": "application/x-ndjson"}
        rest = b""
        async with http.get(url, headers=headers, params=params) as response:
            if response.status != 200:
                return f"status {response.status}"
            async for piece in response.content.iter_any():
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    if line and self._take(_flat(json.loads(line), "id")):
                        return "left"
        if rest:
            self.faults.append(f"NDJSON body ended inside a line: {rest[:60]!r}")
        return "clean"

    async def _read_longpoll(self, http: aiohttp.ClientSession, url: str) -> str:
        """Poll until the end, a hop or an error. An answered poll is no silent end."""
        headers = {"Accept": "application/json"}
        while True:
            params = {"wait": str(POLL_S), "last_event_id": self.reading.cursor or "0-0"}
            async with http.get(url, headers=headers, params=params) as response:
                if response.status != 200:
                    return f"status {response.status}"
                body = await response.json()
            is_leaving = False
            for event in body["events"]:
                is_leaving = self._take(_flat(event, "id"))
            if body["events"] and body["last_event_id"] != body["events"][-1]["id"]:
                self.faults.append(f"long poll: last_event_id {body['last_event_id']!r}")
            if body["done"]:
                return "clean"
            if is_leaving:
                return "left"

    async def _read_ws(self, node: str, generation_id: str) -> str:
        url = node.replace("http", "ws", 1) + "/v1/ws"
        subscribe = {"type": "subscribe", "id": generation_id}
        if self.reading.cursor:
            subscribe["last_event_id"] = self.reading.cursor
        try:
            async with connect(
                url,
                subprotocols=[websockets.Subprotocol("tailrace.v1")],
                additional_headers=self._headers,
                open_timeout=5,
                close_timeout=1,
                ping_interval=3,
                proxy=None,
            ) as socket:
                await socket.send(json.dumps(subscribe))
                async for frame in socket:
                    message = json.loads(frame)
                    if message["type"] == "error":
                        return f"error {message['code']}"
                    if "event_id" in message and self._take(_flat(message, "event_id")):
                        return "left"
                    if self.reading.end is not None:  # a socket outlives its generations
                        return "left"
            return f"code {socket.close_code}"
        except websockets.ConnectionClosed as exc:
            return f"code {exc.rcvd.code if exc.rcvd else 1006}"
        except websockets.InvalidStatus as exc:
            return f"status {exc.response.status_code}"
        except websockets.InvalidHandshake:
            return "broken"
        except TimeoutError:
            return "stalled"

    def _open(self, node: str, transport: str) -> None:
        self._taken = 0
        self.reading.steps.append(Opened(node, transport, self.reading.cursor, time.monotonic()))

    def _take(self, delivery: Delivery) -> bool:
        """Record one event; True: leave now. After the end it stays: nothing may follow."""
        self.reading.steps.append(delivery)
        self._taken += 1
        return self.reading.end is None and 0 < self._hop_after <= self._taken


def _flat(message: dict[str, Any], id_name: str) -> Delivery:
    """An event with its id and type as members of one object."""
    fields = dict(message)
    event_id = fields.pop(id_name)
    if id_name == "event_id":
        del fields["id"]  # on a socket: the generation's
    return Delivery(event_id, fields.pop("type"), fields, time.monotonic())


def _is_final(how: str) -> bool:
    """Whether coming back cannot help."""
    kind, _, number = how.partition(" ")
    if kind == "status":
        return int(number) < 429
    return kind == "error" and number not in ("unavailable", "draining")
