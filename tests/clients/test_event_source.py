"""The browser's own EventSource, fetch and WebSocket against two nodes, from another origin."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.browser import Browser, Page, PageServer
from tests.support.processes import Deployment
from tests.support.proxy import Proxy
from tests.support.raw_client import RawClient
from tests.support.upstream import expected_text, script_of

PROMPT = "tell me"
SCRIPT = {"tokens": 60, "delay_s": 0.033}
TEXT = expected_text(PROMPT, script_of({"messages": [], "upstream": SCRIPT}))
BODY = {"prompt": PROMPT, "model": "continue", "params": {"upstream": SCRIPT}}
# What every reading of these pages keeps: the ids, the text, and how often it was opened.
WATCH = """
window.seen = {ids: [], text: "", opened: 0, ended: 0, errors: 0};
window.take = (id, type, event) => {
  seen.ids.push(id);
  if (type === "token") seen.text += event.text;
  if (type === "end") seen.ended += 1;
};
window.watch = (url) => {
  const source = window.source = new EventSource(url);
  source.onopen = () => { seen.opened += 1; };
  source.onerror = () => { seen.errors += 1; };
  for (const type of ["start", "token", "usage", "reset", "end"])
    source.addEventListener(type, (e) => take(e.lastEventId, type, JSON.parse(e.data)));
  return source;
};
"""


@pytest.fixture
async def api(deployment: Deployment) -> AsyncIterator[RawClient]:
    async with RawClient(*deployment.urls) as raw_client:
        yield raw_client


@pytest.fixture
async def page(browser: Browser, pages: PageServer) -> AsyncIterator[Page]:
    page = await browser.open(pages.origin + "/")
    await page.evaluate(WATCH)
    yield page
    assert await page.errors() == []
    await page.close()


def events_url(base: str, generation_id: str) -> str:
    return f"{base}/v1/generations/{generation_id}/events"


async def check(page: Page, api: RawClient, generation_id: str, node: str = "") -> None:
    """The page has the whole log, each entry once and in order."""
    seen: dict[str, Any] = await page.evaluate("seen")
    log = [event.event_id for event in (await api.events(generation_id, node=node)).events]
    places = [tuple(map(int, event_id.split("-"))) for event_id in seen["ids"]]
    assert places == sorted(set(places))
    # Of joined tokens there is the last one's id.
    assert set(seen["ids"]) <= set(log)
    assert seen["ids"][-1] == log[-1]
    assert (seen["text"], seen["ended"]) == (TEXT, 1)


async def test_event_source_reconnects_to_another_node_and_204_stops_it(
    deployment: Deployment, api: RawClient, page: Page
) -> None:
    """One address for both nodes, as behind a load balancer; the first is killed."""
    generation_id = await api.start(BODY)
    async with Proxy("127.0.0.1", deployment.api[0].port) as balancer:
        await page.evaluate(
            f"watch('{events_url(f'http://127.0.0.1:{balancer.port}', generation_id)}') && 1"
        )
        await page.until("seen.ids.length >= 10", "ten events")
        balancer.aim("127.0.0.1", deployment.api[1].port)
        deployment.api[0].kill()
        await page.until("seen.ended", "the end")
        # After a clean end it asks once more, with the last id, and is told to stop.
        await page.until("source.readyState === EventSource.CLOSED", "204")

    await check(page, api, generation_id, deployment.urls[1])
    assert await page.evaluate("seen.opened") == 2


async def test_a_page_resumes_at_the_other_node_with_its_own_cursor(
    deployment: Deployment, api: RawClient, page: Page
) -> None:
    generation_id = await api.start(BODY)
    other = events_url(deployment.urls[1], generation_id)
    await page.evaluate(
        f"""
        watch("{events_url(deployment.urls[0], generation_id)}").onerror = () => {{
          source.close();
          watch("{other}?last_event_id=" + seen.ids.at(-1))
            .addEventListener("end", () => source.close());
        }}, 1
        """
    )
    await page.until("seen.ids.length >= 10", "ten events")
    deployment.api[0].kill()
    await page.until("seen.ended", "the end")

    await check(page, api, generation_id, deployment.urls[1])


async def test_event_source_long_poll_and_ndjson_share_one_cursor(
    deployment: Deployment, api: RawClient, page: Page
) -> None:
    generation_id = await api.start(BODY)
    one, other = (events_url(url, generation_id) for url in deployment.urls)
    await page.evaluate(f"watch('{one}') && 1")
    await page.until("seen.ids.length >= 10", "ten events")
    await page.evaluate(
        f"""
        (async () => {{
          source.close();
          const cursor = () => seen.ids.at(-1);
          for (let polls = 0; polls < 5; polls++) {{
            const url = "{other}?wait=10&last_event_id=" + cursor();
            const answer = await (await fetch(url)).json();
            for (const {{id, type, ...event}} of answer.events) take(id, type, event);
            if (answer.events.length && cursor() !== answer.last_event_id) throw "cursor";
          }}
          const headers = {{Accept: "application/x-ndjson", "Last-Event-ID": cursor()}};
          const body = (await fetch("{one}", {{headers}})).body;
          let rest = "";
          for await (const piece of body.pipeThrough(new TextDecoderStream())) {{
            const lines = (rest + piece).split("\\n");
            rest = lines.pop();
            for (const line of lines.filter(Boolean)) {{
              const {{id, type, ...event}} = JSON.parse(line);
              take(id, type, event);
            }}
          }}
        }})()
        """
    )

    await check(page, api, generation_id)


async def test_a_page_may_read_the_documented_headers(deployment: Deployment, page: Page) -> None:
    """A preflight, and the headers that are exposed."""
    read = await page.evaluate(
        f"""
        (async () => {{
          const headers = {{"Content-Type": "application/json", "Idempotency-Key": "k1"}};
          const body = JSON.stringify({{prompt: "Hi"}});
          const answer = await fetch("{deployment.urls[0]}/v1/generations",
            {{method: "POST", headers, body}});
          return [answer.status, answer.headers.get("location"), (await answer.json()).id];
        }})()
        """
    )
    assert read[0] == 202
    assert read[1] == f"/v1/generations/{read[2]}"


async def test_a_page_of_another_origin_reads_nothing(
    deployment: Deployment, api: RawClient, browser: Browser, pages: PageServer
) -> None:
    generation_id = await api.start(BODY)
    stranger = await browser.open(pages.origin.replace("127.0.0.1", "localhost") + "/")
    await stranger.evaluate(WATCH)
    url = events_url(deployment.urls[0], generation_id)
    await stranger.evaluate(f"watch('{url}') && 1")
    await stranger.until("source.readyState === EventSource.CLOSED", "the refusal")
    failed = await stranger.evaluate(f"fetch('{url}').then(() => 'read', (e) => e.name)")
    ws = deployment.urls[0].replace("http", "ws", 1)
    for path in ("/v1/ws", "/lobe/ws", "/deep-chat/ws"):
        opened = await stranger.evaluate(
            f"""new Promise((done) => {{
              const socket = new WebSocket("{ws}{path}");
              socket.onopen = () => done("open");
              socket.onerror = () => done("refused");
            }})"""
        )
        assert opened == "refused", path

    assert failed == "TypeError"
    assert await stranger.evaluate("seen.ids") == []
    await stranger.close()


async def test_the_lobe_protocol_in_a_browser(deployment: Deployment, page: Page) -> None:
    """Start on one node, go away, resume on the other."""
    one, other = (url.replace("http", "ws", 1) + "/lobe/ws" for url in deployment.urls)
    start = {"sessionId": "b1", "messageId": "b1", **BODY, "type": "startConversation"}
    frames = await page.evaluate(
        f"""
        (async () => {{
          const frames = [];
          const talk = (url, first, until) => new Promise((done, failed) => {{
            const socket = new WebSocket(url);
            socket.onopen = () => socket.send(JSON.stringify(first));
            socket.onerror = failed;
            socket.onmessage = ({{data}}) => {{
              frames.push(JSON.parse(data));
              if (until()) {{ socket.onmessage = null; socket.close(); done(); }}
            }};
          }});
          await talk("{one}", {start}, () => frames.length >= 10);
          const at = {{messageId: "b1", lastEventId: frames.at(-1).id}};
          await talk("{other}", {{type: "resume", ...at}}, () => frames.at(-1).type === "end");
          return frames;
        }})()
        """
    )
    assert "".join(frame.get("content", "") for frame in frames) == TEXT
    assert [f["gap"] for f in frames if f["type"] == "resume_complete"] == [False]
