"""Compressed streams in real browsers: EventSource and fetch show each token at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.compression.encoding import Encoding
from api.readers import http_stream
from shared.config.settings import Settings
from shared.log.events import End, Token
from tests.support.browser import Browser, PageServer
from tests.support.local_node import LocalNode, ManualWorker, serve_here
from tests.support.redis_server import RedisServer

END = End(status="completed", finish_reason="stop")
TOKENS = 6
WATCH = """
window.seen = {source: "", read: "", pings: 0, ended: 0};
window.listen = (url) => {
  const source = new EventSource(url);
  source.addEventListener("token", (e) => { seen.source += JSON.parse(e.data).text; });
  source.addEventListener("end", () => { seen.ended += 1; source.close(); });
};
window.read = async (url) => {
  const answer = await fetch(url, {headers: {accept: "application/x-ndjson"}});
  const text = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = "";;) {
    const {done, value} = await text.read();
    if (done) { seen.ended += 1; return; }
    const lines = (rest + value).split("\\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line) seen.read += JSON.parse(line).text ?? "";
      else seen.pings += 1;
    }
  }
};
"""


@pytest.fixture(scope="module")
async def firefox() -> AsyncIterator[Browser]:
    async with Browser(is_firefox=True, within_s=60) as firefox:
        yield firefox


async def read_in(
    browser: Browser, pages: PageServer, node: LocalNode, worker: ManualWorker
) -> None:
    """Read a stream with EventSource and with fetch; a token follows only after the one before."""
    page = await browser.open(pages.origin + "/")
    url = f"{node.url}/v1/generations/{worker.generation_id}/events"
    await page.evaluate(WATCH)
    await page.evaluate(f"listen('{url}')")
    await page.evaluate(f"void read('{url}')")
    text = ""
    for n in range(TOKENS):
        await worker.append(Token(f"词{n} "))
        text += f"词{n} "
        await page.until(f"seen.source === '{text}' && seen.read === '{text}'", f"token {n}")
        if n == TOKENS // 2:
            await page.until("seen.pings > 0", "a heartbeat between two tokens")
    await worker.append(END)
    await page.until("seen.ended === 2", "both ends")
    assert await page.errors() == []
    await page.close()


async def used(
    browser: Browser,
    pages: PageServer,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    encoding: str,
) -> list[str]:
    """Return the encoding of each stream, on a node with one encoding."""
    found: list[str] = []
    new_body = http_stream.new_body

    def note(scope: Any, encodings: Any, encoding: Encoding) -> Any:
        found.append(encoding.name)
        return new_body(scope, encodings, encoding)

    monkeypatch.setattr(http_stream, "new_body", note)
    settings = Settings(
        redis_url=redis_server.url, cors_origins=pages.origin, stream_encodings=encoding,
        heartbeat_s=0.5,
    )  # fmt: skip
    async with serve_here(settings) as node:
        await read_in(browser, pages, node, await ManualWorker.take(node.node.store))
    return found


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "br"])
async def test_chromium_reads_compressed_streams(
    browser: Browser,
    pages: PageServer,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    encoding: str,
) -> None:
    assert await used(browser, pages, redis_server, monkeypatch, encoding) == [encoding] * 2


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "br"])
async def test_firefox_reads_compressed_streams(
    firefox: Browser,
    pages: PageServer,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    encoding: str,
) -> None:
    assert await used(firefox, pages, redis_server, monkeypatch, encoding) == [encoding] * 2
