"""Redis that dies, comes back with what it kept, comes back empty, or throws its clients out."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import aclosing
from functools import partial
from pathlib import Path

import pytest

from shared.redis import keys
from tests.support.demo import demo_body
from tests.support.fault_run import FaultRun
from tests.support.raw_client import RawClient
from tests.support.redis_server import RedisServer
from tests.support.wait import until


async def test_redis_killed_and_back_with_its_aof(fault_run: FaultRun):
    """AOF everysec loses about a second; the worker writes it again. Nothing is lost to readers."""
    answers = [await fault_run.start(demo_body(80, 50)) for _ in range(2)]
    for answer in answers:
        await fault_run.read_to(answer, 15)

    fault_run.deployment.server.restart()

    await fault_run.finish(bound_s=30, is_lossless=False)
    assert all(a.record.snapshot["status"] == "completed" for a in answers)


async def test_redis_back_without_its_last_second_and_the_worker_gone(fault_run: FaultRun):
    """As when a machine loses power: nobody has the tail, and readers had already seen it."""
    answer = await fault_run.start(demo_body(5_000, 60), is_cut_short=True)
    server = fault_run.deployment.server
    await fault_run.read_to(answer, 15)
    kept_bytes = aof_of(server).stat().st_size
    await fault_run.read_on(answer, 30)

    (await fault_run.holder(answer)).kill()
    server.kill()
    os.truncate(aof_of(server), kept_bytes)
    server.start()
    await until(lambda: all(r.resets for r in answer.readings), 20, "each reader is told")
    await fault_run.read_on(answer, 30)
    await fault_run.cancel(answer)

    await fault_run.finish(bound_s=40, is_lossless=False)
    first, last = answer.record.log[0].event_id, answer.record.log[-1].event_id
    assert first == "1-1", "what was kept stays"
    assert int(last.split("-")[0]) > 10**12, "a number that cannot have been given out and lost"


def aof_of(server: RedisServer) -> Path:
    """The file that commands are appended to; they are written before they are answered."""
    return max((server.directory / "appendonlydir").glob("*.incr.aof"))


async def test_a_worker_restores_the_whole_log_after_redis_came_back_empty(fault_run: FaultRun):
    answers = [await fault_run.start(demo_body(80, 50)) for _ in range(2)]
    for answer in answers:
        await fault_run.read_to(answer, 15)

    fault_run.deployment.server.kill()
    fault_run.deployment.server.erase()
    fault_run.deployment.server.start()

    await fault_run.finish(bound_s=30, is_lossless=False)
    assert all(a.record.snapshot["status"] == "completed" for a in answers)


async def test_a_worker_restores_the_log_after_flushall(fault_run: FaultRun):
    answer = await fault_run.start(demo_body(70, 50))
    await fault_run.read_to(answer, 15)

    with fault_run.deployment.server.client() as client:
        client.flushall()
        client.script_flush()

    await fault_run.finish(bound_s=30, is_lossless=False)
    assert answer.record.snapshot["status"] == "completed"


async def test_a_reader_that_joins_before_the_restore_waits_for_the_log(fault_run: FaultRun):
    """The worker will write the lost log again, so the node must not answer 404 meanwhile."""
    answer = await fault_run.start(demo_body(90, 50), transports=("sse",), hop_after=0)
    await fault_run.read_to(answer, 15)
    worker = await fault_run.holder(answer)

    worker.freeze()
    with fault_run.deployment.server.client() as client:
        client.flushall()
    async with RawClient(*fault_run.deployment.urls) as raw_client:
        for node in fault_run.deployment.urls:
            async with raw_client.stream(answer.id, "1-10", node=node) as response:
                assert response.status == 200
    worker.thaw()

    await fault_run.finish(bound_s=30, is_lossless=False)
    assert answer.record.snapshot["status"] == "completed"


@pytest.mark.parametrize("kind", ["pubsub", "normal"])
async def test_answers_are_exact_after_redis_has_closed_all_connections(fault_run: FaultRun, kind):
    answer = await fault_run.start(demo_body(90, 60))
    with fault_run.deployment.server.client() as client:
        for _ in range(3):
            await fault_run.read_on(answer, 15)
            client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    await fault_run.finish(bound_s=25)


STILL_S = 1.5  # longer than a lease, and than the time to the next renewal


def pause_everything(server: RedisServer) -> None:
    """The server holds back every command, renewals and appends alike."""
    with server.client() as client:
        client.execute_command("CLIENT", "PAUSE", str(round(1000 * STILL_S)), "ALL")


def pause_writes(server: RedisServer) -> None:
    """Reads are answered: a node sees all logs, and that nothing moves. Longer than time-outs."""
    with server.client() as client:
        client.execute_command("CLIENT", "PAUSE", "3000", "WRITE")


def sleep(server: RedisServer) -> None:
    """The server is busy: nothing at all is answered, and then everything at once."""
    with server.client() as client:
        client.execute_command("DEBUG", "SLEEP", str(STILL_S))


def stop(server: RedisServer) -> None:
    """SIGSTOP: time passes that the server does not see passing."""
    server.freeze()
    time.sleep(STILL_S)  # in a thread, for as long as it is to stand still
    server.thaw()


@pytest.mark.parametrize("stand_still", [pause_everything, pause_writes, sleep, stop])
async def test_redis_stands_still_for_longer_than_every_lease(fault_run: FaultRun, stand_still):
    """No worker could renew a lease: no answer gets another worker, and none spends an attempt."""
    answers = [await fault_run.start(demo_body(80, 50)) for _ in range(3)]
    for answer in answers:
        await fault_run.read_to(answer, 10)

    await asyncio.to_thread(stand_still, fault_run.deployment.server)

    await fault_run.finish(bound_s=30)
    async with aclosing(fault_run.deployment.redis()) as redis:
        for answer in answers:
            assert answer.record.snapshot["status"] == "completed"
            assert [entry.type for entry in answer.record.log].count("start") == 1
            assert await redis.hget(keys.meta(answer.id), "failures") == b"0"


async def test_a_full_redis_refuses_prompts_and_running_answers_survive(fault_run: FaultRun):
    """noeviction: writes fail until there is room again; nobody dies, nothing is torn."""
    answer = await fault_run.start(demo_body(90, 50))
    await fault_run.read_to(answer, 15)
    async with RawClient(*fault_run.deployment.urls) as raw_client:
        with fault_run.deployment.server.client() as client:
            client.config_set("maxmemory", "1")
            try:
                begun = time.monotonic()
                refused = await raw_client.post(demo_body(5, 0))
                elapsed = time.monotonic() - begun
            finally:
                client.config_set("maxmemory", "0")
    assert refused.status == 503
    assert elapsed < 5

    await fault_run.finish(bound_s=30)
    assert answer.record.snapshot["status"] == "completed"


async def test_redis_stopped_and_continued(fault_run: FaultRun):
    """SIGSTOP: connections stay open and nothing answers, for longer than lease and time-outs."""
    answer = await fault_run.start(demo_body(80, 50))
    await fault_run.read_to(answer, 15)

    fault_run.deployment.server.freeze()
    async with RawClient(*fault_run.deployment.urls) as raw_client:
        posts = [raw_client.post(demo_body(5, 0), node=url) for url in fault_run.deployment.urls]
        assert [refused.status for refused in await asyncio.gather(*posts)] == [503, 503]
    fault_run.deployment.server.thaw()

    await fault_run.finish(bound_s=40, is_lossless=False)
    assert answer.record.snapshot["status"] == "completed"


async def test_new_prompts_are_served_after_an_outage(fault_run: FaultRun):
    fault_run.deployment.server.restart()

    answer = await fault_run.start(demo_body(20, 40))

    await fault_run.finish(bound_s=25, is_lossless=False)
    assert answer.record.snapshot["status"] == "completed"


async def test_readyz_names_what_is_wrong(fault_run: FaultRun):
    """Redis may refuse just the subscription, and workers may be there and do nothing."""
    with fault_run.deployment.server.client() as client:
        async with RawClient(*fault_run.deployment.urls) as raw_client:
            try:
                client.execute_command("ACL", "SETUSER", "default", "-subscribe")
                client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
                await until(partial(fails, raw_client, {"live_connection"}), 10, "deaf nodes")
                # The logs are read all the same, once a second.
                answer = await fault_run.start(demo_body(20, 40))
                await fault_run.finish(bound_s=15)
                for worker in fault_run.deployment.workers:
                    worker.freeze()
                wrong = {"live_connection", "worker"}
                await until(partial(fails, raw_client, wrong), 10, "idle workers")
            finally:
                client.execute_command("ACL", "SETUSER", "default", "+subscribe")
                for worker in fault_run.deployment.workers:
                    worker.thaw()
            await until(partial(fails, raw_client, set()), 10, "all is well again")
    assert answer.record.snapshot["status"] == "completed"


async def fails(raw_client: RawClient, names: set[str]) -> bool:
    """Whether exactly these checks fail, at both nodes."""
    for node in (raw_client.url, raw_client.other_url):
        answer = await raw_client.get("/readyz", node=node)
        assert answer.status == (503 if names else 200), answer.body
        failed = {name for name, is_fine in answer.json()["checks"].items() if not is_fine}
        assert failed == names
    return True
