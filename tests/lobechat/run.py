"""Drives LobeChat's own application in Chromium against a node, and writes a picture of it.

    make lobechat

Each scenario asks in LobeChat and looks at the page. The worker gets another demo model for each
scenario, under the same name. One line per scenario; exit code 1 if one fails.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.lobechat.app import LobeChat
from tests.support.browser import Browser, Page
from tests.support.processes import Deployment, Role
from tests.support.redis_server import free_port
from tests.support.wait import until

PICTURE = Path(__file__).parents[2] / "docs" / "lobechat.png"
ANSWER_S = 120.0  # the development server compiles a route when it is asked for
PAGE_S = 900.0
# The list of messages keeps only those near the visible part in the page.
TO_BOTTOM = (
    "document.querySelectorAll('[data-virtuoso-scroller]')"
    ".forEach((each) => { each.scrollTop = each.scrollHeight; })"
)
TEXT_CHARACTERS = 150  # of an answer with its time and the name of its model
SENTENCE = "This model's maximum context length is 8192 tokens."
USUAL = "tokens_per_s = 30\ntokens = 60"
SLOW = "tokens_per_s = 10\ntokens = 120"
# A call of a tool that this conversation does not have: the page shows the call and its failure.
TOOL = "forecast"
CALLING = f"""tokens_per_s = 0
tokens = 5
tool_call = "weather____{TOOL}____default\""""
ENDLESS = "tokens_per_s = 10\ntokens = 1200"
STOP_BUTTON = "button:has(svg rect[rx='24'])"  # the square of its icon
THINKING = "tokens_per_s = 40\ntokens = 40\nreasoning_tokens = 20"
REFUSING = f"""fail_at = 0
fail_always = true
fail_retryable = false
fail_code = "upstream_refused"
fail_upstream = {{message = "{SENTENCE}", status = 400, code = "context_length_exceeded"}}"""
BREAKING = f"""fail_at = 20
fail_always = true
fail_retryable = false
fail_code = "upstream_refused"
fail_upstream = {{message = "{SENTENCE}", status = 400, code = "bad_luck"}}"""


def models(options: str) -> str:
    return f'[models.demo]\nbackend = "demo"\non_takeover = "continue"\n{options}\n'


class Conversation:
    """One conversation of LobeChat's page.

    Attributes:
        answer: the script for the text of the newest answer.
    """

    def __init__(self, deployment: Deployment, page: Page) -> None:
        self.deployment = deployment
        self.page = page
        self.question = ""

    @property
    def answer(self) -> str:
        return (
            f"({TO_BOTTOM}, ([...document.querySelectorAll('[data-item-index]')]"
            f".filter((each) => each.innerText.trim().endsWith({self.question!r})).at(-1)"
            "?.nextElementSibling?.innerText ?? '').replace(/\\s+/g, ' '))"
        )

    async def choose(self) -> None:
        """Choose the model `demo`, as a user does."""
        await self.page.until("document.querySelector('.ant-tag')", "the page", PAGE_S)
        await self.page.click(".ant-tag >> nth=0")
        await self.page.click("[data-menu-id$='openai-demo'] >> visible=true")
        await self.page.until("document.querySelector('.ant-tag').innerText === 'demo'", "demo")

    async def become(self, options: str) -> None:
        """Restart the workers with another demo model."""
        (self.deployment.directory / "models.toml").write_text(models(options))
        for worker in self.deployment.workers:
            if worker.is_running:
                worker.terminate()
                await worker.ended(20)
            worker.start()
        await self.deployment.ready(self.deployment.workers)

    async def ask(self, text: str) -> None:
        self.question = text
        await self.page.click("[contenteditable=true]")
        await self.page.evaluate(f"document.execCommand('insertText', false, {text!r})")
        await self.page.press("Enter")

    async def shows(self, text: str) -> None:
        """Wait until the newest answer shows this text."""
        script = f"{self.answer}.includes({text!r})"
        try:
            await self.page.until(script, text, ANSWER_S)
        except AssertionError as exc:
            raise AssertionError(f"{exc}; shown: {await self.page.evaluate(self.answer)}") from exc

    async def has_text(self, within_s: float = ANSWER_S) -> None:
        """Wait until the newest answer has some text."""
        await self.page.until(f"{self.answer}.length > {TEXT_CHARACTERS}", "a text", within_s)

    async def is_complete(self) -> str:
        """Wait for the name of the model below the newest answer; return what stands there."""
        await self.page.until(f"/ demo \\d+$/.test({self.answer}.trim())", "the end", ANSWER_S)
        shown: str = await self.page.evaluate(self.answer)
        return shown

    async def is_idle(self) -> bool:
        """Whether no worker writes an answer."""
        async with self.deployment.redis() as redis:
            keys = [key async for key in redis.scan_iter(match="tr:*:meta")]
            return b"running" not in [await redis.hget(key, "status") for key in keys]

    async def writer(self) -> Role:
        """Return the worker that writes the newest answer."""

        async def name() -> str:
            async with self.deployment.redis() as redis:
                for key in [key async for key in redis.scan_iter(match="tr:*:meta")]:
                    status, worker = await redis.hmget(key, "status", "worker")
                    if status == b"running" and worker:
                        return str(worker, "ascii")
            return ""

        found = await until(name, 30, "a worker that writes")
        return next(role for role in self.deployment.workers if role.ready_name == found)


async def answers(talk: Conversation) -> None:
    await talk.become(USUAL)
    await talk.ask("What is a tailrace?")
    await talk.has_text(PAGE_S)  # the routes of a first answer are compiled now
    await talk.is_complete()


async def thinks(talk: Conversation) -> None:
    await talk.become(THINKING)
    await talk.ask("Think first")
    await talk.shows("Deeply Thought")
    await talk.is_complete()


async def calls_a_tool(talk: Conversation) -> None:
    await talk.become(CALLING)
    await talk.ask("Call your tool")
    await talk.shows(TOOL)


async def stops(talk: Conversation) -> None:
    await talk.become(ENDLESS)
    await talk.ask("Stop this")
    await talk.has_text()
    await talk.page.click(STOP_BUTTON)
    # The mouse goes elsewhere: below it a menu has opened, which covers the field for the prompt.
    await talk.page.click("[data-item-index] >> nth=-1")
    # The node cancels the generation, because its only reader has gone.
    await until(talk.is_idle, ANSWER_S, "the end of the answer")
    shown = await talk.page.evaluate(talk.answer)
    assert TEXT_CHARACTERS < len(shown) < 5_000, f"the answer has {len(shown)} characters"


async def loses_its_worker(talk: Conversation) -> None:
    await talk.become(SLOW)
    await talk.ask("Lose your worker")
    await talk.has_text()
    beginning = (await talk.page.evaluate(talk.answer))[: TEXT_CHARACTERS - 30]
    (await talk.writer()).kill()
    shown = await talk.is_complete()
    assert shown.startswith(beginning), f"{beginning!r} has become {shown!r}"
    assert shown.count("Lose your worker") == 1, f"begun anew: {shown}"


async def refuses(talk: Conversation) -> None:
    await talk.become(REFUSING)
    await talk.ask("Too long")
    await talk.shows("exceeds the length")


async def breaks(talk: Conversation) -> None:
    await talk.become(BREAKING)
    await talk.ask("Break off")
    # LobeChat's page says so of every stream that breaks, and keeps the text.
    await talk.shows("network error")
    await talk.shows("Break off")


async def reloads(talk: Conversation) -> None:
    await talk.page.reload()
    await talk.shows("network error")


SCENARIOS: tuple[tuple[str, Callable[[Conversation], Awaitable[None]]], ...] = (
    ("an answer streams", answers),
    ("reasoning stands apart", thinks),
    ("the stop button ends the answer", stops),
    ("a killed worker is not noticed", loses_its_worker),
    ("a refusal before the first token is shown", refuses),
    ("a failure in mid-answer is shown beside the text", breaks),
    ("a reload keeps the conversation", reloads),
    # The last: LobeChat takes no prompt until its gateway of plug-ins, a public one, has failed.
    ("a call of a tool is shown", calls_a_tool),
)


async def try_all(deployment: Deployment, page: Page) -> int:
    """Run the scenarios one after the other; return how many failed."""
    talk = Conversation(deployment, page)
    await talk.choose()
    failed = 0
    for name, scenario in SCENARIOS:
        try:
            await scenario(talk)
        except AssertionError as exc:
            failed += 1
            print(f"FAILED  {name}: {exc}", flush=True)
        else:
            print(f"passed  {name}", flush=True)
        if scenario is thinks:
            await page.screenshot(PICTURE)
    return failed


async def main() -> int:
    settings = {"lease_s": "1"}
    async with Deployment(api=1, workers=2, models=models(USUAL), settings=settings) as deployment:
        async with LobeChat(f"{deployment.urls[0]}/v1", free_port()) as lobechat:
            async with Browser(within_s=PAGE_S) as browser:
                return (
                    1
                    if await try_all(deployment, await browser.open(f"{lobechat.url}/chat"))
                    else 0
                )


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
