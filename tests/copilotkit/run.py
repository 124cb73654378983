"""Drives CopilotKit's own chat in Chromium against two nodes, while nodes and workers are killed.

    make copilotkit

The page gives CopilotKit its `HttpAgent` as the agent, with the fetch of `tailrace/ag-ui`; no
CopilotKit runtime is between. One line per scenario; exit code 1 if one fails. It is no part of CI,
because npm installs 500 MB for it.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from shared.redis import keys
from tests.support.browser import Browser, Page, PageServer
from tests.support.npm import INSTALL_S, built, installed
from tests.support.processes import Deployment, Role
from tests.support.proxy import Proxy
from tests.support.upstream import Upstream, expected_text, script_of

HERE = Path(__file__).parent
BUNDLE = ".packed/copilotkit.js"
FONTS = ("woff2", "woff", "ttf")
LEASE_S = 0.8
TABLE = '[models.{name}]\nbackend = "openai"\nbase_url = "{url}"\non_takeover = "{name}"\n'
PROMPT = "tell me"
SCRIPT = {"tokens": 60, "delay_s": 0.05}
ANSWERS = "document.querySelectorAll('[data-testid=copilot-assistant-message]')"
# What a reader sees of the answers, without the white space that Markdown changes.
SHOWN = f"[...{ANSWERS}].map((one) => one.innerText).join('').replace(/\\s+/g, '')"
INPUT = "[data-testid=copilot-chat-textarea]"
SOME_CHARACTERS = 40


def text_of(script: dict[str, Any]) -> str:
    """Return the answer to `PROMPT` as `SHOWN` gives it."""
    text = expected_text(PROMPT, script_of({"messages": [], "upstream": script}))
    return "".join(text.split())


class Chat:
    """A page with a chat, and the way to its node, which can be led to the other one."""

    def __init__(self, deployment: Deployment, proxy: Proxy, page: Page) -> None:
        self.deployment = deployment
        self.proxy = proxy
        self.page = page

    async def ask(self, text: str = PROMPT) -> None:
        await self.page.until(f"document.querySelector({INPUT!r})", "the input")
        await self.page.fill(INPUT, text)
        await self.page.press("Enter")

    async def begins(self) -> None:
        await self.page.until(f"{SHOWN}.length > {SOME_CHARACTERS}", "a part of an answer")

    async def shows(self, text: str) -> None:
        """Wait until the run is over, and compare all that the answers show."""
        await self.page.until("window.agent && !window.agent.isRunning", "the end of the run")
        try:
            await self.page.until(f"{SHOWN} === {text!r}", "the exact text", 10)
        except AssertionError as exc:
            raise AssertionError(f"{exc}; shown: {await self.page.evaluate(SHOWN)}") from exc
        assert await self.page.evaluate("window.unhandled") == []

    async def writer(self) -> Role:
        """Return the worker that writes an answer now."""
        async with self.deployment.redis() as redis:
            async for key in redis.scan_iter(match=keys.meta("*").replace("{*}", "*")):
                status, name = await redis.hmget(key, "status", "worker")
                if status == b"running" and name:
                    return next(r for r in self.deployment.workers if r.ready_name == name.decode())
        raise AssertionError("no worker writes an answer")


async def a_chat(chat: Chat) -> None:
    await chat.ask()
    await chat.shows(text_of(SCRIPT))
    await chat.ask()
    await chat.shows(2 * text_of(SCRIPT))


async def its_node_dies(chat: Chat) -> None:
    await chat.ask()
    await chat.begins()
    chat.proxy.aim("127.0.0.1", chat.deployment.api[1].port)
    chat.deployment.api[0].kill()
    await chat.shows(text_of(SCRIPT))


async def its_worker_dies(chat: Chat) -> None:
    await chat.ask()
    await chat.begins()
    (await chat.writer()).kill()
    await chat.shows(text_of(SCRIPT))


async def it_calls_a_tool(chat: Chat) -> None:
    """CopilotKit runs the call in the page, and sends the result with the next question."""
    await chat.ask()
    await chat.page.until("window.ran.length === 1", "the call")
    ran = "window.agent.messages.filter((one) => one.role === 'tool').length === 1"
    await chat.page.until(ran, "the result")
    await chat.ask()
    await chat.page.until(f"{ANSWERS}.length >= 2", "an answer to the result")


async def it_fails(chat: Chat) -> None:
    await chat.ask()
    await chat.begins()
    await chat.page.until("window.agent && !window.agent.isRunning", "the end of the run")
    shown = await chat.page.evaluate(SHOWN)
    assert text_of(SCRIPT).startswith(shown) and len(shown) > SOME_CHARACTERS, shown


FAILING = {**SCRIPT, "fault": "error", "fault_at": 30, "fault_requests": 0}
CALLING = {"tokens": 3, "tool_call": True}
SCENARIOS: dict[str, tuple[Callable[[Chat], Awaitable[None]], str, dict[str, Any]]] = {
    "two answers": (a_chat, "continue", SCRIPT),
    "its node dies": (its_node_dies, "continue", SCRIPT),
    "its worker dies, the model continues": (its_worker_dies, "continue", SCRIPT),
    "its worker dies, the answer begins anew": (its_worker_dies, "restart", SCRIPT),
    "a tool of the page": (it_calls_a_tool, "continue", CALLING),
    "the model server fails": (it_fails, "restart", FAILING),
}


def bundle() -> None:
    """Bundle the page where a `PageServer` serves it.

    Raises:
        AssertionError: a package is not there, or esbuild could not make the bundle.
    """
    built()
    modules = installed(HERE)
    target = installed() / BUNDLE
    fonts = [f"--loader:.{kind}=empty" for kind in FONTS]
    done = subprocess.run(
        [
            modules / ".bin" / "esbuild", "page.mjs", "--bundle", "--minify", *fonts,
            "--define:process.env.NODE_ENV='production'", f"--outfile={target}",
        ],
        cwd=HERE, capture_output=True, text=True, timeout=INSTALL_S,
        env={**os.environ, "NODE_PATH": str(modules)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@asynccontextmanager
async def chatting(
    deployment: Deployment, browser: Browser, pages: PageServer, model: str, script: dict[str, Any]
) -> AsyncIterator[Chat]:
    """Open a page with a chat at the first node."""
    async with Proxy("127.0.0.1", deployment.api[0].port) as proxy:
        url = f"http://127.0.0.1:{proxy.port}/ag-ui/{model}"
        asked = {"url": url, "params": {"upstream": script}, "thread": uuid.uuid4().hex}
        pages.pages["/copilotkit"] = (
            "<!doctype html><meta charset=utf-8><div id=root style='height:90vh'></div>"
            f"<script>window.asked = {json.dumps(asked)}</script>"
            f"<script src='/modules/{BUNDLE}'></script>"
        )
        page = await browser.open(f"{pages.origin}/copilotkit")
        yield Chat(deployment, proxy, page)
        await page.close()


async def run() -> int:
    """Play the scenarios; return how many failed."""
    bundle()
    failed = 0
    async with Upstream() as upstream, PageServer() as pages, Browser() as browser:
        models = "".join(
            TABLE.format(name=name, url=upstream.base_url) for name in ("continue", "restart")
        )
        settings = {"cors_origins": pages.origin, "attempts_max": "2"}
        async with Deployment(
            api=2, workers=2, lease_s=LEASE_S, models=models, settings=settings
        ) as deployment:
            for name, (play, model, script) in SCENARIOS.items():
                await deployment.heal()
                try:
                    async with chatting(deployment, browser, pages, model, script) as chat:
                        await play(chat)
                    print(f"ok      {name}", flush=True)
                except (AssertionError, TimeoutError) as exc:
                    failed += 1
                    print(f"FAILED  {name}: {exc}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(1 if asyncio.run(run()) else 0)
