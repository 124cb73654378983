"""The rate limits of a vendor, as its answers tell them: no prompt is lost, no call is wasted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from shared.config.model_route import RouteRules
from shared.config.models import Model
from tests.support.redis_server import free_port
from tests.support.wait import until
from tests.support.worker_harness import DEADLINE_S, WorkerHarness
from workers.backends import build_backends
from workers.backends.http.upstream_http import UpstreamHttp
from workers.worker import Worker

ANSWER = (
    b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)
LIMITED = "429 Too Many Requests"


@dataclass
class Vendor:
    """A vendor that answers the first requests by `first`, and all others with an answer.

    Attributes:
        first: status and headers of an answer; a 200 has a whole answer.
        called_s: when each request came.
    """

    first: list[tuple[str, str]] = field(default_factory=list)
    port: int = field(default_factory=free_port)
    called_s: list[float] = field(default_factory=list)

    @property
    def model(self) -> Model:
        return Model(name="m", base_url=f"http://127.0.0.1:{self.port}/v1")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.called_s.append(time.monotonic())
        status, headers = self.first.pop(0) if self.first else ("200 OK", "x-none: 0")
        body = ANSWER if status == "200 OK" else b'{"error": {"message": "slow down"}}'
        head = f"HTTP/1.1 {status}\r\n{headers}\r\ncontent-length: {len(body)}\r\n"
        writer.write(
            head.encode() + b"content-type: text/event-stream\r\nconnection: close\r\n\r\n"
        )
        writer.write(body)
        writer.close()


@pytest.fixture
async def vendor() -> AsyncIterator[Vendor]:
    vendor = Vendor()
    async with await asyncio.start_server(vendor.serve, "127.0.0.1", vendor.port):
        yield vendor


def harness_of(url: str, vendor: Vendor) -> WorkerHarness:
    harness = WorkerHarness(url, attempts_max=1)
    harness.models = {"m": vendor.model}
    return harness


async def start(harness: WorkerHarness, name: str) -> Worker:
    http = UpstreamHttp(harness.settings)
    worker = await harness.start(
        name, backends=build_backends(harness.models, harness.settings, {}, http)
    )
    http.on_limit = worker.access.note_limit
    return worker


@pytest.mark.parametrize(
    "headers",
    ["retry-after: 0.4", "x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 400ms"],
    ids=["retry-after", "reset"],
)
async def test_a_prompt_that_meets_the_limit_waits_and_counts_no_attempt(url, vendor, headers):
    vendor.first = [(LIMITED, headers), (LIMITED, headers)]
    async with harness_of(url, vendor) as harness:
        await start(harness, "one")
        generation_id = await harness.ask()
        meta = await harness.ended(generation_id)
        assert (meta.status, meta.failures) == ("completed", 0)
        waits = [b - a for a, b in zip(vendor.called_s, vendor.called_s[1:], strict=False)]
        assert len(waits) == 2
        assert all(wait_s >= 0.39 for wait_s in waits)


async def test_after_the_last_request_of_the_limit_no_worker_asks_before_the_reset(url, vendor):
    headers = "x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 2s"
    vendor.first = [("200 OK", headers)]
    async with harness_of(url, vendor) as harness:
        one, two = [await start(harness, name) for name in ("one", "two")]
        await harness.ended(await harness.ask())
        for worker in (one, two):
            health = worker.parts.health
            await until(
                lambda h=health: h.breaker("m").limited_until_ms,
                DEADLINE_S,
                "a limit that all know",
            )
        ids = [await harness.ask() for _ in range(4)]
        for generation_id in ids:
            assert (await harness.ended(generation_id)).status == "completed"
        first, *others = vendor.called_s
        assert len(others) == 4
        assert min(others) - first >= 1.99


async def test_a_429_without_a_time_is_a_failure_like_others(url, vendor):
    vendor.first = [(LIMITED, "x-none: 0")]
    async with harness_of(url, vendor) as harness:
        await start(harness, "one")
        assert (await harness.ended(await harness.ask())).status == "failed"


async def test_a_reset_that_no_prompt_may_wait_for_gives_the_error_of_the_vendor(url, vendor):
    vendor.first = [(LIMITED, "retry-after: 86400"), (LIMITED, "retry-after: 86400")]
    async with harness_of(url, vendor) as harness:
        await start(harness, "one")
        for _ in range(2):
            assert (await harness.ended(await harness.ask())).status == "failed"
        assert len(vendor.called_s) == 2


async def test_a_route_asks_its_other_backend_until_the_reset(url, vendor):
    vendor.first = [(LIMITED, "retry-after: 60")]
    other = Vendor()
    async with (
        await asyncio.start_server(other.serve, "127.0.0.1", other.port),
        harness_of(url, vendor) as harness,
    ):
        harness.models = {
            "m": Model(name="m", backend="route", route=RouteRules(backends=("a", "b"))),
            "a": Model(name="a", base_url=vendor.model.base_url),
            "b": Model(name="b", base_url=other.model.base_url),
        }
        await start(harness, "one")
        for _ in range(5):
            assert (await harness.ended(await harness.ask())).status == "completed"
        assert (len(vendor.called_s), len(other.called_s)) == (1, 5)
