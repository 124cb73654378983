"""deep-chat's own bundle in a browser, over server-sent events and over WebSocket, at two nodes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import quote

import pytest

from shared.redis import keys
from tests.support.browser import Browser, Page, PageServer
from tests.support.processes import Deployment
from tests.support.proxy import Proxy
from tests.support.raw_client import RawClient
from tests.support.upstream import Upstream, expected_text, script_of
from tests.support.wait import until

PROMPT = "tell me"
SCRIPT = {"tokens": 60, "delay_s": 0.033}
TEXT = expected_text(PROMPT, script_of({"messages": [], "upstream": SCRIPT}))
# A font of its own: else the component asks another host for one.
HTML = """<!doctype html><title>deep-chat</title>
<script>
  window.opened = 0;
  window.WebSocket = class extends WebSocket {
    constructor(...given) {
      super(...given);
      this.addEventListener("open", () => { window.opened += 1; });
    }
  };
</script>
<script type="module">
  import "/modules/deep-chat/dist/deepChat.bundle.js";
  const chat = document.createElement("deep-chat");
  // On a slow machine the component renders twice, and then has two sockets and shows the answers
  // of one of them only: its own timer, for pages that set nothing, is told that it came too late.
  chat._hasBeenRendered = true;
  chat.style.fontFamily = "sans-serif";
  chat.errorMessages = {displayServiceErrorMessages: true};
  chat.connect = %s;
  document.body.append(chat);
  window.chat = chat;
  window.texts = (role) => chat.getMessages().filter((m) => m.role === role).map((m) => m.text);
  window.errors = () =>
    [...chat.shadowRoot.querySelectorAll(".error-message-text")].map((e) => e.innerText);
</script>"""

OpenChat = Callable[..., Awaitable[Page]]


@pytest.fixture
async def api(deployment: Deployment) -> AsyncIterator[RawClient]:
    async with RawClient(*deployment.urls) as raw_client:
        yield raw_client


@pytest.fixture
async def open_chat(browser: Browser, pages: PageServer) -> AsyncIterator[OpenChat]:
    """Open a page with the component in it; `body` goes with each of its requests."""
    opened: list[Page] = []

    async def open_chat(connect: dict[str, Any], **body: Any) -> Page:
        pages.pages["/chat"] = HTML % json.dumps({**connect, "additionalBodyProps": body})
        opened.append(await browser.open(pages.origin + "/chat"))
        await opened[-1].until("window.chat?.shadowRoot?.querySelector('#text-input')", "the chat")
        return opened[-1]

    yield open_chat
    for page in opened:
        assert await page.errors() == []
        await page.close()


def over_http(url: str) -> dict[str, Any]:
    return {"url": f"{url}/deep-chat", "stream": True}


def over_socket(url: str, key: str = "stop-key") -> dict[str, Any]:
    address = url.replace("http", "ws", 1) + f"/deep-chat/ws?stop_key={quote(key)}"
    return {"url": address, "websocket": True, "stream": {"simulation": key}}


def asking(model: str, session: str, **script: Any) -> dict[str, Any]:
    params = {"upstream": {**SCRIPT, **script}}
    return {"model": model, "session": session, "params": params}


async def generation_of(api: RawClient, session: str, node: str = "") -> str:
    async def listed() -> Any:
        return (await api.get(f"/v1/sessions/{session}", node=node)).json()["generations"]

    found: Any = await until(listed, 10, f"a generation of {session}")
    return str(found[0]["id"])


async def kill_holder(deployment: Deployment, api: RawClient, session: str) -> None:
    generation_id = await generation_of(api, session)
    async with deployment.redis() as redis:
        name: Any = await until(
            lambda: redis.hget(keys.meta(generation_id), "worker"), 10, "a holder"
        )
    next(role for role in deployment.workers if role.ready_name == name.decode()).kill()


async def says(page: Page, text: str, number: int = 0) -> None:
    """Wait until the component's answer of that number is exactly `text`."""
    wanted = json.dumps(text)
    try:
        await page.until(f"texts('ai')[{number}] === {wanted}", "the text")
    except AssertionError as exc:
        raise AssertionError(f"{exc}\n{await page.evaluate('chat.getMessages()')}") from None


WAYS = pytest.mark.parametrize("way", [over_http, over_socket])


@WAYS
@pytest.mark.parametrize("model", ["continue", "restart"])
async def test_a_killed_worker_leaves_the_exact_text(
    deployment: Deployment, api: RawClient, open_chat: OpenChat, way: Any, model: str
) -> None:
    session = f"bw-{way.__name__}-{model}"
    page = await open_chat(way(deployment.urls[0]), **asking(model, session))
    await page.type(PROMPT)
    await page.until("texts('ai')[0]?.length > 40", "some text")
    await kill_holder(deployment, api, session)
    await says(page, TEXT)
    assert await page.evaluate("errors()") == []


@WAYS
async def test_one_question_after_the_other(
    deployment: Deployment, open_chat: OpenChat, way: Any
) -> None:
    page = await open_chat(way(deployment.urls[0]), **asking("continue", "b-two", delay_s=0))
    for number in range(2):
        await page.type(PROMPT)
        await says(page, TEXT, number)


async def test_a_whole_answer(deployment: Deployment, open_chat: OpenChat) -> None:
    connect = {"url": f"{deployment.urls[0]}/deep-chat"}
    page = await open_chat(connect, **asking("continue", "b-whole", delay_s=0))
    await page.type(PROMPT)
    await says(page, TEXT)


@WAYS
async def test_an_error_keeps_the_text_and_the_next_answer_is_its_own(
    deployment: Deployment, open_chat: OpenChat, way: Any
) -> None:
    """All three attempts at the first answer fail; the same question is answered afterwards."""
    prompt = f"fail {way.__name__}"
    fault = {"fault": "error", "fault_at": 5, "fault_requests": 3, "delay_s": 0}
    text = expected_text(prompt, script_of({"messages": [], "upstream": SCRIPT}))
    page = await open_chat(way(deployment.urls[0]), **asking("continue", "b-error", **fault))
    await page.type(prompt)
    (error,) = await page.until("errors().length && errors()", "an error")
    (partial,) = await page.evaluate("texts('ai')")
    assert text.startswith(partial) and partial
    assert "the upstream broke as told" in error

    await page.type(prompt)
    await says(page, text, 1)


@WAYS
async def test_a_refusal_is_shown_as_a_sentence(
    deployment: Deployment, open_chat: OpenChat, way: Any
) -> None:
    page = await open_chat(way(deployment.urls[0]), model="no-such-model")
    await page.type(PROMPT)
    (error,) = await page.until("errors().length && errors()", "an error")
    assert error == "no model 'no-such-model': GET /v1/models lists them"


async def test_the_stop_button_stops_the_upstream(
    deployment: Deployment, api: RawClient, upstream: Upstream, open_chat: OpenChat
) -> None:
    before = len(upstream.calls)
    page = await open_chat(
        over_http(deployment.urls[0]), **asking("continue", "b-stop", tokens=9_999)
    )
    await page.type(PROMPT)
    await page.until("texts('ai')[0]?.length > 40", "some text")
    await page.click("deep-chat .input-button")
    generation_id = await generation_of(api, "b-stop")

    assert (await api.ended(generation_id))["status"] == "cancelled"
    await asyncio.wait_for(upstream.calls[before].left.wait(), 10)
    assert await page.evaluate("errors()") == []


async def test_over_http_a_killed_node_is_an_error_and_keeps_the_text(
    deployment: Deployment, api: RawClient, open_chat: OpenChat
) -> None:
    page = await open_chat(over_http(deployment.urls[0]), **asking("continue", "b-node"))
    await page.type(PROMPT)
    await page.until("texts('ai')[0]?.length > 40", "some text")
    generation_id = await generation_of(api, "b-node")
    deployment.api[0].kill()
    await page.until("errors().length", "an error")
    (partial,) = await page.evaluate("texts('ai')")

    assert TEXT.startswith(partial) and partial != TEXT
    log = await api.events(generation_id, node=deployment.urls[1])
    assert log.events[-1].type == "end"


async def test_over_a_socket_a_killed_node_costs_a_connection_and_no_message(
    deployment: Deployment, open_chat: OpenChat
) -> None:
    """One address for both nodes: the component comes back by itself, and can be asked again."""
    async with Proxy("127.0.0.1", deployment.api[0].port) as balancer:
        url = f"http://127.0.0.1:{balancer.port}"
        page = await open_chat(over_socket(url), **asking("continue", "b-ws-node", delay_s=0))
        await page.type(PROMPT)
        await says(page, TEXT)
        assert await page.evaluate("opened") == 1
        balancer.aim("127.0.0.1", deployment.api[1].port)
        deployment.api[0].kill()
        await page.until("opened === 2 && errors().length === 0", "the second connection")
        await page.type(PROMPT)
        await says(page, TEXT, 1)


async def test_the_key_in_an_answer_does_not_end_it(
    deployment: Deployment, open_chat: OpenChat
) -> None:
    key, text = (
        expected_text(PROMPT, script_of({"messages": [], "upstream": {"tokens": tokens}}))
        for tokens in (1, 3)
    )
    connect = over_socket(deployment.urls[0], key=key)  # which is the first piece of the answer
    page = await open_chat(connect, **asking("continue", "b-key", tokens=3, delay_s=0.1))
    await page.type(PROMPT)
    await says(page, text)


@pytest.mark.parametrize("is_stream", [True, False])
async def test_a_picture_goes_to_the_model_and_another_file_is_refused(
    deployment: Deployment, api: RawClient, upstream: Upstream, open_chat: OpenChat, is_stream: bool
) -> None:
    """As a form, which the component makes of it, and of all else a string."""
    params = json.dumps({"upstream": {**SCRIPT, "delay_s": 0}})
    session = f"b-form-{is_stream}"
    connect = {"url": f"{deployment.urls[0]}/deep-chat", "stream": is_stream}
    page = await open_chat(connect, model="continue", session=session, params=params)
    attach = """
      chat.submitUserMessage({text: "tell me", files: [new File(["abc"], "%s", {type: "%s"})]})
    """
    await page.evaluate("chat.images = chat.mixedFiles = true")
    await page.until("chat.shadowRoot?.querySelector('#text-input')", "the chat")
    await page.evaluate(attach % ("a.png", "image/png"))
    asked = await api.ended(await generation_of(api, session))
    await says(page, asked["text"])
    (message,) = asked["messages"]
    assert message["content"] == [
        {"type": "text", "text": PROMPT},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,YWJj"}},
    ]

    await page.evaluate(attach % ("a.zip", "application/zip"))
    (error,) = await page.until("errors().length && errors()", "an error")
    assert error == "'a.zip': only pictures, PDFs and texts can be given to a model here"
