"""Redis that dies, comes back with what it kept, comes back empty, or throws its clients out."""

from __future__ import annotations

import re
import time
from functools import partial

import pytest

from tests.support.demo import demo_body
from tests.support.outsider import Outsider
from tests.support.scene import Scene
from tests.support.wait import until


async def test_redis_killed_and_back_with_its_aof(scene: Scene):
    """AOF everysec loses about a second; the worker writes it again. Nothing is lost to readers."""
    answers = [await scene.start(demo_body(150, 60)) for _ in range(3)]
    for answer in answers:
        await scene.read_to(answer, 20)

    scene.cluster.server.restart()

    await scene.finish(bound_s=30, is_lossless=False)
    assert all(a.record.snapshot["status"] == "completed" for a in answers)


async def test_redis_back_empty_and_the_worker_writes_all_of_it_again(scene: Scene):
    answers = [await scene.start(demo_body(150, 60)) for _ in range(3)]
    for answer in answers:
        await scene.read_to(answer, 20)

    scene.cluster.server.kill()
    scene.cluster.server.erase()
    scene.cluster.server.start()

    await scene.finish(bound_s=30, is_lossless=False)
    assert all(a.record.snapshot["status"] == "completed" for a in answers)


async def test_flushall_in_mid_stream(scene: Scene):
    answer = await scene.start(demo_body(150, 60))
    await scene.read_to(answer, 20)

    with scene.cluster.server.client() as client:
        client.flushall()
        client.script_flush()

    await scene.finish(bound_s=30, is_lossless=False)
    assert answer.record.snapshot["status"] == "completed"


async def test_a_reader_that_comes_before_the_answer_is_back_is_not_sent_away(scene: Scene):
    """Absent is not gone: its worker holds it and writes it again. A 404 would be final."""
    answer = await scene.start(demo_body(150, 60), transports=("sse",), hop_after=0)
    await scene.read_to(answer, 15)
    worker = await scene.holder(answer)

    worker.freeze()
    with scene.cluster.server.client() as client:
        client.flushall()
    async with Outsider(*scene.cluster.urls) as outsider:
        for node in scene.cluster.urls:
            async with outsider.stream(answer.id, "1-10", node=node) as response:
                assert response.status == 200
    worker.thaw()

    await scene.finish(bound_s=30, is_lossless=False)
    assert answer.record.snapshot["status"] == "completed"


@pytest.mark.parametrize("kind", ["pubsub", "normal"])
async def test_redis_throws_its_clients_out(scene: Scene, kind):
    answer = await scene.start(demo_body(150, 60))
    with scene.cluster.server.client() as client:
        for events in (15, 40, 70):
            await scene.read_to(answer, events)
            client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    await scene.finish(bound_s=25)


async def test_redis_frozen_for_longer_than_the_lease(scene: Scene):
    """Nobody could renew: the living go on, and no attempt is counted as failed."""
    answer = await scene.start(demo_body(150, 60))
    await scene.read_to(answer, 20)

    with scene.cluster.server.client() as onlooker:
        # Ends by itself: the server holds back every command, renewals and appends alike.
        onlooker.execute_command("CLIENT", "PAUSE", "2000", "ALL")

    await scene.finish(bound_s=30, is_lossless=False)
    assert answer.record.snapshot["status"] == "completed"


async def test_a_full_redis_refuses_prompts_and_running_answers_survive(scene: Scene):
    """noeviction: writes fail until there is room again; nobody dies, nothing is torn."""
    answer = await scene.start(demo_body(200, 60))
    await scene.read_to(answer, 15)
    async with Outsider(*scene.cluster.urls) as outsider:
        with scene.cluster.server.client() as client:
            client.config_set("maxmemory", "1")
            try:
                begun = time.monotonic()
                refused = await outsider.post(demo_body(5, 0))
                elapsed = time.monotonic() - begun
            finally:
                client.config_set("maxmemory", "0")
    assert refused.status == 503
    assert elapsed < 5

    await scene.finish(bound_s=30)
    assert answer.record.snapshot["status"] == "completed"


async def test_redis_stopped_and_continued(scene: Scene):
    """SIGSTOP: connections stay open and nothing answers, for longer than lease and time-outs."""
    answer = await scene.start(demo_body(200, 60))
    await scene.read_to(answer, 15)

    scene.cluster.server.freeze()
    async with Outsider(*scene.cluster.urls) as outsider:
        for url in scene.cluster.urls:
            refused = await outsider.post(demo_body(5, 0), node=url)
            assert refused.status == 503
    scene.cluster.server.thaw()

    await scene.finish(bound_s=40, is_lossless=False)
    assert answer.record.snapshot["status"] == "completed"


async def test_new_prompts_are_served_after_an_outage(scene: Scene):
    scene.cluster.server.restart()

    answer = await scene.start(demo_body(20, 40))

    await scene.finish(bound_s=25, is_lossless=False)
    assert answer.record.snapshot["status"] == "completed"


async def readers_of(outsider: Outsider) -> bool:
    """Whether two readers are attached, on whichever nodes: a queued answer shows them nothing."""
    seen = 0.0
    for node in (outsider.url, outsider.other_url):
        metrics = (await outsider.get("/metrics", node=node)).body.decode()
        found = re.findall(r"^tailrace_subscribers{.*} (\S+)$", metrics, re.MULTILINE)
        seen += sum(float(number) for number in found)
    return seen == 2


async def test_a_generation_that_redis_lost_in_the_queue_ends_for_its_readers(scene: Scene):
    """Nobody holds it, so nobody can write it again: never silent, `end` failed `lost`."""
    for worker in scene.cluster.workers:
        worker.freeze()
    answer = await scene.start(demo_body(20, 40), has_text=False)
    async with Outsider(*scene.cluster.urls) as outsider:
        await until(partial(readers_of, outsider), 10, "both readers attached")

    with scene.cluster.server.client() as client:
        client.flushall()
    for worker in scene.cluster.workers:
        worker.thaw()

    await until(lambda: all(r.end is not None for r in answer.readings), 30, "end for everybody")
    for reading in answer.readings:
        assert (reading.end.event_id, reading.end.fields["status"]) == ("0-0", "failed")
        assert reading.end.fields["error"]["code"] == "lost"
