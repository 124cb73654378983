"""useChat of @ai-sdk/react in a browser, on a page of another origin, at two nodes."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import quote

import pytest

from shared.redis import keys
from tests.support.browser import Browser, Page, PageServer
from tests.support.npm import bundle
from tests.support.processes import Deployment
from tests.support.raw_client import RawClient
from tests.support.upstream import expected_text, script_of
from tests.support.wait import until

PROMPT = "tell me"
SCRIPT = {"tokens": 60, "delay_s": 0.033}
TEXT = expected_text(PROMPT, script_of({"messages": [], "upstream": SCRIPT}))
HTML = """<!doctype html><meta charset="utf-8"><title>useChat</title>
<body><script>window.options = %s;</script><script>%s</script></body>"""
# What a person sees: the answers, the state, and the error if there is one.
SHOWN = """({
  status: document.querySelector("main").dataset.status,
  asked: [...document.querySelectorAll("p.user")].map((p) => p.textContent),
  answers: [...document.querySelectorAll("p.assistant")].map((p) => p.textContent),
  error: document.querySelector("b")?.textContent ?? null,
})"""
OVER = "['ready', 'error'].includes(document.querySelector('main').dataset.status)"

# The browser lists a request when the whole answer has arrived.
IS_RESUMED = "performance.getEntriesByType('resource').some(({name}) => name.endsWith('/stream'))"

OpenPage = Callable[..., Awaitable[Page]]


@pytest.fixture
async def api(deployment: Deployment) -> AsyncIterator[RawClient]:
    async with RawClient(*deployment.urls) as raw_client:
        yield raw_client


@pytest.fixture
async def open_page(browser: Browser, pages: PageServer) -> AsyncIterator[OpenPage]:
    opened: list[Page] = []

    async def open_page(url: str, chat: str, *, resume: bool = False, **body: Any) -> Page:
        options = {"api": f"{url}/ai-sdk/chat", "id": chat, "resume": resume, "body": body}
        pages.pages["/use-chat"] = HTML % (json.dumps(options), bundle("use-chat.mjs"))
        opened.append(await browser.open(pages.origin + "/use-chat"))
        await opened[-1].until("window.chat?.status", "the chat")
        return opened[-1]

    yield open_page
    for page in opened:
        assert await page.errors() == []
        await page.close()


def asking(model: str, **script: Any) -> dict[str, Any]:
    return {"model": model, "params": {"upstream": {**SCRIPT, **script}}, "resetStep": True}


async def send(page: Page, *, characters: int = 0) -> dict[str, Any]:
    """Ask, and return what is shown once there is so much of the answer, or all of it."""
    await page.evaluate(f"void chat.sendMessage({{text: {json.dumps(PROMPT)}}})")
    if not characters:
        return await over(page)
    await page.until(
        f"document.querySelector('p.assistant')?.textContent.length > {characters}", "some text"
    )
    return dict(await page.evaluate(SHOWN))


async def over(page: Page) -> dict[str, Any]:
    await page.until(f"document.querySelector('p') && {OVER}", "the end")
    return dict(await page.evaluate(SHOWN))


def new_chat() -> str:
    return f"react/{uuid.uuid4()}"


async def run_of(api: RawClient, chat: str) -> str:
    async def listed() -> Any:
        return (await api.get(f"/v1/sessions/{quote(chat)}")).json()["generations"]

    found: Any = await until(listed, 10, f"a run of {chat}")
    return str(found[0]["id"])


async def test_an_answer_is_shown(deployment: Deployment, open_page: OpenPage) -> None:
    page = await open_page(deployment.urls[0], new_chat(), **asking("continue"))
    shown = await send(page)
    assert shown == {"status": "ready", "asked": [PROMPT], "answers": [TEXT], "error": None}


async def test_a_reloaded_page_shows_the_running_answer_from_the_other_node(
    deployment: Deployment, open_page: OpenPage
) -> None:
    chat = new_chat()
    page = await open_page(deployment.urls[0], chat, **asking("continue"))
    assert (await send(page, characters=50))["status"] == "streaming"
    again = await open_page(deployment.urls[1], chat, resume=True)
    assert (await over(again))["answers"] == [TEXT]
    assert (await over(page))["answers"] == [TEXT]


@pytest.mark.parametrize("model", ["continue", "restart"])
async def test_a_killed_worker_leaves_the_exact_text(
    deployment: Deployment, api: RawClient, open_page: OpenPage, model: str
) -> None:
    chat = new_chat()
    page = await open_page(deployment.urls[0], chat, **asking(model))
    await send(page, characters=50)
    async with deployment.redis() as redis:
        name: Any = await redis.hget(keys.meta(await run_of(api, chat)), "worker")
    next(role for role in deployment.workers if role.ready_name == name.decode()).kill()
    shown = await over(page)
    assert (shown["status"], shown["answers"]) == ("ready", [TEXT])


async def test_a_stop_at_the_other_node_is_final(
    deployment: Deployment, api: RawClient, open_page: OpenPage
) -> None:
    chat = new_chat()
    page = await open_page(deployment.urls[0], chat, **asking("continue", tokens=9_999))
    await send(page, characters=50)
    # As docs/clients.md has it: from the page, and then the client's own.
    stop = f"{deployment.urls[1]}/ai-sdk/chat/{quote(chat, safe='')}/stop"
    await page.evaluate(f"fetch('{stop}', {{method: 'POST'}}).then(() => chat.stop())")
    shown = await over(page)
    assert shown["status"] == "ready" and shown["answers"] != [""]
    assert (await api.ended(await run_of(api, chat)))["status"] == "cancelled"
    again = await open_page(deployment.urls[1], chat, resume=True)
    await again.until(f"{IS_RESUMED} && {OVER}", "the answer to the request of the stream")
    assert (await again.evaluate(SHOWN))["answers"] == []


async def test_errors_are_shown_in_words(deployment: Deployment, open_page: OpenPage) -> None:
    page = await open_page(deployment.urls[0], new_chat(), model="no-such-model")
    shown = await send(page)
    assert shown["status"] == "error" and "no model 'no-such-model'" in shown["error"]

    fault = {"fault": "error", "fault_at": 5, "fault_requests": 0, "delay_s": 0}
    page = await open_page(deployment.urls[0], new_chat(), **asking("continue", **fault))
    shown = await send(page)
    (partial,) = shown["answers"]
    assert shown["status"] == "error" and partial and TEXT.startswith(partial)
