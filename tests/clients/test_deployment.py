"""People's JavaScript clients at any deployment: --base-url, --other-url, --key; else at our nodes.

They come through a proxy of ours, so that a connection can be cut and led to the other node without
anything being done to a node; pages are the node's own, so it needs no CORS. The demo model is all
that is asked for, and what a client has in the end is compared with what the node says natively.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from tests.support.browser import Browser, Page
from tests.support.demo import demo_body
from tests.support.node_program import NodeProgram
from tests.support.npm import installed
from tests.support.processes import Deployment
from tests.support.proxy import Proxy
from tests.support.raw_client import RawClient

KINDS = ["default", "workflow", "websocket"]
ENDLESS, PACED, SHORT = (10_000, 25.0), (50, 25.0), (12, 0.0)
# Through import(): a page of the node's may not be told what to load from another origin.
CHAT = """
(async (source, connect, body) => {
  await import(URL.createObjectURL(new Blob([source], {type: "text/javascript"})));
  const chat = window.chat = document.createElement("deep-chat");
  chat._hasBeenRendered = true;  // see test_deep_chat.py
  chat.style.fontFamily = "sans-serif";
  chat.errorMessages = {displayServiceErrorMessages: true};
  chat.connect = {...connect, additionalBodyProps: body};
  document.body.append(chat);
  window.texts = () => chat.getMessages().filter((m) => m.role === "ai").map((m) => m.text);
  window.errors = () =>
    [...chat.shadowRoot.querySelectorAll(".error-message-text")].map((e) => e.innerText);
})
"""


class Way:
    """The way to the deployment: one address that leads to its first node, then to its other."""

    def __init__(self, proxy: Proxy, api: RawClient) -> None:
        self.proxy = proxy
        self.api = api
        self.url = f"http://127.0.0.1:{proxy.port}"
        self.lead(api.url)

    def lead(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.scheme == "http" and parts.hostname, f"{url}: only http can be led through"
        self.proxy.aim(parts.hostname, parts.port or 80)

    async def cut(self) -> None:
        self.lead(self.api.other_url)
        await self.proxy.cut()


@pytest.fixture(scope="module")
def own(request: pytest.FixtureRequest) -> Deployment | None:
    """The nodes of our own, where no deployment is named."""
    if request.config.getoption("--base-url"):
        return None
    deployment: Deployment = request.getfixturevalue("shared_deployment")
    return deployment


@pytest.fixture(scope="module")
def key(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--key"))


@pytest.fixture
async def way(
    request: pytest.FixtureRequest, own: Deployment | None, key: str
) -> AsyncIterator[Way]:
    if own is not None:
        await own.heal()
        urls = own.urls
    else:
        urls = [request.config.getoption(name) for name in ("--base-url", "--other-url")]
    async with RawClient(urls[0], urls[1], key) as api, Proxy("", 0) as proxy:
        yield Way(proxy, api)


@pytest.fixture(scope="module")
async def openai(key: str) -> AsyncIterator[NodeProgram]:
    async with NodeProgram("openai.mjs", key) as program:
        yield program


@pytest.fixture(scope="module")
async def ai_sdk(key: str) -> AsyncIterator[NodeProgram]:
    async with NodeProgram("ai-sdk.mjs", key) as program:
        yield program


@pytest.fixture
async def page(browser: Browser, way: Way) -> AsyncIterator[Page]:
    page = await browser.open(way.url + "/livez")
    yield page
    assert await page.errors() == []
    await page.close()


def told(pace: tuple[int, float], **controls: Any) -> dict[str, Any]:
    return {"demo": demo_body(*pace, **controls)["params"]["demo"]}


def new_name() -> str:
    return f"d/{uuid.uuid4()}"


def value_of(said: dict[str, Any]) -> Any:
    assert "value" in said, said
    return said["value"]


async def text_at(way: Way, generation_id: str) -> str:
    text: str = (await way.api.ended(generation_id))["text"]
    assert text
    return text


# OpenAI's SDK


async def test_openai_chat_completions(way: Way, openai: NodeProgram) -> None:
    assert "demo" in value_of(await openai.ask("models", url=way.url))
    messages = [{"role": "user", "content": "tell me"}]
    body = {"model": "demo", "messages": messages, "stream": True, **told(SHORT)}
    chunks = value_of(await openai.ask("chat", url=way.url, body=body))
    text = "".join(each["choices"][0]["delta"].get("content", "") for each in chunks)
    assert text == await text_at(way, chunks[0]["id"])
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"

    failing = {**body, **told(SHORT, fail_at=2, fail_retryable=False)}
    assert (await openai.ask("chat", url=way.url, body=failing))["error"]["kind"] == "APIError"
    unknown = {**body, "model": "no-such-model"}
    error = (await openai.ask("chat", url=way.url, body=unknown))["error"]
    assert (error["kind"], error["code"]) == ("NotFoundError", "model_not_found")

    endless = {**body, **told(ENDLESS), "on_disconnect": 0.2}
    chunks = value_of(await openai.ask("chat", url=way.url, body=endless, upto=5))
    assert (await way.api.ended(chunks[0]["id"]))["status"] == "cancelled"


async def test_openai_responses_are_cut_and_resume_on_the_other_node(
    way: Way, openai: NodeProgram
) -> None:
    body = {"model": "demo", "input": "tell me", "stream": True, "background": True, **told(PACED)}
    events = value_of(await openai.ask("create", url=way.url, body=body, upto=11))
    response_id = events[0]["response"]["id"]
    await way.cut()
    query = {"stream": True, "starting_after": 11}
    events += value_of(await openai.ask("retrieve", url=way.url, id=response_id, query=query))

    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["type"] == "response.completed"
    (item,) = events[-1]["response"]["output"]
    text = await text_at(way, response_id.replace("resp_", "gen_"))
    assert item["content"][0]["text"] == text
    helped = {"response_id": response_id, "starting_after": 11}
    found = value_of(await openai.ask("helper", url=way.api.url, body=helped))
    assert found["final"]["output_text"] == text
    assert value_of(await openai.ask("call", url=way.url, name="delete", args=[response_id]))
    gone = await openai.ask("call", url=way.api.url, name="retrieve", args=[response_id])
    assert gone["error"]["status"] == 404


async def test_openai_cancels_at_the_other_node(way: Way, openai: NodeProgram) -> None:
    body = {"model": "demo", "input": "x", "stream": True, "background": True, **told(ENDLESS)}
    events = value_of(await openai.ask("create", url=way.url, body=body, upto=11))
    args = [events[0]["response"]["id"]]
    for url in (way.api.other_url, way.api.url):
        found = value_of(await openai.ask("call", url=url, name="cancel", args=args))
        assert found["status"] == "cancelled" and found["output"][0]["content"][0]["text"]


# The AI SDK


async def ask(ai_sdk: NodeProgram, op: str, **asked: Any) -> dict[str, Any]:
    found: dict[str, Any] = value_of(await ai_sdk.ask(op, name="d", **asked))
    return found


async def send(
    ai_sdk: NodeProgram, pace: tuple[int, float], characters: int | None = None, **controls: Any
) -> dict[str, Any]:
    body = {"model": "demo", "params": told(pace, **controls)}
    return await ask(ai_sdk, "send", text="tell me", body=body, characters=characters)


@pytest.mark.parametrize("kind", KINDS)
async def test_ai_sdk_is_cut_and_has_the_whole_answer(
    way: Way, ai_sdk: NodeProgram, kind: str
) -> None:
    await ask(ai_sdk, "open", kind=kind, url=way.url, id=new_name())
    await send(ai_sdk, PACED, characters=30)
    await way.cut()
    said = await ask(ai_sdk, "over")
    if kind != "workflow":
        assert said["status"] == "error"  # never taken for the whole answer
        said = await ask(ai_sdk, "resume")

    assert (said["status"], said.get("error")) == ("ready", None)
    _, answer = said["messages"]
    assert answer["text"] == await text_at(way, answer["id"])


@pytest.mark.parametrize("kind", KINDS)
async def test_ai_sdk_is_stopped_at_the_other_node(
    way: Way, ai_sdk: NodeProgram, kind: str
) -> None:
    chat = new_name()
    await ask(ai_sdk, "open", kind=kind, url=way.url, id=chat)
    # Workflow's transport does not say its chat by itself.
    body = {"model": "demo", "params": told(ENDLESS), "id": chat}
    await ask(ai_sdk, "send", text="tell me", body=body, characters=30)
    path = f"/ai-sdk/chat/{quote(chat, safe='')}"
    for node in (way.api.other_url, way.api.url):
        assert (await way.api.call("POST", f"{path}/stop", node=node)).status == 204
        assert (await way.api.get(f"{path}/stream", node=node)).status == 204
    said = await ask(ai_sdk, "over")

    assert said["status"] == "ready"
    _, answer = said["messages"]
    assert answer["text"] == await text_at(way, answer["id"])


@pytest.mark.parametrize("kind", KINDS)
async def test_ai_sdk_is_told_of_a_failure(way: Way, ai_sdk: NodeProgram, kind: str) -> None:
    await ask(ai_sdk, "open", kind=kind, url=way.url, id=new_name())
    said = await send(ai_sdk, SHORT, fail_at=2, fail_retryable=False)
    assert said["status"] == "error" and "the demo fails" in said["error"]


# In a browser


async def test_event_source_continues_on_the_other_node_and_204_stops_it(
    way: Way, page: Page
) -> None:
    generation_id = await way.api.start(demo_body(*PACED))
    query = f"?access_token={quote(way.api.key)}" if way.api.key else ""
    events = f"/v1/generations/{generation_id}/events{query}"
    await page.evaluate(
        f"""
        window.seen = {{ids: [], text: "", opened: 0}};
        window.source = new EventSource("{events}");
        source.onopen = () => {{ seen.opened += 1; }};
        for (const type of ["start", "token", "usage", "end"])
          source.addEventListener(type, (e) => {{
            seen.ids.push(e.lastEventId);
            if (type === "token") seen.text += JSON.parse(e.data).text;
          }});
        1
        """
    )
    await page.until("seen.ids.length >= 5", "five events")
    await way.cut()
    await page.until("source.readyState === EventSource.CLOSED", "204")

    seen = await page.evaluate("seen")
    places = [tuple(map(int, event_id.split("-"))) for event_id in seen["ids"]]
    assert places == sorted(set(places))
    assert seen["text"] == await text_at(way, generation_id)
    assert seen["opened"] == 2


def over_http(way: Way) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {way.api.key}"} if way.api.key else {}
    return {"url": f"{way.url}/deep-chat", "stream": True, "headers": headers}


def over_socket(way: Way) -> dict[str, Any]:
    key = f"key-{uuid.uuid4()}"
    query = f"?stop_key={key}" + (f"&access_token={quote(way.api.key)}" if way.api.key else "")
    address = way.url.replace("http", "ws", 1) + "/deep-chat/ws" + query
    return {"url": address, "websocket": True, "stream": {"simulation": key}}


async def open_chat(page: Page, connect: dict[str, Any], **body: Any) -> None:
    bundle = installed() / "deep-chat" / "dist" / "deepChat.bundle.js"
    given = ", ".join(json.dumps(each) for each in (bundle.read_text(), connect, body))
    await page.evaluate(f"{CHAT}({given})")
    await page.until("chat.shadowRoot?.querySelector('#text-input')", "the chat")


@pytest.mark.parametrize("connection", [over_http, over_socket])
async def test_deep_chat_shows_answers_and_errors(way: Way, page: Page, connection: Any) -> None:
    session = new_name().replace("/", "-")
    failing = told(SHORT, fail_at=3, fail_retryable=False)
    await open_chat(page, connection(way), model="demo", session=session, params=failing)
    await page.type("tell me")
    (error,) = await page.until("errors().length && errors()", "an error")
    assert "the demo fails" in error
    partial = (await way.api.ended(await way.api.first_of(session)))["text"]
    assert await page.evaluate("texts()") == [partial]


@pytest.mark.parametrize("connection", [over_http, over_socket])
async def test_deep_chat_shows_two_answers(way: Way, page: Page, connection: Any) -> None:
    session = new_name().replace("/", "-")
    await open_chat(page, connection(way), model="demo", session=session, params=told(SHORT))
    for number in (1, 2):
        await page.type("tell me")
        await page.until(f"texts().length === {number}", "an answer")
        await page.until(
            "!chat.shadowRoot.querySelector('.loading-message-text')", "the end of the loading"
        )
    texts = {
        each["id"] for each in (await way.api.get(f"/v1/sessions/{session}")).json()["generations"]
    }
    whole = {await text_at(way, generation_id) for generation_id in texts}
    await page.until(
        f"texts().every((text) => {json.dumps(sorted(whole))}.includes(text))", "texts"
    )


async def test_deep_chat_stops_by_hanging_up(way: Way, page: Page) -> None:
    session = new_name().replace("/", "-")
    body = {"session": session, "params": told(ENDLESS), "on_disconnect": 0.2}
    await open_chat(page, over_http(way), model="demo", **body)
    await page.type("tell me")
    await page.until("texts()[0]?.length > 20", "some text")
    await page.click("deep-chat .input-button")
    assert (await way.api.ended(await way.api.first_of(session)))["status"] == "cancelled"
    assert await page.evaluate("errors()") == []
