"""The events of an open console: what comes first, what comes again, and when the stream ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from api.console import feed as feed_module
from api.console import sampler as sampler_module
from api.console.picture import Parts, encode_event
from api.console.trends import Trends
from api.hub.contracts import HubCounters
from api.transport.extensions import TRANSPORT
from shared.console.reports import Point
from tests.support.shell import OPERATOR, Shell
from tests.support.wait import until

TICK_S = 0.02
WITHIN_S = 10.0


class Transport:
    """Remembers that it was aborted."""

    is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True


class Page:
    """One request for the feed, as an ASGI server passes it on."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self.transport = Transport()
        self.sent: list[dict[str, Any]] = []
        self.has_left = asyncio.Event()
        self.may_write = asyncio.Event()
        self.may_write.set()

    async def open(self, query: bytes = b"") -> None:
        headers = [(name.encode(), value.encode()) for name, value in OPERATOR.items()]
        scope = {
            "type": "http", "http_version": "1.1", "method": "GET", "path": "/v1/console",
            "raw_path": b"/v1/console", "query_string": query, "root_path": "", "scheme": "http",
            "headers": [(b"host", b"localhost"), *headers], "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80), "extensions": {TRANSPORT: self.transport},
        }  # fmt: skip
        await self.shell.app(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        await self.has_left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        await self.may_write.wait()
        self.sent.append(message)

    @property
    def events(self) -> list[str]:
        body = b"".join(message.get("body", b"") for message in self.sent).decode()
        return [line.removeprefix("event: ") for line in body.split("\n") if line[:6] == "event:"]

    async def until(self, event: str, times: int = 1) -> None:
        await until(lambda: self.events.count(event) >= times, WITHIN_S, event)


async def guarded(work: Coroutine[Any, Any, None]) -> None:
    """Run an errand as the hub does: an exception ends nothing else."""
    with suppress(ValueError):
        await work


@pytest.fixture
async def shell(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shell]:
    monkeypatch.setattr(sampler_module, "TICK_S", TICK_S)
    async with asyncio.TaskGroup() as group:
        found = Shell()
        hub: Any = found.hub
        hub.spawn = lambda work: group.create_task(guarded(work))
        hub.counters = HubCounters()
        yield found


async def test_a_page_gets_the_whole_picture_and_then_only_what_changes(shell):
    page = Page(shell)
    opened = asyncio.create_task(page.open())
    await page.until("rows", 3)
    page.has_left.set()
    await opened

    assert page.sent[0]["status"] == 200
    whole = ["hello", "workers", "nodes", "queue", "batches", "schedules", "usage", "happened"]
    assert [name for name in page.events if name in whole] == whole
    assert page.events.count("rows") >= 3


async def test_a_page_that_reads_nothing_is_cut(shell, monkeypatch):
    monkeypatch.setattr(feed_module, "SEND_S", 0.01)
    page = Page(shell)
    opened = asyncio.create_task(page.open())
    await page.until("rows")
    page.may_write.clear()
    await asyncio.wait_for(opened, WITHIN_S)

    assert page.transport.is_aborted
    assert shell.node.hub.counters.cuts == 1


async def test_the_stream_ends_when_the_node_drains(shell):
    page = Page(shell)
    opened = asyncio.create_task(page.open())
    await page.until("rows")
    shell.node.is_draining = True
    await asyncio.wait_for(opened, WITHIN_S)

    assert page.sent[-1]["more_body"] is False


async def test_the_stream_ends_when_the_key_is_taken_away(shell, monkeypatch):
    page = Page(shell)
    opened = asyncio.create_task(page.open())
    await page.until("rows")
    monkeypatch.setattr(shell.node.authenticator, "is_key_revoked", lambda identity: True)
    await asyncio.wait_for(opened, WITHIN_S)

    assert page.sent[-1]["more_body"] is False


async def test_the_stream_ends_after_a_defect_of_the_sampler_so_that_the_page_comes_back(
    shell, monkeypatch
):
    page = Page(shell)
    opened = asyncio.create_task(page.open())
    await page.until("rows")

    async def broken(sampler: Any) -> None:
        raise ValueError

    monkeypatch.setattr(sampler_module.Sampler, "tick", broken)
    await asyncio.wait_for(opened, WITHIN_S)

    assert page.sent[-1]["more_body"] is False


async def test_a_head_of_the_console_opens_no_page(shell):
    answer = await shell.client.head("/v1/console", headers=OPERATOR)

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")


async def test_a_filter_that_cannot_be_is_refused_with_a_status(shell):
    page = Page(shell)
    await page.open(b"state=odd")

    assert page.sent[0]["status"] == 422


def test_points_are_sent_once():
    parts = Parts()
    trends = Trends()
    trends.add([Point(10_000), Point(20_000)])
    first = parts.new_points(trends)
    trends.add([Point(30_000)])
    second = parts.new_points(trends)

    def times(event: bytes) -> list[int]:
        data = msgspec.json.decode(event.partition(b"data: ")[2].strip())
        return list(data["at_ms"])

    assert (times(first), times(second)) == ([10_000, 20_000], [30_000])
    assert parts.new_points(trends) == b""


def test_a_part_is_sent_again_only_if_it_has_changed():
    parts = Parts()
    one, two = encode_event("a", 1), encode_event("a", 2)

    assert [list(parts.changed({"a": each})) for each in (one, one, two)] == [[one], [], [two]]
