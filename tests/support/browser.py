"""A real browser for tests, driven from Node.js: Debian's headless Chromium, or Firefox.

    async with Browser() as browser:
        page = await browser.open(url)
        assert await page.evaluate("1 + 1") == 2

Pages come from `PageServer`, an origin of its own: what they ask of a node crosses origins, as in a
deployment where the front end is another server's.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.support.npm import CLIENTS, installed, tool
from tests.support.wait import until

CHROMIUM = ("chromium-headless-shell", "chromium")
FIREFOX = ("firefox-esr", "firefox")
ANSWER_S = 30.0
LINE_BYTES_MAX = 2**24


class Browser:
    """Use as an async context manager.

    Args:
        flags: of Chromium's command line.
        within_s: the time limit of each request to the browser.
        is_firefox: Firefox instead of Chromium, without the commands `type`, `attach`, `offline`.
    """

    def __init__(self, *flags: str, within_s: float = ANSWER_S, is_firefox: bool = False) -> None:
        self._program = ("firefox.mjs", FIREFOX) if is_firefox else ("browser.mjs", CHROMIUM)
        self._flags = flags
        self._within_s = within_s
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._ids = itertools.count(1)

    async def __aenter__(self) -> Browser:
        installed()
        self._process = await asyncio.create_subprocess_exec(
            tool("node"),
            str(CLIENTS / self._program[0]),
            tool(*self._program[1]),
            *self._flags,
            cwd=CLIENTS,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES_MAX,
        )
        self._asked[0] = asyncio.get_running_loop().create_future()
        self._reader = asyncio.create_task(self._read())
        await asyncio.wait_for(self._asked[0], max(ANSWER_S, self._within_s))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None and self._process.stdin is not None
        assert self._reader is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), ANSWER_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reader

    async def open(
        self,
        url: str,
        *,
        first: str = "",
        beside: Page | None = None,
        looks: Mapping[str, Any] | None = None,
    ) -> Page:
        """Open a page.

        Args:
            first: a script that runs before any of the page's own.
            beside: a page whose storage the new page shares, as two tabs do; else it has its own.
            looks: the size of the window, the colour scheme and so on, as Playwright names them.
        """
        name = await self.ask(
            "open",
            url=url,
            first=first,
            beside=beside.name if beside else "",
            looks=looks,
            within_s=self._within_s,
        )
        return Page(self, name)

    async def ask(self, name: str, **given: Any) -> Any:
        """Have the driver do something.

        Raises:
            AssertionError: it could not.
        """
        assert self._process is not None and self._process.stdin is not None
        number = next(self._ids)
        self._asked[number] = answered = asyncio.get_running_loop().create_future()
        line = json.dumps({"id": number, "do": name, **given})
        self._process.stdin.write(line.encode() + b"\n")
        return await asyncio.wait_for(answered, self._within_s)

    async def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        while line := await self._process.stdout.readline():
            answer = json.loads(line)
            asked = self._asked.pop(answer["id"])
            if asked.done():
                continue
            if "error" in answer:
                asked.set_exception(AssertionError(answer["error"]))
            else:
                asked.set_result(answer["value"])
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(AssertionError("the browser's driver has ended"))


class Page:
    """One page."""

    def __init__(self, browser: Browser, name: str) -> None:
        self._browser = browser
        self.name = name

    async def evaluate(self, script: str) -> Any:
        """Evaluate an expression in the page; a promise is waited for."""
        return await self._browser.ask("evaluate", page=self.name, script=script)

    async def until(self, script: str, what: str, within_s: float = ANSWER_S) -> Any:
        """Return the expression's value once it is true."""
        return await until(lambda: self.evaluate(script), within_s, what)

    async def type(self, text: str) -> None:
        """Type into deep-chat's input and send it."""
        await self._browser.ask("type", page=self.name, text=text)

    async def fill(self, selector: str, text: str) -> None:
        await self._browser.ask("fill", page=self.name, selector=selector, text=text)

    async def click(self, selector: str) -> None:
        await self._browser.ask("click", page=self.name, selector=selector)

    async def press(self, key: str) -> None:
        """Press a key, by the name that Playwright gives the key."""
        await self._browser.ask("press", page=self.name, key=key)

    async def select(self, selector: str, value: str) -> None:
        """Choose an option of a `select` by its value."""
        await self._browser.ask("select", page=self.name, selector=selector, value=value)

    async def attach(self, selector: str, *paths: Path) -> None:
        """Choose files in an input for files."""
        given = [str(path) for path in paths]
        await self._browser.ask("attach", page=self.name, selector=selector, paths=given)

    async def offline(self, is_offline: bool) -> None:
        """Take the network away from this page and those beside it, or give it back."""
        await self._browser.ask("offline", page=self.name, is_offline=is_offline)

    async def reload(self) -> None:
        await self._browser.ask("reload", page=self.name)

    async def screenshot(self, path: Path) -> None:
        """Write a picture of the visible part of the page, as PNG."""
        await self._browser.ask("screenshot", page=self.name, path=str(path))

    async def errors(self) -> list[str]:
        """What the page threw and nobody caught."""
        found: list[str] = await self._browser.ask("errors", page=self.name)
        return found

    async def close(self) -> None:
        await self._browser.ask("close", page=self.name)


class PageServer:
    """Serves pages and the clients' bundles on an origin of its own. An async context manager.

    Attributes:
        pages: what is served, by path.
    """

    def __init__(self) -> None:
        self.pages: dict[str, str] = {"/": "<!doctype html><title>a page</title>"}
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> PageServer:
        app = web.Application()
        app.router.add_static("/modules", installed())
        app.router.add_get("/{path:.*}", self._page)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _page(self, request: web.Request) -> web.Response:
        page = self.pages.get(request.path)
        if page is None:
            raise web.HTTPNotFound
        return web.Response(text=page, content_type="text/html")
