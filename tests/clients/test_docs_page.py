"""/docs in a real browser: the forms send what the commands say, and the answers appear."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.axe import serious
from tests.support.browser import Browser, Page
from tests.support.processes import Deployment

QUICK = '[models.demo]\nbackend = "demo"\ntokens_per_s = 0\n'
KEY = "a-key-for-the-page-0123"


@pytest.fixture(scope="module")
async def url() -> AsyncIterator[str]:
    settings = {"api_keys": f"{KEY}:ann"}
    async with Deployment(api=1, workers=1, models=QUICK, settings=settings) as deployment:
        yield deployment.urls[0]


async def opened(browser: Browser, url: str, call: str) -> Page:
    page = await browser.open(f"{url}/docs#{call}")
    await page.until(f"!!document.querySelector('#{call} .try')", "the form of the call")
    return page


def of(call: str, selector: str) -> str:
    return f"document.querySelector('#{call} {selector}').textContent"


async def sent(page: Page, call: str, begins: str) -> str:
    """Send the form; return the answer."""
    await page.click(f"#{call} .send")
    await page.until(f"{of(call, '.status')}.startsWith('{begins}')", f"{begins} from {call}")
    await page.until(f"document.querySelector('#{call} .try button:nth-of-type(2)').hidden", "all")
    found: str = await page.evaluate(of(call, ".output"))
    return found


async def test_a_call_is_tried_and_the_next_call_has_its_id(browser: Browser, url: str) -> None:
    page = await opened(browser, url, "createGeneration")
    await page.fill("#key", KEY)
    made = await sent(page, "createGeneration", "202")
    assert '"status": "queued"' in made

    await page.evaluate("document.querySelector('#readEvents').open = true")
    await page.until("document.querySelector('#readEvents .try')", "the next form")
    events = await sent(page, "readEvents", "200")
    assert "event: start" in events and "event: end" in events
    assert await page.errors() == []
    await page.close()


async def test_without_a_key_the_page_shows_what_the_server_says(
    browser: Browser, url: str
) -> None:
    page = await opened(browser, url, "createGeneration")
    assert "unauthorized" in await sent(page, "createGeneration", "401")
    await page.close()


async def test_the_command_of_a_call_does_the_same(browser: Browser, url: str) -> None:
    page = await opened(browser, url, "createChatCompletion")
    await page.fill("#key", KEY)
    command = await page.evaluate(of("createChatCompletion", ".curl"))
    words = shlex.split(command.replace("$TAILRACE_KEY", KEY))
    assert KEY not in command and words[0] == "curl"
    process = await asyncio.create_subprocess_exec(
        *words, "-s", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()

    assert out.decode().endswith("data: [DONE]\n\n")
    await page.close()


async def test_every_call_can_be_opened_and_has_a_command(browser: Browser, url: str) -> None:
    page = await opened(browser, url, "createGeneration")
    await page.evaluate("document.querySelectorAll('.call').forEach((each) => each.open = true)")
    calls = "document.querySelectorAll('.call').length"
    commands = (
        "[...document.querySelectorAll('.call .curl')]"
        ".filter((each) => each.textContent.startsWith('curl ')).length"
    )
    await page.until(f"{commands} === {calls}", "a command for each call")
    assert await page.evaluate("!document.body.textContent.includes('$ref')")
    assert await page.errors() == []
    await page.close()


async def test_words_filter_the_calls(browser: Browser, url: str) -> None:
    page = await opened(browser, url, "createGeneration")
    await page.fill("#filter", "batches cancel")
    shown = (
        "[...document.querySelectorAll('.call')].filter((each) => each.offsetParent)"
        ".map((each) => each.id).join()"
    )
    assert await page.evaluate(shown) == "cancelBatch"
    await page.fill("#filter", "nothing at all")
    assert await page.evaluate("!document.querySelector('#none').hidden")
    await page.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 390)])
async def test_axe_finds_nothing_serious_and_nothing_is_cut_off(
    browser: Browser, url: str, scheme: str, width: int
) -> None:
    looks = {"colorScheme": scheme, "viewport": {"width": width, "height": 844}}
    page = await browser.open(f"{url}/docs#createGeneration", looks=looks)
    await page.until("document.querySelector('#createGeneration .try')", "the form of the call")
    await page.fill("#key", KEY)
    await sent(page, "createGeneration", "202")
    assert await serious(page) == []
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert await page.evaluate(wide) == 0, "the page does not scroll to the side"
    await page.close()


async def test_firefox_tries_a_call(url: str) -> None:
    async with Browser(is_firefox=True, within_s=60) as firefox:
        page = await opened(firefox, url, "createGeneration")
        await page.fill("#key", KEY)
        assert '"status": "queued"' in await sent(page, "createGeneration", "202")
        assert await serious(page) == []
        assert await page.errors() == []


async def test_a_picture_of_the_page(browser: Browser, url: str, tmp_path: Path) -> None:
    page = await opened(browser, url, "createGeneration")
    await page.fill("#key", KEY)
    await sent(page, "createGeneration", "202")
    await page.screenshot(tmp_path / "docs.png")
    assert (tmp_path / "docs.png").stat().st_size > 10_000
    await page.close()
