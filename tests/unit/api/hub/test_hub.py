"""The hub on its bench: joins, repairs, resets, limits. Each test says what a reader sees."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from api.dialects.native.events import events, stream_events
from api.hub import relay as relay_module
from shared.errors import Expired, NotFound, RequestError, Unavailable
from shared.log.events import Start
from shared.log.ids import START, EventId
from tests.support.bench import END, GENERATION, Bench, Client, make_meta, make_scope, settle


@pytest.fixture(autouse=True)
def requeue_through_the_fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store here is a fake, which notes the call."""
    monkeypatch.setattr("api.hub.upkeep.requeue", lambda store, *args: store.requeue(*args))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with Bench() as bench:
        yield bench


class Reading:
    """One reader under way."""

    def __init__(self, bench: Bench, client: Client, task: asyncio.Task[None]) -> None:
        self.bench, self.client, self.task = bench, client, task

    @property
    def frames(self) -> list[tuple[str, str]]:
        return sse(self.client.body)

    @property
    def ids(self) -> list[str]:
        return [event_id for event_id, _ in self.frames]


def sse(body: bytes) -> list[tuple[str, str]]:
    """Return (id, event) of each block."""
    text = body.decode()
    return re.findall(r"^id: (\S+)\nevent: (\S+)\ndata: ", text, re.MULTILINE)


async def read(
    bench: Bench, cursor: EventId = START, *, transport: str = "sse", **scope: Any
) -> Reading:
    client = Client()
    meta = await bench.log.meta(GENERATION)
    assert meta is not None
    task = asyncio.create_task(
        stream_events(
            bench.hub,
            make_scope(client, **scope),
            client.receive,
            client.send,  # type: ignore[arg-type]
            meta=meta,
            cursor=cursor,
            transport=transport,
        )
    )
    await settle()
    return Reading(bench, client, task)


async def stop(reading: Reading) -> None:
    reading.client.leave()
    await reading.task


async def test_a_live_answer_arrives_event_by_event_and_ends_properly(bench: Bench) -> None:
    bench.log.create()
    reading = await read(bench)
    assert reading.client.status == 200
    assert reading.client.body == b""

    bench.log.append(Start(attempt=1, model="demo"))
    bench.log.tokens("Hel", "lo")
    await settle()
    assert reading.ids == ["1-1", "1-2", "1-3"]
    assert not reading.client.is_finished

    bench.log.append(END)
    await reading.task
    assert reading.frames[-1] == ("1-4", "end")
    assert reading.client.is_finished
    assert bench.live.channels == {b"tr:probe:n1"}


async def test_every_byte_of_the_sse_form(bench: Bench) -> None:
    bench.log.create()
    reading = await read(bench)
    bench.log.tokens(' "Hé"\n')
    bench.log.append(END)
    await reading.task

    body = re.sub(rb"^retry: \d+\n", b"", reading.client.body)
    assert (
        body
        == (
            'id: 1-1\nevent: token\ndata: {"text":" \\"Hé\\"\\n"}\n\n'
            'id: 1-2\nevent: end\ndata: {"status":"completed","finish_reason":"stop"}\n\n'
        ).encode()
    )
    assert reading.client.headers == {
        b"content-type": b"text/event-stream; charset=utf-8",
        b"cache-control": b"no-store, no-transform",
        b"x-accel-buffering": b"no",
    }


async def test_a_reader_may_join_at_every_position_and_gets_the_same_bytes(bench: Bench) -> None:
    bench.log.create()
    first = await read(bench)
    readings = [await read(bench)]
    ids = [START]
    for n in range(30):
        ids += bench.log.tokens(*(f"{n}.{k} " for k in range(n % 3 + 1)))
        readings.append(await read(bench))
        readings.append(await read(bench, random.choice(ids)))
    bench.log.append(END)
    await asyncio.gather(first.task, *(reading.task for reading in readings))

    whole = first.client.body.partition(b"\n")[2]
    for reading in readings:
        body = reading.client.body.partition(b"\n")[2]
        assert whole.endswith(body)
        assert reading.ids == first.ids[-len(reading.ids) :]
    assert readings[0].client.body.partition(b"\n")[2] == whole


async def test_two_nodes_give_the_same_bytes(bench: Bench) -> None:
    bench.log.create()
    live = await read(bench, transport="ndjson")
    bench.log.append(Start(attempt=1, model="demo"))
    bench.log.tokens("a", "b")
    bench.log.append(END)
    await live.task
    async with Bench() as other:
        other.log.logs, other.log.known = bench.log.logs, bench.log.known
        late = await read(other, transport="ndjson")
        await late.task

    assert late.client.body == live.client.body
    assert [json.loads(line)["id"] for line in late.client.body.splitlines()] == [
        "1-1", "1-2", "1-3", "1-4",
    ]  # fmt: skip


async def test_what_is_published_between_page_and_subscription_is_not_lost(bench: Bench) -> None:
    bench.log.create()
    bench.log.tokens("a")
    bench.log.pages_held = asyncio.Event()
    reading = await read(bench)
    bench.log.tokens("b")  # arrives live while the page is on its way
    await settle()
    bench.log.pages_held.set()
    await settle()

    assert reading.ids == ["1-1", "1-2"]
    await stop(reading)


async def test_a_gap_is_repaired_once_for_all_readers(bench: Bench) -> None:
    bench.log.create()
    readings = [await read(bench) for _ in range(20)]
    bench.log.tokens("a")
    await settle()
    pages = bench.log.count("page")
    bench.log.is_deaf = True
    bench.log.tokens("lost")
    bench.log.is_deaf = False
    bench.log.tokens("c")
    await settle()

    assert all(reading.ids == ["1-1", "1-2", "1-3"] for reading in readings)
    assert bench.log.count("page") == pages + 1
    assert bench.hub.statistics().repairs >= 1
    for reading in readings:
        await stop(reading)


async def test_a_lost_last_frame_is_found_within_two_seconds(bench: Bench) -> None:
    bench.log.create()
    reading = await read(bench)
    bench.log.is_deaf = True
    bench.log.append(END)
    await settle()
    assert reading.ids == []

    await bench.pass_time(2.0)
    assert reading.ids == ["1-1"]
    assert reading.task.done()


async def test_silent_logs_are_compared_in_one_call(bench: Bench) -> None:
    bench.log.create()
    bench.log.create("gen_other00000")
    reading = await read(bench)
    async with bench.hub.reading(bench.log.known["gen_other00000"]):
        await bench.pass_time(1.25)
        calls = [what for name, what in bench.log.calls if name == "tops"]

    assert sorted(calls[-1].split(",")) == [GENERATION, "gen_other00000"]
    await stop(reading)


async def test_a_reconnect_reads_what_was_missed(bench: Bench) -> None:
    bench.log.create()
    reading = await read(bench)
    bench.log.tokens("a")
    bench.live.lose()
    bench.log.tokens("b")
    bench.live.reconnect()
    await settle()

    assert reading.ids == ["1-1", "1-2"]
    await stop(reading)


async def test_a_log_is_read_although_its_channel_is_never_confirmed(bench: Bench) -> None:
    bench.live.confirms = False
    bench.log.create()
    bench.log.tokens("a")
    reading = await read(bench)
    assert reading.ids == []

    await bench.pass_time(2.5)
    bench.log.is_deaf = True
    bench.log.tokens("b")
    await bench.pass_time(2.5)
    assert reading.ids == ["1-1", "1-2"]
    await stop(reading)


# Rewrites


async def test_a_rollback_under_a_reader_is_a_reset_and_everything(bench: Bench) -> None:
    bench.log.create()
    reading = await read(bench)
    bench.log.tokens("a", "b", "c")
    await settle()
    bench.log.roll_back(2)
    bench.log.tokens("B", "C", "D")
    await settle()
    bench.log.append(END)
    await bench.pass_time(3)

    assert reading.frames == [
        ("1-1", "token"), ("1-2", "token"), ("1-3", "token"),
        ("0-0", "reset"),
        ("1-1", "token"), ("2-2", "token"), ("2-3", "token"), ("2-4", "token"), ("2-5", "end"),
    ]  # fmt: skip
    assert b'id: 0-0\nevent: reset\ndata: {"reason":"log_rewritten"}\n\n' in reading.client.body
    assert bench.hub.statistics().resets == 1


async def test_a_reader_whose_cursor_is_in_the_new_log_goes_on(bench: Bench) -> None:
    bench.log.create()
    bench.log.tokens("a")
    fast, slow = await read(bench), await read(bench)
    slow.client.block()
    bench.log.tokens("b", "c")  # slow has the first of it under way
    await settle()
    bench.log.tokens("d")
    await settle()
    bench.log.roll_back(1)
    bench.log.tokens("D", "E")
    await settle()
    slow.client.unblock()
    await bench.pass_time(3)

    assert slow.ids == ["1-1", "1-2", "1-3", "2-4", "2-5"]
    assert fast.ids == ["1-1", "1-2", "1-3", "1-4", "0-0", "1-1", "1-2", "1-3", "2-4", "2-5"]
    await stop(fast)
    await stop(slow)


async def test_a_lost_tail_that_is_written_again_costs_no_reset(bench: Bench) -> None:
    bench.log.create()
    reading = await read(bench)
    bench.log.tokens("a", "b", "c")
    await settle()
    tail = bench.log.logs[GENERATION][1:]
    del bench.log.logs[GENERATION][1:]
    await bench.pass_time(1.5)  # noticed
    bench.log.logs[GENERATION] += tail
    bench.log.say(b"top 1-3")
    await settle()
    bench.log.tokens("d")
    await bench.pass_time(3)

    assert reading.ids == ["1-1", "1-2", "1-3", "1-4"]
    await stop(reading)


async def test_a_cursor_beyond_the_top_waits_two_seconds_for_its_entry(bench: Bench) -> None:
    bench.log.create()
    bench.log.tokens("a")
    reading = await read(bench, EventId(1, 2))
    assert reading.client.status == 200
    await bench.pass_time(1)
    bench.log.is_deaf = True
    bench.log.tokens("b", "c")
    await bench.pass_time(1.5)
    assert reading.ids == ["1-3"]
    await stop(reading)


async def test_a_cursor_that_never_existed_is_a_reset(bench: Bench) -> None:
    bench.log.create()
    bench.log.tokens("a")
    reading = await read(bench, EventId(7, 9))
    await bench.pass_time(1.5)
    assert reading.ids == []

    await bench.pass_time(1)
    assert reading.ids == ["0-0", "1-1"]
    await stop(reading)


async def test_a_cursor_of_another_history_makes_the_node_look_again_before_it_resets(
    bench: Bench,
) -> None:
    """This node missed the rollback; the reader comes from one that did not."""
    bench.log.create()
    first = await read(bench)
    bench.log.tokens("a", "b")
    await settle()
    bench.log.is_deaf = True
    bench.log.roll_back(1)
    bench.log.tokens("B", "C")
    reading = await read(bench, EventId(2, 2))
    await settle()

    assert reading.ids == ["2-3"]
    await stop(reading)
    await stop(first)


async def test_a_cursor_that_is_not_in_an_ended_log_is_a_reset_at_once(bench: Bench) -> None:
    bench.log.create()
    bench.log.tokens("a")
    bench.log.append(END)
    reading = await read(bench, EventId(1, 9))
    await reading.task
    assert reading.ids == ["0-0", "1-1", "1-2"]
    assert reading.client.is_finished


# Ends


async def test_the_last_event_as_cursor_is_answered_204(bench: Bench) -> None:
    bench.log.create()
    bench.log.append(END)
    for transport in ("sse", "ndjson"):
        reading = await read(bench, EventId(1, 1), transport=transport)
        await reading.task
        assert reading.client.status == 204
        assert reading.client.body == b""


async def test_head_has_the_headers_and_no_body(bench: Bench) -> None:
    bench.log.create()
    reading = await read(bench, method="HEAD")
    await reading.task
    assert (reading.client.status, reading.client.body) == (200, b"")
    assert reading.client.is_finished


async def test_an_expired_log_is_410(bench: Bench) -> None:
    meta = bench.log.create(status="completed", end=b'{"type":"end"}', ended_at_ms=5)
    with pytest.raises(Expired):
        async with bench.hub.reading(meta):
            pass


async def test_a_kept_copy_is_not_served_past_its_retention(bench: Bench) -> None:
    bench.log.create()
    bench.log.append(END)
    reading = await read(bench)
    await reading.task
    bench.log.now_ms += 3_600_001
    del bench.log.logs[GENERATION]
    with pytest.raises(Expired):
        async with bench.hub.reading(bench.log.known[GENERATION]):
            pass


async def test_a_copy_with_another_end_is_read_anew(bench: Bench) -> None:
    """Redis lost the end after this node had it, and the generation ended otherwise."""
    bench.log.create()
    bench.log.tokens("a")
    first = await read(bench)
    bench.log.append(END)
    await first.task
    bench.log.roll_back(1)
    bench.log.tokens("other")
    bench.log.append(b'{"type":"end","status":"cancelled","finish_reason":"cancelled"}')
    second = await read(bench)
    await second.task
    assert second.ids == ["1-1", "2-2", "2-3"]


async def test_a_request_that_was_read_is_kept_and_counted(bench: Bench) -> None:
    """A dialect that says it back may begin its fold after a reader who did not need it."""
    whole = bench.log.create(request=b"x" * 1_000)
    async with bench.hub.reading(whole) as relay:
        before = relay.bytes_kept
        async with bench.hub.reading(replace(whole, request=b"", attempt=7)):
            assert (relay.meta.request, relay.meta.attempt) == (whole.request, 7)
        assert relay.bytes_kept == before >= 1_000


async def test_a_sealed_generation_is_not_found(bench: Bench) -> None:
    with pytest.raises(NotFound):
        async with bench.hub.reading(bench.log.create(status="sealed")):
            pass


async def test_a_lost_generation_is_sealed_after_ten_seconds_and_ends(bench: Bench) -> None:
    bench.log.create()
    bench.log.tokens("a")
    reading = await read(bench)
    bench.log.lose()
    await bench.pass_time(9)
    assert reading.ids == ["1-1"]
    assert bench.log.count("seal") == 0

    await bench.pass_time(4)
    assert bench.log.count("seal") == 1
    assert reading.frames == [("1-1", "token"), ("0-0", "end")]
    assert b'"code":"lost"' in reading.client.body
    assert reading.client.is_finished
    with pytest.raises(NotFound):
        async with bench.hub.reading(bench.log.known[GENERATION]):
            pass


async def test_absence_counts_only_while_redis_answers(bench: Bench) -> None:
    bench.log.create()
    reading = await read(bench)
    bench.log.lose()
    await bench.pass_time(3)
    bench.log.is_away = True
    await bench.pass_time(30)
    bench.log.is_away = False
    await bench.pass_time(2)
    assert bench.log.count("seal") == 0

    await bench.pass_time(12)
    assert bench.log.count("seal") == 1
    await reading.task


async def test_a_generation_that_comes_back_goes_on_without_a_reset(bench: Bench) -> None:
    bench.log.create()
    bench.log.tokens("a", "b")
    reading = await read(bench)
    log = bench.log.logs[GENERATION]
    bench.log.lose()
    bench.live.lose()
    bench.live.reconnect()  # makes the node read the log that is not there
    await bench.pass_time(6)
    bench.log.create()
    bench.log.logs[GENERATION] = log
    bench.log.tokens("c")
    await bench.pass_time(3)

    assert reading.ids == ["1-1", "1-2", "1-3"]
    await stop(reading)


async def test_a_log_that_expires_before_its_end_was_read_breaks_off(bench: Bench) -> None:
    bench.log.create()
    bench.log.tokens("a")
    reading = await read(bench)
    bench.log.is_deaf = True
    bench.log.append(END)
    del bench.log.logs[GENERATION]
    await bench.pass_time(2)

    assert reading.client.was_aborted
    assert not reading.client.is_finished


async def test_a_forgotten_generation_is_queued_again(bench: Bench) -> None:
    bench.log.create(lease_ms=bench.log.now_ms)
    reading = await read(bench)
    await bench.pass_time(5)
    assert bench.log.count("requeue") == 0
    await bench.pass_time(4)
    assert bench.log.count("requeue") == 1
    await bench.pass_time(20)
    assert bench.log.count("requeue") == 1
    await stop(reading)


# Slow readers


async def test_a_blocked_reader_holds_nobody_and_catches_up(bench: Bench) -> None:
    bench.log.create()
    slow, fast = await read(bench), await read(bench)
    slow.client.block()
    for n in range(100):
        bench.log.tokens(f"{n} ")
        await settle(3)
    assert len(fast.ids) == 100
    assert slow.ids == []

    slow.client.unblock()
    await settle()
    assert slow.ids == fast.ids
    assert len(slow.client.messages) < 6  # caught up in one slice, not token by token
    await stop(slow)
    await stop(fast)


async def test_a_reader_that_stops_is_cut_by_bytes(bench: Bench) -> None:
    bench.log.create()
    slow, other = await read(bench), await read(bench)
    slow.client.block()
    bench.log.tokens("x" * 700_000)
    await bench.pass_time(3)
    assert not slow.task.done()  # below the limit

    bench.log.tokens("x" * 700_000)
    await bench.pass_time(0.5)
    assert slow.client.was_aborted
    await slow.task
    assert not slow.client.is_finished
    assert bench.hub.statistics().cuts == 1
    assert len(other.ids) == 2
    await stop(other)


async def test_a_reader_whose_buffer_shrinks_is_not_slow(bench: Bench) -> None:
    bench.log.create()
    reading = await read(bench)
    reading.client.buffer_bytes = 3_000_000
    reading.client.block()
    bench.log.tokens("x")
    await settle()
    for _ in range(40):
        reading.client.buffer_bytes -= 1_000
        await bench.pass_time(0.5)
    assert not reading.task.done()

    await bench.pass_time(1.5)
    await reading.task
    assert reading.client.was_aborted


async def test_a_reader_that_stops_is_cut_by_age(bench: Bench) -> None:
    bench.log.create()
    reading = await read(bench)
    reading.client.block()
    bench.log.tokens("x")
    await bench.pass_time(59)
    assert not reading.task.done()
    await bench.pass_time(2)
    await reading.task
    assert reading.client.was_aborted


async def test_without_the_transport_a_break_off_is_raised_to_the_server(bench: Bench) -> None:
    bench.log.create()
    reading = await read(bench, with_transport=False)
    await bench.hub.drain(0)
    with pytest.raises(ConnectionAbortedError):
        await reading.task
    assert not reading.client.is_finished


async def test_a_send_that_raises_ends_its_reader_only(bench: Bench) -> None:
    bench.log.create()
    bad, good = await read(bench), await read(bench)

    def refuse(_: object) -> None:
        raise OSError("gone")

    bad.client.on_send = refuse
    bench.log.tokens("a")
    await settle()
    assert good.ids == ["1-1"]
    assert bad.task.done()
    await stop(good)


async def test_a_reader_that_leaves_is_forgotten(bench: Bench) -> None:
    bench.log.create()
    reading = await read(bench)
    assert bench.hub.statistics().connections == {"sse": 1}
    await stop(reading)
    assert bench.hub.statistics().connections == {}
    assert not bench.hub.relays[GENERATION].readers


# Time


async def test_heartbeats_come_only_into_silence(bench: Bench) -> None:
    bench.log.create()
    reading = await read(bench)
    await bench.pass_time(14)
    assert reading.client.body == b""
    bench.log.tokens("a")
    await bench.pass_time(14)
    assert b": ping\n" not in reading.client.body
    await bench.pass_time(2)
    assert reading.client.body.endswith(b"\n\n: ping\n")
    await bench.pass_time(15)
    assert reading.client.body.endswith(b": ping\n: ping\n")
    await stop(reading)


async def test_the_heartbeat_of_ndjson_is_an_empty_line(bench: Bench) -> None:
    bench.log.create()
    reading = await read(bench, transport="ndjson")
    await bench.pass_time(15.5)
    assert reading.client.body == b"\n"
    await stop(reading)


async def test_connections_are_rotated_at_an_age_of_their_own() -> None:
    """Those who came together, after a deploy say, do not go together."""
    async with Bench(connection_age_s=1_000.0, heartbeat_s=2.0) as bench:
        bench.log.create()
        readings = [await read(bench) for _ in range(40)]
        began, left = bench.clock.s, list[float]()
        while len(left) < len(readings) and bench.clock.s < began + 1_100:
            await bench.pass_time(2, step_s=2)
            gone = [reading for reading in readings if reading.client.was_aborted]
            left += [bench.clock.s - began] * (len(gone) - len(left))

        assert len(left) == len(readings)
        assert 800 <= left[0] and left[-1] <= 1_004
        assert left[-1] - left[0] > 100, "forty of them, spread over two hundred seconds"
        assert bench.hub.statistics().rotations == 40
        assert not any(reading.client.is_finished for reading in readings)
        for reading in readings:
            await stop(reading)


async def test_a_copy_lingers_for_a_fast_resume_and_then_goes(bench: Bench) -> None:
    bench.log.create()
    bench.log.tokens("a")
    await stop(await read(bench))
    pages = bench.log.count("page")
    await bench.pass_time(8)
    again = await read(bench, EventId(1, 1))
    bench.log.tokens("b")
    await settle()
    assert again.ids == ["1-2"]
    assert bench.log.count("page") == pages
    await stop(again)

    await bench.pass_time(12)
    assert bench.hub.relays == {}
    assert bench.live.channels == {b"tr:probe:n1"}


async def test_ended_copies_go_when_the_room_is_needed() -> None:
    async with Bench(hub_bytes_max=50_000) as bench:
        for n in range(5):
            name = f"gen_00000000{n}"
            meta = bench.log.create(name)
            bench.log.tokens("x" * 20_000, generation_id=name)
            bench.log.append(END, generation_id=name)
            meta = bench.log.known[name]
            async with bench.hub.reading(meta):
                pass
            bench.clock.s += 1
        await bench.pass_time(1.25)

        assert list(bench.hub.relays) == ["gen_000000003", "gen_000000004"]
        assert bench.hub.statistics().bytes_kept <= 50_000


# Redis away, drain, probe


async def test_readers_stay_and_new_ones_join_a_known_log_while_redis_is_away(
    bench: Bench,
) -> None:
    bench.log.create()
    bench.log.tokens("a")
    reading = await read(bench)
    bench.log.is_away = True
    late = Client()
    task = asyncio.create_task(get(bench, late))
    await bench.pass_time(16)
    assert sse(late.body) == [("1-1", "token")]
    assert late.body.endswith(b": ping\n")

    bench.log.is_away = False
    bench.log.append(END)
    await task
    await reading.task
    assert reading.ids == ["1-1", "1-2"]


async def get(bench: Bench, client: Client, **scope: Any) -> None:
    await events(
        make_scope(client, **scope),
        client.receive,
        client.send,  # type: ignore[arg-type]
        hub=bench.hub,
        store=bench.log,  # type: ignore[arg-type]
        owner="anonymous",
        generation_id=GENERATION,
    )


async def test_an_unknown_log_is_503_while_redis_is_away(bench: Bench) -> None:
    bench.log.create()
    bench.log.is_away = True
    with pytest.raises(RequestError) as caught:
        await get(bench, Client())
    assert (caught.value.status, caught.value.retry_after_s) == (503, 1)


@pytest.mark.parametrize("trouble", ["away", "draining"])
async def test_an_event_source_that_comes_back_is_sent_away_with_200(
    bench: Bench, trouble: str
) -> None:
    bench.log.create()
    bench.log.is_away = trouble == "away"
    bench.hub.is_draining = trouble == "draining"
    client = Client()
    await get(bench, client, headers={"Last-Event-ID": "1-4", "Accept": "text/event-stream"})

    assert client.status == 200
    assert re.fullmatch(rb"retry: \d+\n\n", client.body)
    assert client.was_aborted
    assert not client.is_finished


async def test_a_drain_breaks_every_reader_off_and_takes_no_more(bench: Bench) -> None:
    bench.log.create()
    readings = [await read(bench) for _ in range(5)]
    await bench.hub.drain(0.01)

    for reading in readings:
        await reading.task
        assert reading.client.was_aborted
        assert not reading.client.is_finished
    with pytest.raises(RequestError) as caught:
        await get(bench, Client())
    assert caught.value.code == "draining"


async def test_the_node_is_live_once_its_probe_was_heard(bench: Bench) -> None:
    assert not bench.hub.is_live
    await bench.pass_time(0.5)
    assert bench.hub.is_live


async def test_a_deaf_connection_is_dropped(bench: Bench) -> None:
    await bench.pass_time(0.5)
    bench.log.is_deaf = True
    await bench.pass_time(8)
    assert not bench.hub.is_live
    assert bench.live.drops == 1
    assert bench.hub.statistics().probes_lost == 1

    bench.log.is_deaf = False
    bench.live.reconnect()
    await bench.pass_time(0.5)
    assert bench.hub.is_live


async def test_with_redis_away_the_connection_is_not_live_but_kept(bench: Bench) -> None:
    await bench.pass_time(0.5)
    bench.log.is_away = True
    await bench.pass_time(8)
    assert not bench.hub.is_live
    assert bench.live.drops == 0


# Grace


async def test_readers_are_counted_before_the_first_byte_and_until_the_last_leaves(
    bench: Bench,
) -> None:
    bench.log.create(grace_s=5.0)
    one = await read(bench)
    assert bench.log.count("attach") == 1
    two = await read(bench)
    assert bench.log.count("attach") == 1
    await bench.pass_time(7)
    assert bench.log.count("attach") == 3
    await stop(one)
    await settle()
    assert bench.log.count("detach") == 0

    await stop(two)
    await settle()
    assert bench.log.count("detach") == 1
    await bench.pass_time(7)
    assert bench.log.count("attach") == 3


async def test_a_reader_who_comes_too_late_reads_the_end(bench: Bench) -> None:
    bench.log.create(grace_s=0.0)
    meta = bench.log.known[GENERATION]
    bench.log.append(END)
    bench.log.calls.clear()
    client = Client()
    await stream_events(
        bench.hub,
        make_scope(client),
        client.receive,
        client.send,  # type: ignore[arg-type]
        meta=meta,  # as it was before
        cursor=START,
        transport="sse",
    )
    assert sse(client.body) == [("1-1", "end")]
    assert client.is_finished


async def test_a_drained_node_says_that_its_readers_have_gone(bench: Bench) -> None:
    bench.log.create(grace_s=5.0)
    reading = await read(bench)
    await bench.hub.drain(0)
    await reading.task
    await settle()
    assert bench.log.count("detach") == 1


async def test_with_redis_away_a_grace_cannot_be_promised(bench: Bench) -> None:
    meta = bench.log.create(grace_s=5.0)
    bench.log.is_away = True
    with pytest.raises(Unavailable):
        async with bench.hub.reading(meta):
            pass


# Room


@pytest.mark.parametrize("transport", ["sse", "ndjson"])
async def test_what_all_readers_have_behind_them_goes_and_is_read_again(transport: str) -> None:
    async with Bench(hub_bytes_max=20_000) as bench:
        bench.log.create()
        first = await read(bench, transport=transport)
        for n in range(100):
            bench.log.tokens(f"{n} " + "x" * 400)
        await settle()
        await bench.pass_time(1.25)
        assert bench.hub.statistics().bytes_kept < 20_000
        bench.log.tokens("tip")
        await settle()

        pages = bench.log.count("page")
        late = [await read(bench, transport=transport) for _ in range(10)]
        await settle(200)
        assert bench.log.count("page") - pages < 10  # read once for all
        bench.log.append(END)
        await asyncio.gather(first.task, *(reading.task for reading in late))

        bodies = {re.sub(rb"^retry: \d+\n", b"", r.client.body) for r in [first, *late]}
        assert len(bodies) == 1
        assert first.client.body.count(b"xxx") > 100


async def test_a_rewrite_while_a_trimmed_head_is_read_again_is_a_reset() -> None:
    async with Bench(hub_bytes_max=1_000) as bench:
        bench.log.create()
        first = await read(bench)
        bench.log.tokens(*("x" * 100 for _ in range(20)))
        await settle()
        await bench.pass_time(1.25)
        assert bench.hub.relays[GENERATION].feed.base > 0
        bench.log.pages_held = asyncio.Event()
        late = await read(bench)
        bench.log.roll_back(20)
        bench.log.tokens("B", "C")
        bench.log.pages_held.set()
        await bench.pass_time(4)
        bench.log.append(END)
        await asyncio.gather(first.task, late.task)

        assert first.ids[-4:] == ["0-0", "2-1", "2-2", "2-3"]
        assert late.ids[-3:] == ["2-1", "2-2", "2-3"]


# A log that is about to be created here


async def expect(bench: Bench) -> None:
    bench.hub.expect(make_meta(status="queued"))
    await settle()
    bench.log.create()


async def test_an_expected_log_is_not_read(bench: Bench) -> None:
    await expect(bench)
    reading = await read(bench)
    bench.log.append(Start(attempt=1, model="demo"))
    await settle()
    bench.log.tokens("a")
    bench.log.append(END)
    await reading.task

    assert reading.ids == ["1-1", "1-2", "1-3"]
    assert bench.log.count("page") == 0
    assert bench.live.channels == {b"tr:probe:n1"}


async def test_an_expected_log_is_not_read_when_its_channel_is_confirmed_late(bench: Bench) -> None:
    bench.live.confirms = False
    await expect(bench)
    reading = await read(bench)
    bench.live.reconnect()
    bench.log.append(Start(attempt=1, model="demo"))
    await settle()

    assert reading.ids == ["1-1"]
    assert bench.log.count("page") == 0
    await stop(reading)


async def test_what_comes_before_the_reader_is_kept_for_it(bench: Bench) -> None:
    await expect(bench)
    bench.log.append(Start(attempt=1, model="demo"))
    bench.log.tokens("a")
    reading = await read(bench)

    assert reading.ids == ["1-1", "1-2"]
    assert bench.log.count("page") == 0
    await stop(reading)


async def test_an_expected_log_whose_first_frame_was_missed_is_read(bench: Bench) -> None:
    await expect(bench)
    bench.log.is_deaf = True
    bench.log.append(Start(attempt=1, model="demo"))
    bench.log.is_deaf = False
    reading = await read(bench)
    bench.log.tokens("a")
    await settle()

    assert reading.ids == ["1-1", "1-2"]
    await stop(reading)


async def test_an_expected_log_of_which_nothing_is_heard_is_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "EXPECTED_READ_S", 0.0)
    await expect(bench)
    bench.log.is_deaf = True
    bench.log.append(Start(attempt=1, model="demo"))
    reading = await read(bench)

    assert reading.ids == ["1-1"]
    await stop(reading)


async def test_an_expected_log_is_read_after_a_reconnect(bench: Bench) -> None:
    await expect(bench)
    bench.live.lose()
    bench.log.append(Start(attempt=1, model="demo"))
    bench.live.reconnect()
    reading = await read(bench)

    assert reading.ids == ["1-1"]
    await stop(reading)


async def test_a_log_that_did_not_come_is_expected_no_more(bench: Bench) -> None:
    bench.hub.expect(make_meta(status="queued"))
    bench.hub.expect_no_more(GENERATION)

    assert not bench.hub.relays
    assert bench.live.channels == {b"tr:probe:n1"}
