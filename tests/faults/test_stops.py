"""Every way in which a stream can stop, over every transport: docs/protocol.md has the table.

One reader for each transport stays until the node breaks its connection off. The test compares how
each connection ended with the row of the table, and the audit checks that none ended silently.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any

import pytest

from tests.support.deliveries import Closed, Opened, Reading
from tests.support.demo import demo_body
from tests.support.fault_run import FaultRun, WatchedGeneration
from tests.support.processes import Deployment
from tests.support.raw_client import RawClient
from tests.support.reader import TRANSPORTS, CarefulReader
from tests.support.wait import until

DEADLINE_S = 30.0
# A socket outlives its generation: its reader leaves after the end.
AS_ENDED = {"sse": "clean", "ndjson": "clean", "longpoll": "clean", "ws": "left"}
MODELS = """
[models.demo]
backend = "demo"
on_takeover = "continue"

[models.fails]
backend = "demo"
on_takeover = "fail"
"""


@pytest.fixture(scope="module")
async def shared_deployment() -> AsyncIterator[Deployment]:
    # A node that drains breaks its readers off one after the other, over this time.
    settings = {"drain_s": "1.5"}
    async with Deployment(
        api=2, workers=2, jobs=True, lease_s=0.8, models=MODELS, settings=settings
    ) as deployment:
        yield deployment


# Longer than any test: the test cancels the answer when it has seen enough. The pace is slow,
# because each event goes to four readers.
LONG = demo_body(10_000, 30)


async def watch(fault_run: FaultRun, body: dict[str, Any], **known: Any) -> WatchedGeneration:
    """Start an answer and read it over each transport by itself, from the first node on."""
    playing = await fault_run.start(body, readers=0, **known)
    for transport in TRANSPORTS:
        reading = Reading(transport)
        reader = CarefulReader(reading, fault_run.deployment.urls, transports=(transport,))
        playing.record.readings.append(reading)
        playing.readers.append(reader)
        run = reader.run(playing.id, deadline_s=DEADLINE_S)
        playing.tasks.append(asyncio.create_task(run))
    return playing


def hows(playing: WatchedGeneration) -> dict[str, list[str]]:
    """How each transport's connections stopped, in order."""
    return {
        reading.reader: [step.how for step in reading.steps if isinstance(step, Closed)]
        for reading in playing.readings
    }


def first_hows(playing: WatchedGeneration) -> dict[str, str]:
    return {transport: stops[0] for transport, stops in hows(playing).items()}


def is_once(playing: WatchedGeneration, how: Mapping[str, str]) -> bool:
    """Whether every transport had one connection, and it stopped so."""
    return hows(playing) == {transport: [one] for transport, one in how.items()}


async def broken_off(
    fault_run: FaultRun, playing: WatchedGeneration, transports: Sequence[str] = TRANSPORTS
) -> None:
    """Wait until readers were broken off and all have read on; then cancel the answer."""

    def is_so() -> bool:
        return all(hows(playing)[transport] for transport in transports)

    await until(is_so, DEADLINE_S, "readers that are broken off")
    await fault_run.read_on(playing, 5)
    await fault_run.cancel(playing)


def statuses(playing: WatchedGeneration) -> set[str]:
    return {reading.end.fields["status"] for reading in playing.readings if reading.end}


# It ends


async def test_stream_stops_because_the_answer_completed(fault_run: FaultRun):
    answer = await watch(fault_run, demo_body(15, 60))
    await fault_run.finish()
    assert is_once(answer, AS_ENDED), hows(answer)
    assert statuses(answer) == {"completed"}


async def test_stream_stops_because_of_a_cancel(fault_run: FaultRun):
    answer = await watch(fault_run, demo_body(10_000, 30), has_text=False)
    await fault_run.read_to(answer, 10)
    await fault_run.cancel(answer, node=fault_run.deployment.urls[1])
    await fault_run.finish()
    assert is_once(answer, AS_ENDED), hows(answer)
    assert statuses(answer) == {"cancelled"}


async def test_stream_stops_because_the_answer_failed(fault_run: FaultRun):
    body = demo_body(30, 60, model="fails", fail_at=10)
    answer = await watch(fault_run, body, has_text=False)
    await fault_run.finish()
    assert is_once(answer, AS_ENDED), hows(answer)
    assert statuses(answer) == {"failed"}


@pytest.mark.parametrize("transport", ["sse", "ndjson", "longpoll"])
async def test_stream_after_the_end_is_empty(fault_run: FaultRun, transport: str):
    """A socket says `caught_up`: tests/conformance/test_websocket.py."""
    answer = await fault_run.start(demo_body(5, 0), transports=(transport,), hop_after=0)
    await fault_run.finish()
    reading = Reading("after the end")
    reading.steps.append(answer.readings[0].deliveries[-1])
    after = CarefulReader(reading, fault_run.deployment.urls, transports=(transport,))
    await after.run(answer.id, deadline_s=DEADLINE_S)
    expected = "clean" if transport == "longpoll" else "status 204"
    assert [step.how for step in reading.steps if isinstance(step, Closed)] == [expected]
    assert reading.count == 1, "nothing but the end that it had"


# The answer goes on: the reader is not broken off at all


@pytest.mark.parametrize("way", ["dies", "drains"])
async def test_stream_continues_when_the_worker_dies_or_drains(fault_run: FaultRun, way: str):
    answer = await watch(fault_run, demo_body(90, 60))
    await fault_run.read_to(answer, 20)
    holder = await fault_run.holder(answer)
    if way == "dies":
        holder.kill()
    else:
        holder.terminate()
    await fault_run.finish()
    assert is_once(answer, AS_ENDED), hows(answer)
    assert all(has_start_of_another_attempt(reading) for reading in answer.readings)


async def test_stream_continues_when_the_backend_fails_once(fault_run: FaultRun):
    answer = await watch(fault_run, demo_body(40, 60, fail_at=20))
    await fault_run.finish()
    assert is_once(answer, AS_ENDED), hows(answer)
    assert statuses(answer) == {"completed"}
    assert all(has_start_of_another_attempt(reading) for reading in answer.readings)


def has_start_of_another_attempt(reading: Reading) -> bool:
    return sum(delivery.type == "start" for delivery in reading.deliveries) == 2


async def test_stream_continues_after_a_short_absence_of_redis(fault_run: FaultRun):
    """Who reads already stays; a long poll may be told to ask again."""
    answer = await watch(fault_run, demo_body(70, 40))
    await fault_run.read_to(answer, 15)
    with fault_run.deployment.server.client() as onlooker:
        onlooker.execute_command("CLIENT", "PAUSE", "1500", "ALL")  # ends by itself
    await fault_run.finish(is_lossless=False)
    stops = hows(answer)
    assert set(stops.pop("longpoll")) <= {"clean", "status 503"}
    assert all(stops[name] == [AS_ENDED[name]] for name in stops), stops


# The reader is broken off, visibly, and comes back


async def test_stream_breaks_off_when_the_node_dies(fault_run: FaultRun):
    answer = await watch(fault_run, LONG, is_cut_short=True)
    await fault_run.read_to(answer, 10)
    fault_run.deployment.api[0].kill()
    await broken_off(fault_run, answer)
    await fault_run.finish()
    stops = first_hows(answer)
    assert stops.pop("longpoll") in ("broken", "refused"), "it waited, or was between two polls"
    assert stops == {"sse": "broken", "ndjson": "broken", "ws": "code 1006"}


async def test_stream_breaks_off_when_the_node_drains(fault_run: FaultRun):
    answer = await watch(fault_run, LONG, is_cut_short=True)
    await fault_run.read_to(answer, 10)
    fault_run.deployment.api[0].terminate()
    await broken_off(fault_run, answer)
    await fault_run.finish()
    stops = first_hows(answer)
    # The poll that waits is answered; the next one is refused with 503, or there is nobody.
    assert stops.pop("longpoll") in ("status 503", "refused", "broken")
    assert stops == {"sse": "broken", "ndjson": "broken", "ws": "code 1012"}


async def test_stream_breaks_off_at_the_connections_maximum_age():
    settings = {"connection_age_s": "1", "heartbeat_s": "0.5"}
    async with (
        Deployment(api=2, workers=1, settings=settings) as deployment,
        FaultRun(deployment) as fault_run,
    ):
        answer = await watch(fault_run, LONG, is_cut_short=True)
        await broken_off(fault_run, answer, ("sse", "ndjson", "ws"))
        await fault_run.finish()
        stops = first_hows(answer)
        assert stops == {
            "sse": "broken",
            "ndjson": "broken",
            "longpoll": "clean",
            "ws": "code 1012",
        }
        nodes = {s.node for r in answer.readings for s in r.steps if isinstance(s, Opened)}
        assert nodes == set(deployment.urls)


# What Redis has lost


async def test_stream_ends_as_lost_when_redis_lost_the_generation(fault_run: FaultRun):
    """One had a worker, which died with it; one waited in the queue. Nobody can write them again.

    Together, because a reader waits 10 s for a worker that restores the log.
    """
    running = await watch(fault_run, LONG, has_text=False)
    await fault_run.read_to(running, 10)
    holder = await fault_run.holder(running)
    (other,) = (worker for worker in fault_run.deployment.workers if worker is not holder)
    other.freeze()
    holder.kill()
    queued = await fault_run.start(demo_body(20, 40), has_text=False)
    async with RawClient(*fault_run.deployment.urls) as raw_client:
        await until(
            partial(are_attached, raw_client, {"sse": 2, "websocket": 2}), 10, "readers of both"
        )

    with fault_run.deployment.server.client() as client:
        client.flushall()
    other.thaw()

    await asyncio.gather(*running.tasks, *queued.tasks)
    fault_run.playing.clear()
    assert is_once(running, AS_ENDED), hows(running)
    for reading in (*running.readings, *queued.readings):
        end = reading.end
        assert end is not None and (end.event_id, end.fields["status"]) == ("0-0", "failed")
        assert end.fields["error"]["code"] == "lost"


async def are_attached(raw_client: RawClient, wanted: Mapping[str, int]) -> bool:
    """Whether both nodes have so many readers by transport: a queued answer shows them nothing."""
    seen: Counter[str] = Counter()
    for node in (raw_client.url, raw_client.other_url):
        metrics = (await raw_client.get("/metrics", node=node)).body.decode()
        found = re.findall(r'^tailrace_subscribers{.*transport="(\w+)".*} (\S+)$', metrics, re.M)
        for transport, number in found:
            seen[transport] += int(float(number))
    return all(seen[transport] == number for transport, number in wanted.items())


async def test_stream_is_reset_when_redis_lost_entries_that_were_read(fault_run: FaultRun):
    answer = await watch(fault_run, demo_body(75, 50))
    await fault_run.read_to(answer, 15)
    fault_run.deployment.server.kill()
    fault_run.deployment.server.erase()
    fault_run.deployment.server.start()
    await fault_run.finish(is_lossless=False)
    stops = hows(answer)
    assert set(stops.pop("longpoll")) <= {"clean", "status 503"}
    assert all(stops[name] == [AS_ENDED[name]] for name in stops), stops


async def test_stream_is_refused_with_410_after_the_log_expired():
    async with Deployment(api=1, workers=1, settings={"retention_s": "1"}) as deployment:
        async with FaultRun(deployment) as fault_run:
            answer = await fault_run.start(demo_body(5, 0), readers=1)
            await asyncio.gather(*answer.tasks)
            redis = deployment.redis()
            try:
                await until(lambda: log_is_gone(redis, answer.id), DEADLINE_S, "expiry")
            finally:
                await redis.aclose()
            fault_run.playing.clear()
            late = {transport: Reading(transport) for transport in TRANSPORTS}
            for transport, reading in late.items():
                reader = CarefulReader(reading, deployment.urls, transports=(transport,))
                await reader.run(answer.id, deadline_s=DEADLINE_S)
            stops = {name: reading.steps[-1].how for name, reading in late.items()}  # type: ignore[union-attr]
            gone = "status 410"
            assert stops == {"sse": gone, "ndjson": gone, "longpoll": gone, "ws": "error expired"}


async def log_is_gone(redis: Any, generation_id: str) -> bool:
    return not await redis.exists(f"tr:{{{generation_id}}}:log")
