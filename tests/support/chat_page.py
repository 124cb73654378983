"""The chat page in a browser, by the hooks that docs/page.md promises."""

from __future__ import annotations

from typing import Any

from tests.support.browser import ANSWER_S, Browser, Page
from tests.support.npm import CLIENTS

PROMPT, SEND, STOP = '[data-test="prompt"]', '[data-test="send"]', '[data-test="stop"]'
TRANSPORT = '[data-test="transport"]'
TURNS = "[...document.querySelectorAll('.turn')]"
# In this order: on the page. `textContent` is what the model wrote.
ANSWERS = (
    """[...document.querySelectorAll('[data-test="answer"]')].map((each) => each.textContent)"""
)
PROMPTS = "[...document.querySelectorAll('.prompt-text')].map((each) => each.textContent)"
CONVERSATIONS = """[...document.querySelectorAll('[data-test="conversation"]')]
  .map((each) => each.textContent)"""


class ChatPage:
    """One open chat page."""

    def __init__(self, page: Page) -> None:
        self.page = page

    @classmethod
    async def open(cls, browser: Browser, url: str, **options: Any) -> ChatPage:
        """Open the page with tests/clients/probes.js, and wait until the models are known."""
        probes = (CLIENTS / "probes.js").read_text()
        page = await browser.open(url, first=probes, **options)
        opened = cls(page)
        await page.until("document.querySelector('#model').options.length", "the models")
        return opened

    async def ask(self, prompt: str, model: str = "") -> None:
        if model:
            await self.page.select("#model", model)
        await self.page.fill(PROMPT, prompt)
        await self.page.click(SEND)

    async def done(self, turns: int = 1, within_s: float = ANSWER_S) -> list[str]:
        """Wait until so many turns are shown and all of them have ended; return the answers."""
        ended = "['completed', 'cancelled', 'failed'].includes(each.dataset.state)"
        script = f"{TURNS}.length === {turns} && {TURNS}.every((each) => {ended})"
        await self.page.until(script, f"the end of {turns} answers", within_s)
        return await self.answers()

    async def shows(self, text: str) -> None:
        """Wait until some answer contains the text."""
        await self.page.until(f"{ANSWERS}.some((each) => each.includes({text!r}))", f"{text!r}")

    async def answers(self) -> list[str]:
        found: list[str] = await self.page.evaluate(ANSWERS)
        return found

    async def prompts(self) -> list[str]:
        found: list[str] = await self.page.evaluate(PROMPTS)
        return found

    async def states(self) -> list[str]:
        found: list[str] = await self.page.evaluate(f"{TURNS}.map((each) => each.dataset.state)")
        return found

    async def conversations(self) -> list[str]:
        found: list[str] = await self.page.evaluate(CONVERSATIONS)
        return found

    async def newest_id(self) -> str:
        """The id of the newest generation of the conversation, from the server."""
        listing = "fetch('/v1/sessions/' + location.hash.slice(1)).then((r) => r.json())"
        return str(await self.page.evaluate(f"{listing}.then((r) => r.generations[0].id)"))

    async def has_focus(self, selector: str) -> bool:
        return bool(await self.page.evaluate(f"document.activeElement.matches({selector!r})"))

    async def close(self) -> None:
        """Close the page, which must have thrown nothing and met no limit of its policy."""
        assert await self.page.errors() == []
        assert await self.page.evaluate("probes.blocked") == []
        await self.page.close()
