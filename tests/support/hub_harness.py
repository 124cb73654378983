"""A hub on a bench: its Redis, its live connection, its readers' sockets and its clock, by hand.

`FakeLog` is what the hub needs of the store, in memory, with the faults that matter here: away,
rolled back, absent. Frames reach the hub through `FakeLive`, or do not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from api.edge.auth import Authenticator
from api.edge.metrics import Metrics
from api.hub.hub import EXIT_S, Hub
from api.hub.live_connection import Listener
from api.node import Node
from shared.config.models import load_models
from shared.config.settings import Settings
from shared.errors import Unavailable
from shared.log.events import End, Event, Token, encode
from shared.log.ids import START, EventId
from shared.log.records import Entry, Meta, Top
from shared.redis import keys

GENERATION = "gen_0000000000"
END = End(status="completed", finish_reason="stop")


def make_meta(generation_id: str = GENERATION, **changes: Any) -> Meta:
    meta = Meta(
        generation_id=generation_id,
        status="running",
        owner="anonymous",
        session="",
        model="demo",
        priority="interactive",
        created_at_ms=1,
        attempt=1,
        lease_ms=2,
        waiting_since_ms=0,
        failures=0,
        grace_s=None,
        metadata=b"{}",
        request=b"{}",
        end=b"",
        ended_at_ms=0,
    )
    return replace(meta, **changes)


OF_EVERY_NODE = {b"tr:probe:n1", b"tr:deleted"}  # channels of a node without readers


class FakeLog:
    """The store, as far as a hub asks it."""

    def __init__(self) -> None:
        self.logs: dict[str, list[Entry]] = {}
        self.known: dict[str, Meta] = {}
        self.deleted: set[str] = set()
        self.live: FakeLive | None = None
        self.is_away = False
        self.is_deaf = False  # frames are published, and reach nobody
        self.attempt = 1
        self.now_ms = 1_000_000
        self.calls: list[tuple[str, str]] = []
        self.pages_held: asyncio.Event | None = None

    # What a worker does

    def create(self, generation_id: str = GENERATION, **changes: Any) -> Meta:
        self.known[generation_id] = meta = make_meta(generation_id, **changes)
        return meta

    def append(self, *events: Event | bytes, generation_id: str = GENERATION) -> list[EventId]:
        """Write and publish; with an End, end."""
        log = self.logs.setdefault(generation_id, [])
        prev = log[-1][0] if log else START
        lines = [str(prev)]
        for event in events:
            raw = event if isinstance(event, bytes) else encode(event)
            event_id = EventId(self.attempt, len(log) + 1)
            log.append((event_id, raw))
            lines.append(f"{event_id} {raw.decode()}")
            if raw.startswith(b'{"type":"end"'):
                meta = self.known[generation_id]
                self.known[generation_id] = replace(
                    meta, status="completed", end=raw, ended_at_ms=self.now_ms
                )
        self.say("\n".join(lines).encode(), generation_id)
        return [event_id for event_id, _ in log[-len(events) :]]

    def tokens(self, *texts: str, generation_id: str = GENERATION) -> list[EventId]:
        return self.append(*map(Token, texts), generation_id=generation_id)

    def say(self, frame: bytes, generation_id: str = GENERATION) -> None:
        if self.live is not None and not self.is_deaf:
            self.live.deliver(keys.live(generation_id).encode(), frame)

    def roll_back(self, entries: int, generation_id: str = GENERATION) -> None:
        """Lose a tail, as a failover does; the next attempt goes on from there."""
        log = self.logs[generation_id]
        del log[len(log) - entries :]
        self.attempt += 1

    def lose(self, generation_id: str = GENERATION) -> None:
        self.logs.pop(generation_id, None)
        self.known.pop(generation_id, None)

    def delete(self, generation_id: str = GENERATION, *, is_told: bool = True) -> None:
        """Delete a generation, and tell the nodes."""
        self.logs.pop(generation_id, None)
        self.known[generation_id] = make_meta(generation_id, status="sealed", owner="")
        self.deleted.add(generation_id)
        if is_told and self.live is not None:
            self.live.deliver(keys.DELETED.encode(), generation_id.encode())

    # What a hub asks

    async def _call(self, name: str, what: str = "") -> None:
        self.calls.append((name, what))
        await asyncio.sleep(0)
        if self.is_away:
            raise Unavailable("away")

    async def meta(self, generation_id: str) -> Meta | None:
        await self._call("meta", generation_id)
        return self.known.get(generation_id)

    async def page(self, generation_id: str, start: EventId, count: int) -> list[Entry]:
        await self._call("page", generation_id)
        found = [entry for entry in self.logs.get(generation_id, []) if entry[0] >= start][:count]
        if self.pages_held is not None:
            await self.pages_held.wait()
        return found

    async def known_tops(self, ids: Sequence[str]) -> list[Top]:
        return await self.tops(ids)

    async def tops(self, ids: Sequence[str]) -> list[Top]:
        await self._call("tops", ",".join(ids))
        return [self._top(generation_id) for generation_id in ids]

    def _top(self, generation_id: str) -> Top:
        meta, log = self.known.get(generation_id), self.logs.get(generation_id)
        return Top(
            status=meta.status if meta else None,
            id=log[-1][0] if log else None,
            lease_ms=meta.lease_ms if meta else 0,
            waiting_since_ms=meta.waiting_since_ms if meta else 0,
            now_ms=self.now_ms,
        )

    async def seal(self, generation_id: str) -> str:
        await self._call("seal", generation_id)
        if generation_id in self.known:
            return self.known[generation_id].status
        self.create(generation_id, status="sealed")
        return "sealed"

    async def statuses(self, ids: Sequence[str]) -> list[str | None]:
        await self._call("statuses", ",".join(ids))
        return [meta.status if (meta := self.known.get(each)) else None for each in ids]

    async def was_deleted(self, generation_id: str) -> bool:
        await self._call("was_deleted", generation_id)
        return generation_id in self.deleted

    async def publish(self, channel: str, data: bytes) -> int:
        await self._call("publish", channel)
        if self.live is not None and not self.is_deaf:
            self.live.deliver(channel.encode(), data)
        return 1

    async def attach_readers(self, generation_id: str, node: str) -> bool:
        await self._call("attach", generation_id)
        return not self.known[generation_id].is_ended

    async def detach_readers(self, generation_id: str, node: str) -> None:
        await self._call("detach", generation_id)

    async def requeue(self, generation_id: str, priority: str) -> None:
        await self._call("requeue", generation_id)

    def count(self, name: str) -> int:
        return sum(call == name for call, _ in self.calls)


class FakeLive:
    """A live connection that does what the test says."""

    has_probe = True

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.channels: set[bytes] = set()
        self.is_connected = True
        self.confirms = True
        self.drops = 0

    def subscribe(self, channel: bytes) -> None:
        self.channels.add(channel)
        if self.confirms:
            asyncio.get_running_loop().call_soon(self.listener.subscribed, channel)

    def unsubscribe(self, channel: bytes) -> None:
        self.channels.discard(channel)

    def deliver(self, channel: bytes, payload: bytes) -> None:
        if self.is_connected and channel in self.channels:
            self.listener.message(channel, payload)

    def drop(self) -> None:
        self.drops += 1
        self.lose()

    def lose(self) -> None:
        """The connection breaks: what is published until `reconnect` is gone."""
        self.is_connected = False
        self.listener.disconnected()

    def reconnect(self) -> None:
        self.is_connected = True
        for channel in sorted(self.channels):
            self.listener.subscribed(channel)

    async def run(self) -> None:
        await asyncio.Event().wait()


class Clock:
    """Loop time that passes when the test says so."""

    def __init__(self) -> None:
        self.s = 1_000.0

    def __call__(self) -> float:
        return self.s


class HubHarness:
    """A hub with everything around it. Use `async with`."""

    def __init__(self, **settings: Any) -> None:
        self.log = FakeLog()
        self.clock = Clock()
        self.settings = Settings(**settings)
        self.hub = Hub(
            self.log,  # type: ignore[arg-type]
            self.settings,
            node="n1",
            open_connection=self._open,
            clock=self.clock,
            wall_ms=lambda: self.log.now_ms,
        )

    def _open(self, url: str, listener: Listener) -> FakeLive:
        self.live = self.log.live = FakeLive(listener)
        return self.live

    async def __aenter__(self) -> HubHarness:
        await self.hub.__aenter__()
        await settle()
        return self

    async def __aexit__(self, *exc: object) -> None:
        # Without Redis no errand ends before the hub stops waiting for it.
        exit_s = 0.1 if self.log.is_away else EXIT_S
        with patch("api.hub.hub.EXIT_S", exit_s):
            await self.hub.__aexit__(*exc)

    def node(self, **parts: Any) -> Node:
        """A node around this hub, with fakes for the parts that a test does not use."""
        known: Any = {
            "name": "n1",
            "settings": self.settings,
            "models": load_models(""),
            "redis": None,
            "store": self.log,
            "acceptor": None,
            "files": None,
            "hub": self.hub,
            "authenticator": Authenticator({}, ()),
            "metrics": Metrics(),
            "started_at": 0,
            **parts,
        }
        return Node(**known)

    async def pass_time(self, seconds: float, step_s: float = 0.25) -> None:
        """Let time pass, tick by tick; what the ticks start is run."""
        for _ in range(round(seconds / step_s)):
            self.clock.s += step_s
            self.log.now_ms += round(step_s * 1000)
            self.hub._upkeep.tick(self.clock.s)
            await settle()


async def settle(turns: int = 40) -> None:
    """Let everything run that can run without time passing."""
    for _ in range(turns):
        await asyncio.sleep(0)


class Client:
    """A client of an ASGI app: `receive` and `send`, and a socket that may not take any more."""

    def __init__(self, *requests: dict[str, Any]) -> None:
        self.messages: list[dict[str, Any]] = []
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for request in requests or ({"type": "http.request", "body": b"", "more_body": False},):
            self.incoming.put_nowait(request)
        self.writable = asyncio.Event()
        self.writable.set()
        self.was_aborted = False
        self.buffer_bytes = 0
        self.on_send: Callable[[dict[str, Any]], None] | None = None

    async def receive(self) -> dict[str, Any]:
        return await self.incoming.get()

    async def send(self, message: dict[str, Any]) -> None:
        await self.writable.wait()
        self.messages.append(message)
        if self.on_send is not None:
            self.on_send(message)

    def leave(self, kind: str = "http") -> None:
        self.incoming.put_nowait({"type": f"{kind}.disconnect", "code": 1006})

    def block(self) -> None:
        self.writable.clear()

    def unblock(self) -> None:
        self.writable.set()

    # The transport below

    def abort(self) -> None:
        self.was_aborted = True
        self.leave()

    def get_write_buffer_size(self) -> int:
        return self.buffer_bytes

    # What it saw

    @property
    def status(self) -> int | None:
        return next(
            (m["status"] for m in self.messages if m["type"] == "http.response.start"), None
        )

    @property
    def headers(self) -> dict[bytes, bytes]:
        for message in self.messages:
            if message["type"] == "http.response.start":
                return dict(message["headers"])
        return {}

    @property
    def body(self) -> bytes:
        return b"".join(
            m.get("body", b"") for m in self.messages if m["type"] == "http.response.body"
        )

    @property
    def is_finished(self) -> bool:
        return any(
            m["type"] == "http.response.body" and not m.get("more_body", False)
            for m in self.messages
        )


def make_scope(
    client: Client,
    *,
    method: str = "GET",
    query: str = "",
    headers: dict[str, str] | None = None,
    with_transport: bool = True,
) -> dict[str, Any]:
    return {
        "type": "http",
        "method": method,
        "path": f"/v1/generations/{GENERATION}/events",
        "query_string": query.encode(),
        "headers": [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()],
        "extensions": {"tailrace.transport": client} if with_transport else {},
    }
