"""How the chat page looks: nothing for axe-core to find, and the pictures of docs/page.md.

`--write-pictures` writes the pictures into docs/; without it they go to a temporary folder.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.axe import serious
from tests.support.browser import Browser
from tests.support.chat_page import ChatPage
from tests.support.parrot import Parrot
from tests.support.processes import Deployment

DOCS = Path(__file__).parents[2] / "docs"
MODEL = '[models.assistant]\nbackend = "openai"\nbase_url = "{url}"\non_takeover = "restart"\n'
QUESTION = "How does a reader resume? Show me the code, too."
ANSWER = """A reader keeps the **last event id** that it has seen, and sends it back.
Any node continues behind it, over any transport.

| Transport | Where the id goes |
|---|---|
| SSE, NDJSON | header `Last-Event-ID` |
| WebSocket | `last_event_id` in `subscribe` |

```js
const client = new Tailrace({ url: location.origin })
for await (const event of client.attach(id, cursor)) {
  if (event.type === 'token') show(event.text) // each event once, in order
}
```

With $n$ readers the hub still reads the log once, so the work for Redis is $O(1)$ in $n$.

1. The worker appends each token to the log.
2. The node sends it to all readers.
   - A reader that was away gets the rest at once.
   - 流れ, emoji 🌊 and *accents* like é arrive whole.
"""
LOOKS = {
    "light": {"colorScheme": "light", "viewport": {"width": 1200, "height": 960}},
    "dark": {"colorScheme": "dark", "viewport": {"width": 1200, "height": 960}},
    "phone": {"colorScheme": "light", "viewport": {"width": 390, "height": 844}, "hasTouch": True,
              "deviceScaleFactor": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
async def url() -> AsyncIterator[str]:
    async with Parrot() as parrot:
        parrot.says(
            QUESTION,
            ANSWER,
            reasoning="A table and a short program explain cursors best. Then the cost.",
            per_s=40,
            piece=10,
        )
        models = MODEL.format(url=parrot.base_url)
        async with Deployment(api=1, workers=1, models=models) as deployment:
            yield deployment.urls[0]


@pytest.mark.parametrize("look", LOOKS)
async def test_axe_finds_nothing_serious_and_nothing_is_cut_off(
    browser: Browser, url: str, look: str, pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    chat = await ChatPage.open(browser, f"{url}/#{look}", looks=LOOKS[look])
    assert await serious(chat.page) == [], "the empty page"
    await chat.page.screenshot(tmp_path / "empty.png")
    await chat.ask("What is Tailrace?")
    await chat.done()
    await chat.page.click("#figures")
    await chat.ask(QUESTION)
    await chat.done(2)
    await chat.page.until("document.querySelectorAll('.katex').length === 3", "formulas")
    await chat.page.until("document.querySelector('.hljs-keyword')", "colours")
    assert await serious(chat.page) == [], "a conversation"
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert await chat.page.evaluate(wide) == 0, "the page does not scroll to the side"
    assert await chat.page.evaluate("probes.cut()") == []

    await chat.page.evaluate("document.fonts.ready.then(() => true)")
    directory = DOCS if pytestconfig.getoption("--write-pictures") else tmp_path
    await chat.page.screenshot(directory / f"page-{look}.png")
    if look == "phone":
        await chat.page.click("#show-list")
        await chat.page.until(
            "getComputedStyle(document.querySelector('#list')).visibility === 'visible'", "the list"
        )
        assert await serious(chat.page) == [], "the list over the page"
        await chat.page.screenshot(tmp_path / "phone-list.png")
    await chat.page.evaluate("document.querySelector('[aria-label^=Delete]').click()")
    assert await serious(chat.page) == [], "a dialog"
    await chat.close()
