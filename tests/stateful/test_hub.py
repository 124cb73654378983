"""The whole hub under any order of events, with many readers on all transports.

The events are: appends, rollbacks and restored tails in Redis; lost frames, a lost live connection;
Redis away; readers that join anywhere, stop reading, continue, leave and resume with their cursor;
no memory for copies. After any order: the ids of each reader rise without a gap, except after a
reset with the id 0-0; every event that a reader got was in some state of the log; and at the end a
reader has the events of the log, with `end` last.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from api.dialects.native.events import stream_events
from shared.log.ids import START, EventId
from tests.support.hub_harness import END, GENERATION, Client, HubHarness, make_scope, settle

OPERATIONS = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 3)),
    st.tuples(st.just("append"), st.integers(1, 3)),
    st.tuples(st.just("roll_back"), st.integers(1, 4)),
    st.tuples(st.just("lose_and_heal"), st.integers(1, 4)),
    st.tuples(st.sampled_from(["deafen", "hear", "cut_live", "away", "back"]), st.just(0)),
    st.tuples(st.just("join"), st.integers(0, 12)),
    st.tuples(st.sampled_from(["block", "unblock", "come_back"]), st.integers(0, 9)),
    st.tuples(st.just("pass_time"), st.sampled_from([0.25, 1.25, 3.0])),
)


class Reader:
    """A reader that resumes with its cursor until it has the end."""

    def __init__(self, hub_harness: HubHarness, cursor: EventId) -> None:
        self.hub_harness = hub_harness
        self.cursor = cursor
        self.began = cursor
        self.events: list[dict[str, Any]] = []
        self.client = Client()
        self.task: asyncio.Task[None] | None = None
        self.open()

    def open(self) -> None:
        self.client = Client()
        self.task = asyncio.create_task(
            stream_events(
                self.hub_harness.hub,
                make_scope(self.client),
                self.client.receive,
                self.client.send,  # type: ignore[arg-type]
                meta=self.hub_harness.log.known[GENERATION],
                cursor=self.cursor,
                transport="ndjson",
            )
        )

    def take(self) -> None:
        """Collect the received events; an incomplete line is no event."""
        lines = self.client.body.split(b"\n")[:-1]
        self.client.messages = [m for m in self.client.messages if not m.get("body")]
        for line in filter(None, lines):
            event = json.loads(line)
            self.events.append(event)
            self.cursor = EventId(*map(int, event["id"].split("-")))

    async def come_back(self) -> None:
        self.client.unblock()
        self.client.leave()
        assert self.task is not None
        await asyncio.wait([self.task])
        self.take()
        if not self.client.is_finished:
            self.open()


async def backend_script(operations: list[tuple[str, Any]], hub_bytes_max: int) -> None:
    async with HubHarness(hub_bytes_max=hub_bytes_max) as hub_harness:
        log = hub_harness.log
        log.create()
        readers = [Reader(hub_harness, START)]
        given: dict[str, bytes] = {}
        number = 0
        for name, count in operations:
            here = log.logs.setdefault(GENERATION, [])
            if name == "append":
                number += count
                log.tokens(*(f"{number}.{n} " for n in range(count)))
                given |= {str(event_id): raw for event_id, raw in here}
            elif name == "roll_back":
                log.roll_back(min(count, len(here)))
            elif name == "lose_and_heal" and here:
                tail = here[-count:]
                del here[-count:]
                await hub_harness.pass_time(1.25)
                here.extend(tail)
                log.say(b"top %b" % str(here[-1][0]).encode())
            elif name in ("deafen", "hear"):
                log.is_deaf = name == "deafen"
            elif name in ("away", "back"):
                log.is_away = name == "away"
            elif name == "cut_live":
                hub_harness.live.lose()
                hub_harness.live.reconnect()
            elif name == "join" and len(readers) < 6:
                cursor = here[count % len(here)][0] if here and count else START
                readers.append(Reader(hub_harness, cursor))
            elif name == "block":
                readers[count % len(readers)].client.block()
            elif name == "unblock":
                readers[count % len(readers)].client.unblock()
            elif name == "come_back":
                await readers[count % len(readers)].come_back()
            elif name == "pass_time":
                await hub_harness.pass_time(count)
            await settle(5)
        await finish(hub_harness, readers)
        for reader in readers:
            check(reader, log.logs[GENERATION], given)


async def finish(hub_harness: HubHarness, readers: list[Reader]) -> None:
    """End all faults, write the `end`, and let every reader read up to it."""
    hub_harness.log.is_away = hub_harness.log.is_deaf = False
    hub_harness.log.append(END)
    for reader in readers:
        reader.client.unblock()
    for _ in range(40):
        await hub_harness.pass_time(1.0)
        for reader in readers:
            if reader.task is not None and reader.task.done() and not reader.client.is_finished:
                await reader.come_back()
        if all(reader.client.is_finished for reader in readers):
            break
        await asyncio.sleep(0.05)  # the hub retries a failed read after a real pause
    for reader in readers:
        reader.take()
        assert reader.client.is_finished, "every reader gets its end"


def check(reader: Reader, log: list[Any], given: dict[str, bytes]) -> None:
    before, since_reset = reader.began, []
    for event in reader.events:
        event_id = EventId(*map(int, event["id"].split("-")))
        if event_id == START:
            assert event["type"] == "reset"
            before, since_reset = START, []
            continue
        assert event_id > before
        assert event_id.seq == before.seq + 1
        assert event["type"] == "end" or json.loads(given[event["id"]])["text"] == event["text"]
        before = event_id
        since_reset.append((event_id, event["type"]))
    was_reset = any(event["id"] == "0-0" for event in reader.events)
    first = 0 if was_reset else reader.began.seq
    assert since_reset == [(i, json.loads(raw)["type"]) for i, raw in log[first:]]
    assert reader.events[-1]["type"] == "end"


@settings(max_examples=60, deadline=None)
@given(st.lists(OPERATIONS, max_size=25), st.sampled_from([500, 1_000_000]))
async def test_every_reader_gets_the_log_under_any_order_of_events(
    operations: list[tuple[str, Any]], hub_bytes_max: int
) -> None:
    await backend_script(operations, hub_bytes_max)
