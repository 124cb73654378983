"""A large prompt that waits again and again: its request stays, or the generation ends clearly."""

from __future__ import annotations

from shared.log.events import decode
from shared.log.request_pieces import PIECE_BYTES
from shared.redis import keys
from tests.support.backend_scripts import says, until_nothing_is_queued
from tests.support.worker_harness import WorkerHarness

LARGE = b'{"messages":[{"role":"user","content":"' + b"x" * PIECE_BYTES + b'"}]}'
LEFT_MS = 60_000


async def test_the_begin_of_an_old_generation_extends_the_life_of_its_keys(url):
    async with WorkerHarness(url, says("all")) as harness:
        generation_id = await harness.ask(request=LARGE, idempotency_key="k", body_digest="d")
        life_ms = round(1000 * harness.settings.generation_s_max)
        await harness.redis.hincrby(keys.meta(generation_id), "created", -life_ms)
        names = (keys.request(generation_id), keys.idempotency("alice", "k"))
        for name in names:
            await harness.redis.pexpire(name, LEFT_MS)
        lives = []

        async def look(prefix):
            lives.extend([await harness.redis.pttl(name) for name in names])
            async for items in says("all")(prefix):
                yield items

        harness.backend.backend_scripts = (look,)
        await harness.start()

        assert (await harness.ended(generation_id)).status == "completed"
        assert all(left_ms > life_ms for left_ms in lives) and len(lives) == 2


async def test_a_generation_whose_request_is_gone_ends_as_lost(url):
    async with WorkerHarness(url, says("all")) as harness:
        generation_id = await harness.ask(request=LARGE)
        await harness.redis.delete(keys.request(generation_id))
        await harness.start()

        end = decode((await harness.ended(generation_id)).end)

        assert (end.status, end.error.code, end.error.retryable) == ("failed", "lost", True)
        assert "request" in end.error.message
        assert not harness.backend.requests
        await until_nothing_is_queued(harness)
