"""The chat page in Firefox: what tests/clients/test_page_*.py try in Chromium, once through."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.browser import Browser
from tests.support.chat_page import PROMPT, SEND, STOP, TRANSPORT, ChatPage
from tests.support.parrot import Parrot
from tests.support.processes import Deployment

MODEL = '[models.parrot]\nbackend = "openai"\nbase_url = "{url}"\non_takeover = "restart"\n'
STORY = " ".join(f"word-{number}" for number in range(400))
RICH = """# Title

| a |
|---|
| 1 |

```python
def f(): pass
```

$x^2$ <img src=x onerror=window.hit=1>
"""


@pytest.fixture(scope="module")
async def firefox() -> AsyncIterator[Browser]:
    async with Browser(is_firefox=True, within_s=60) as browser:
        yield browser


@pytest.fixture(scope="module")
async def parrot() -> AsyncIterator[Parrot]:
    async with Parrot() as parrot:
        yield parrot


@pytest.fixture(scope="module")
async def url(parrot: Parrot) -> AsyncIterator[str]:
    models = MODEL.format(url=parrot.base_url)
    async with Deployment(api=1, workers=1, models=models) as deployment:
        yield deployment.urls[0]


@pytest.mark.parametrize("transport", ["websocket", "sse", "ndjson", "poll"])
async def test_firefox_goes_on_after_a_reload_in_mid_answer(
    firefox: Browser, url: str, parrot: Parrot, transport: str
) -> None:
    prompt = f"A story over {transport}"
    line = parrot.says(prompt, STORY, hold_at=200)
    chat = await ChatPage.open(firefox, f"{url}/#{transport}")
    await chat.page.select(TRANSPORT, transport)
    await chat.ask(prompt)
    await chat.shows("word-80")
    await chat.page.reload()
    await chat.shows("word-80")
    line.held.set()

    assert await chat.done() == [STORY]
    await chat.close()


async def test_firefox_shows_a_conversation_in_two_tabs_and_stops(
    firefox: Browser, url: str, parrot: Parrot
) -> None:
    parrot.says("two tabs", STORY, hold_at=200)
    here = await ChatPage.open(firefox, f"{url}/#two")
    there = await ChatPage.open(firefox, f"{url}/#two", beside=here.page)
    await there.ask("two tabs")
    await here.shows("word-80")
    await here.page.click(STOP)
    answers = await here.done()

    assert answers == await there.done()
    assert STORY.startswith(answers[0])
    assert await here.has_focus(PROMPT)
    assert await here.page.evaluate(f"document.querySelector('{SEND}').disabled")
    for each in (here, there):
        await each.close()


async def test_firefox_renders_markdown_and_runs_nothing_of_it(
    firefox: Browser, url: str, parrot: Parrot
) -> None:
    parrot.says("rich", RICH)
    chat = await ChatPage.open(firefox, f"{url}/#rich")
    await chat.ask("rich")
    await chat.done()
    for part in ("h3", "td", ".hljs-keyword", ".katex"):
        await chat.page.until(f"document.querySelector('.answer {part}') !== null", part)

    assert await chat.page.evaluate("window.hit ?? null") is None
    assert await chat.page.evaluate("document.querySelector('.answer img')") is None
    await chat.close()
