"""The shipped proxies with TLS: twenty streams of one page, and a drain that no reader sees."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.support.browser import Browser, Page
from tests.support.demo import demo_body, expected_text
from tests.support.processes import Deployment
from tests.support.raw_client import RawClient
from tests.support.tls_proxies import TlsProxy
from tests.support.wait import until

STREAMS = 20
BODY = demo_body(72, 12)  # six seconds: the drain happens in its middle
DEADLINE_S = 40
GAP_S_MAX = 4.0  # EventSource waits a second and a half at most before it comes back
WATCH = """
window.streams = [];
window.watch = (url) => {
  const stream = {ids: [], text: "", ended: 0, failed: 0, opened: 0, gap: 0, at: performance.now()};
  const source = new EventSource(url);
  streams.push(stream);
  const take = (event) => {
    const now = performance.now();
    stream.gap = Math.max(stream.gap, now - stream.at);
    stream.at = now;
    stream.ids.push(event.lastEventId);
    if (event.type === "token") stream.text += JSON.parse(event.data).text;
    if (event.type === "end") { stream.ended += 1; source.close(); }
  };
  const types = ["start", "token", "usage", "reset", "end"];
  for (const type of types) source.addEventListener(type, take);
  source.onopen = () => { stream.opened += 1; stream.at = performance.now(); };
  source.onerror = () => { if (source.readyState === EventSource.CLOSED) stream.failed += 1; };
  stream.close = () => source.close();
};
window.socket = (url) => new Promise((resolve, reject) => {
  const socket = new WebSocket(url);
  socket.onopen = () => socket.send('{"type":"ping"}');
  socket.onmessage = (message) => { resolve(message.data); socket.close(); };
  socket.onerror = () => reject(new Error("no socket"));
});
"""


@pytest.fixture(scope="module")
async def nodes() -> AsyncIterator[Deployment]:
    async with Deployment(api=2, workers=1, settings={"drain_s": "2"}) as deployment:
        yield deployment


@pytest.fixture(params=["nginx", "caddy", "haproxy"])
async def proxy(nodes: Deployment, request: pytest.FixtureRequest) -> AsyncIterator[TlsProxy]:
    await nodes.heal()
    async with TlsProxy(request.param, [role.port for role in nodes.api]) as proxy:
        yield proxy


def public_key_hash(proxy: TlsProxy) -> str:
    """What Chromium calls SPKI list: over QUIC it accepts an unknown authority in no other way."""
    certificate = x509.load_pem_x509_certificate(Path(proxy.cert).read_bytes())
    encoded = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return base64.b64encode(hashlib.sha256(encoded).digest()).decode()


async def opened(stack: AsyncExitStack, proxy: TlsProxy, *flags: str) -> Page:
    resolve = "--host-resolver-rules=MAP localhost 127.0.0.1"
    flags = ("--ignore-certificate-errors", resolve, *flags)
    page = await (await stack.enter_async_context(Browser(*flags))).open(proxy.url + "/docs")
    await page.evaluate(WATCH)
    return page


async def readers(nodes: Deployment) -> float:
    count = 0.0
    for url in nodes.urls:
        async with RawClient(url) as client:
            lines = (await client.get("/metrics")).body.decode().splitlines()
        count += sum(float(x.split()[-1]) for x in lines if x.startswith("tailrace_subscribers{"))
    return count


async def test_twenty_event_sources_of_one_page_survive_a_drain(
    nodes: Deployment, proxy: TlsProxy
) -> None:
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(RawClient(*nodes.urls))
        page = await opened(stack, proxy)
        ids = [await api.start(BODY) for _ in range(STREAMS)]
        for generation_id in ids:
            await page.evaluate(f"watch('/v1/generations/{generation_id}/events') && 1")
        await page.until("streams.every((s) => s.ids.length > 3)", "twenty streams at a time")
        assert await page.evaluate("streams.every((s) => !s.ended)"), "nothing is held back"

        nodes.api[0].terminate()
        await page.until("streams.every((s) => s.ended || s.failed)", "the ends", DEADLINE_S)

        seen: list[dict[str, Any]] = await page.evaluate("streams")
        protocol = "performance.getEntriesByType('resource').at(-1).nextHopProtocol"
        await page.evaluate("fetch('/livez').then((answer) => answer.text())")
        assert await page.evaluate(protocol) == "h2"
        assert '"pong"' in await page.evaluate(f"socket('wss://localhost:{proxy.port}/v1/ws')")
    assert await nodes.api[0].ended(10) == 0
    for generation_id, stream in zip(ids, seen, strict=True):
        assert stream["text"] == expected_text(BODY, generation_id)
        places = [tuple(map(int, event_id.split("-"))) for event_id in stream["ids"]]
        assert places == sorted(set(places)), "each event once and in order"
        assert (stream["ended"], stream["failed"]) == (1, 0)
    assert max(stream["gap"] for stream in seen) < 1000 * GAP_S_MAX


async def test_a_reader_that_leaves_is_gone_at_the_node(nodes: Deployment, proxy: TlsProxy) -> None:
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(RawClient(*nodes.urls))
        page = await opened(stack, proxy)
        generation_id = await api.start(BODY)
        await page.evaluate(f"watch('/v1/generations/{generation_id}/events') && 1")
        await page.until("streams[0].ids.length > 3", "a stream")
        assert await readers(nodes) == 1

        await page.evaluate("streams[0].close() || 1")

        async def has_left() -> bool:
            return await readers(nodes) == 0

        await until(has_left, 5, "the reader has left")


async def test_caddy_serves_streams_over_http_3(nodes: Deployment) -> None:
    await nodes.heal()
    async with AsyncExitStack() as stack:
        ports = [role.port for role in nodes.api]
        proxy = await stack.enter_async_context(TlsProxy("caddy", ports))
        quic = f"--origin-to-force-quic-on=localhost:{proxy.port}"
        known = f"--ignore-certificate-errors-spki-list={public_key_hash(proxy)}"
        page = await opened(stack, proxy, "--enable-quic", quic, known)
        async with RawClient(*nodes.urls) as api:
            ids = [await api.start(demo_body(60, 30)) for _ in range(STREAMS)]
        for generation_id in ids:
            await page.evaluate(f"watch('/v1/generations/{generation_id}/events') && 1")
        await page.until("streams.every((s) => s.ended)", "the ends", DEADLINE_S)
        await page.evaluate("fetch('/livez').then((answer) => answer.text())")
        hops = await page.evaluate(
            "performance.getEntriesByType('resource').map((each) => each.nextHopProtocol)"
        )

        assert hops[-1] == "h3"
        texts = await page.evaluate("streams.map((s) => s.text)")
        assert texts == [expected_text(demo_body(60, 30), each) for each in ids]
