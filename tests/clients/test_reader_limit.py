"""A browser's own EventSource at an owner's limit of readers: it is told, and comes to rest."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from redis.asyncio import Redis

from api import errors
from shared.config.settings import Settings
from shared.log.events import End, Token
from tests.support.browser import Browser, PageServer
from tests.support.local_node import ManualWorker, serve_here
from tests.support.redis_server import RedisServer
from tests.support.tokens import SECRET, hmac_token

WATCH = """
window.told = []; window.errors = 0; window.texts = [];
window.watch = (url) => {
  window.source = new EventSource(url);
  source.addEventListener("error", (e) => {
    if (e.data) told.push(JSON.parse(e.data).code); else errors += 1;
  });
  source.addEventListener("token", (e) => texts.push(JSON.parse(e.data).text));
};
"""


async def test_an_event_source_over_the_limit_is_told_and_rests_after_three_connects(
    redis_server: RedisServer,
    browser: Browser,
    pages: PageServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(errors, "CONNECTIONS_RETRY_AFTER_S", 0)
    client = Redis.from_url(redis_server.url, protocol=2)
    await client.flushall()
    await client.aclose()
    settings = Settings(
        redis_url=redis_server.url, jwt_secret=SECRET, owner_connections_max=1,
        cors_origins=pages.origin,
    )  # fmt: skip
    async with serve_here(settings) as node, aiohttp.ClientSession() as web:
        worker = await ManualWorker.take(node.node.store, owner="alice")
        await worker.append(Token("Hi"))
        url = f"{node.url}/v1/generations/{worker.generation_id}/events"
        token = hmac_token(sub="alice")
        page = await browser.open(pages.origin + "/")
        await page.evaluate(WATCH)
        async with web.get(url, headers={"authorization": f"Bearer {token}"}):
            await page.evaluate(f"watch('{url}?access_token={token}')")
            await page.until("source.readyState === 2", "the end of the EventSource")

            assert await page.evaluate("told") == ["too_many_connections"] * 2
            assert await page.evaluate("errors") == 3, "one for each connect, the last for good"
            counted = node.node.metrics.limit_refusals.labels("too_many_connections")
            assert counted._value.get() == 3

        counting = asyncio.create_task(node.node.places.run())
        await worker.append(End(status="completed", finish_reason="stop"))
        await page.evaluate(f"watch('{url}?access_token={token}')")
        await page.until("texts.length === 1", "the event, with a free place")
        counting.cancel()
        await page.close()
