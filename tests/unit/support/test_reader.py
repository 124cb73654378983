"""The careful reader comes back with its cursor and records how each connection closed.

A node made of a few lines serves one finished log over all transports and can break on command.
"""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web

from tests.support.deliveries import Closed, Delivery, Opened, Reading
from tests.support.history import History
from tests.support.reader import TRANSPORTS, CarefulReader

LOG = [
    ("1-1", "start", {"attempt": 1, "model": "demo"}),
    *((f"1-{n}", "token", {"text": f"t{n} "}) for n in range(2, 9)),
    ("1-9", "end", {"status": "completed", "finish_reason": "stop"}),
]


class Node:
    """Serves LOG; `break_after` events a connection is broken, or ended `cleanly` in silence."""

    def __init__(self) -> None:
        self.break_after = 99
        self.is_clean = False
        self.url = ""

    async def events(self, request):
        cursor = request.headers.get("Last-Event-ID") or request.query.get("last_event_id", "0-0")
        rest = LOG[int(cursor.split("-")[1]) :][: self.break_after]
        accept = request.headers["Accept"]
        if accept == "application/json":
            events = [{"id": i, "type": t, **f} for i, t, f in rest]
            last = rest[-1][0]
            return web.json_response(
                {"events": events, "last_event_id": last, "done": last == LOG[-1][0]}
            )
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for event_id, kind, fields in rest:
            if accept == "text/event-stream":
                block = f"id: {event_id}\nevent: {kind}\ndata: {json.dumps(fields)}\n\n"
            else:
                block = json.dumps({"id": event_id, "type": kind, **fields}) + "\n\n"
            await response.write(block.encode())
        if rest[-1][0] != LOG[-1][0] and not self.is_clean:
            request.transport.close()
        return response

    async def socket(self, request):
        ws = web.WebSocketResponse(protocols=["tailrace.v1"])
        await ws.prepare(request)
        frame = await ws.receive_json()
        cursor = frame.get("last_event_id", "0-0")
        for event_id, kind, fields in LOG[int(cursor.split("-")[1]) :][: self.break_after]:
            event = {"type": kind, "id": frame["id"], "event_id": event_id, **fields}
            await ws.send_json(event)
        await ws.close(code=1000 if self.is_clean else 4008)
        return ws


@pytest.fixture
async def node():
    node = Node()
    app = web.Application()
    app.router.add_get("/v1/generations/{id}/events", node.events)
    app.router.add_get("/v1/ws", node.socket)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    node.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield node
    await runner.cleanup()


def violations(reading):
    history = History()
    record = history.accepted("g", at=reading.steps[0].at, expected_text="t2 t3 t4 t5 t6 t7 t8 ")
    record.readings.append(reading)
    record.log = [Delivery(i, t, f) for i, t, f in LOG]
    return history.check(bound_s=10)


def closes(reading):
    return [step.how for step in reading.steps if isinstance(step, Closed)]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_it_reads_to_the_end_over_each_transport(node, transport):
    reader = CarefulReader(Reading("r"), [node.url], transports=[transport])

    reading = await reader.run("g", deadline_s=5)

    assert violations(reading) == []
    assert reader.faults == []
    assert len(closes(reading)) == 1


@pytest.mark.parametrize("transport", ["sse", "ndjson", "ws"])
async def test_it_resumes_after_each_break(node, transport):
    node.break_after = 2
    reader = CarefulReader(Reading("r"), [node.url], transports=[transport])

    reading = await reader.run("g", deadline_s=5)

    assert violations(reading) == []
    how = "code 4008" if transport == "ws" else "broken"
    assert closes(reading)[:4] == [how] * 4


@pytest.mark.parametrize("transport", ["sse", "ndjson", "ws"])
async def test_a_silent_end_is_a_violation(node, transport):
    node.break_after, node.is_clean = 2, True
    reader = CarefulReader(Reading("r"), [node.url], transports=[transport])

    reading = await reader.run("g", deadline_s=5)

    assert any("silent end" in problem for problem in violations(reading))


async def test_it_hops_over_all_transports_of_its_own_will(node):
    reader = CarefulReader(Reading("r"), [node.url], transports=TRANSPORTS, hop_after=2)

    reading = await reader.run("g", deadline_s=5)

    assert violations(reading) == []
    assert {s.transport for s in reading.steps if isinstance(s, Opened)} == set(TRANSPORTS)


async def test_a_node_that_is_gone_is_refused_and_the_next_one_serves(node):
    reader = CarefulReader(Reading("r"), ["http://127.0.0.1:1", node.url])

    reading = await reader.run("g", deadline_s=5)

    assert closes(reading) == ["refused", "clean"]
    assert violations(reading) == []


async def test_no_end_by_the_deadline_is_a_violation():
    reader = CarefulReader(Reading("r"), ["http://127.0.0.1:1"])

    reading = await asyncio.wait_for(reader.run("g", deadline_s=0.2), 5)

    assert closes(reading)[-1] == "deadline"
    assert any("no end" in problem for problem in violations(reading))
