"""The chat page lives, whatever stands in its address, and whatever the browser refuses to keep."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.browser import Browser, Page
from tests.support.processes import Cluster

QUICK = '[models.demo]\nbackend = "demo"\non_takeover = "continue"\ntokens_per_s = 0\n'
KEY = "a-key-for-the-page-0123"
REFUSING = """
const refuse = { get() { throw new DOMException("refused", "SecurityError"); } };
Object.defineProperty(window, "localStorage", refuse);
Object.defineProperty(window, "sessionStorage", refuse);
window.BroadcastChannel = class { constructor() { throw new DOMException("refused"); } };
"""
FULL = """
Storage.prototype.setItem = () => { throw new DOMException("full", "QuotaExceededError"); };
"""
# Left by another program at this origin, or by an older page.
ODD = 'localStorage.setItem("tailrace.session", "half a pair \\ud800");'
FRAGMENTS = {
    "a bare percent sign": "%",
    "half a character": "%E0%A4%A",
    "no text": "%ff",
    "a path": "..",
    "a control character": "%00",
    "too long": "x" * 200,
}


@pytest.fixture(scope="module")
async def url() -> AsyncIterator[str]:
    settings = {"api_keys": f"{KEY}:ann"}
    async with Cluster(api=1, workers=1, models=QUICK, settings=settings) as cluster:
        yield cluster.urls[0]


async def talks(page: Page) -> None:
    """Give the key where it is asked for, ask something, and see the answer."""
    await page.until("document.querySelector('#ask-key').open", "the page asks for a key")
    await page.fill("#key", KEY)
    await page.click("#key-form button")
    await page.until("document.querySelector('#model').options.length", "the models")
    await page.fill("#prompt", "Hello")
    await page.click("#send")
    await page.until("document.querySelector('.turn[data-state=completed] .answer')", "an answer")
    assert await page.evaluate("document.querySelector('#problem').hidden")
    assert await page.errors() == []


@pytest.mark.parametrize("name", FRAGMENTS)
async def test_an_address_without_a_session_gets_a_new_session(
    browser: Browser, url: str, name: str
) -> None:
    page = await browser.open(f"{url}/#{FRAGMENTS[name]}")

    await talks(page)
    await page.close()


async def test_an_address_that_loses_its_session_gets_a_new_session(
    browser: Browser, url: str
) -> None:
    page = await browser.open(f"{url}/#mine")
    await page.evaluate("location.hash = '%'")
    await page.evaluate("location.hash = '%ff'")

    await talks(page)
    await page.close()


@pytest.mark.parametrize("first", [REFUSING, FULL, ODD], ids=["refused", "full", "odd"])
async def test_the_page_works_in_a_browser_without_storage(
    browser: Browser, url: str, first: str
) -> None:
    """The key that was given is remembered for this tab all the same."""
    page = await browser.open(url + "/", first=first)

    await talks(page)
    await page.close()
