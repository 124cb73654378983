"""What the chat page keeps, and where: its address, the key, conversations past their retention.

It works whatever stands in its address, and whatever the browser refuses to keep.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.browser import Browser, Page
from tests.support.processes import Deployment

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
    async with Deployment(api=1, workers=1, models=QUICK, settings=settings) as deployment:
        yield deployment.urls[0]


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


async def test_a_second_tab_has_the_key_of_the_first_and_a_new_browser_has_not(
    browser: Browser, url: str
) -> None:
    first = await browser.open(f"{url}/#tabs")
    await talks(first)
    second = await browser.open(f"{url}/#tabs", beside=first)
    await second.until("document.querySelector('.turn[data-state=completed]')", "the answer")
    assert not await second.evaluate("document.querySelector('#ask-key').open")
    assert await second.evaluate("sessionStorage.length") > 0
    stored = await second.evaluate("JSON.stringify(localStorage)")
    assert KEY not in stored, "the key ends with the session of the browser"

    other = await browser.open(f"{url}/#tabs")
    await other.until("document.querySelector('#ask-key').open", "a new browser asks")
    for page in (first, second, other):
        assert await page.errors() == []
        await page.close()


async def test_a_wrong_key_is_asked_for_again_and_sign_out_forgets_everything(
    browser: Browser, url: str
) -> None:
    page = await browser.open(f"{url}/#wrong")
    await page.until("document.querySelector('#ask-key').open", "the page asks for a key")
    await page.fill("#key", "a-key-that-nobody-has")
    await page.click("#key-form button")
    await page.until("!document.querySelector('#key-problem').hidden", "the key is refused")
    await talks(page)
    await page.click("#sign-out")
    await page.until("document.querySelector('#ask-key').open", "the page asks again")

    assert await page.evaluate("document.querySelectorAll('.turn').length") == 0
    assert await page.evaluate("sessionStorage.getItem('tailrace.key')") is None
    kept = """new Promise((resolve) => {
      const opened = indexedDB.open('tailrace', 1)
      opened.onsuccess = () => {
        const rows = opened.result.transaction('turns').objectStore('turns').count()
        rows.onsuccess = () => resolve(rows.result)
      }
    })"""
    assert await page.evaluate(kept) == 0
    await page.close()


async def test_a_conversation_past_its_retention_stays_in_the_browser_and_says_so(
    browser: Browser,
) -> None:
    settings = {"retention_s": "4"}
    async with Deployment(api=1, workers=1, models=QUICK, settings=settings) as deployment:
        page = await browser.open(f"{deployment.urls[0]}/#old")
        await page.until("document.querySelector('#model').options.length", "the models")
        await page.fill("#prompt", "Remember this")
        await page.click("#send")
        await page.until("document.querySelector('.turn[data-state=completed]')", "an answer")
        answer = await page.evaluate("document.querySelector('.answer').textContent")
        listing = (
            "fetch('/v1/sessions/old').then((r) => r.json()).then((r) => r.generations.length)"
        )
        await page.until(f"{listing}.then((count) => count === 0)", "the end of the retention")
        await page.reload()
        await page.until("!document.querySelector('#kept').hidden", "the page says so")

        assert "no longer keeps" in await page.evaluate(
            "document.querySelector('#kept').textContent"
        )
        assert await page.evaluate("document.querySelector('.answer').textContent") == answer
        listed = """[...document.querySelectorAll('[data-test="conversation"]')]"""
        await page.until(f"{listed}.some((each) => each.textContent === 'Remember this')", "listed")
        await page.fill("#prompt", "And now?")
        await page.click("#send")
        await page.until(
            "document.querySelectorAll('.turn[data-state=completed]').length === 2", "more"
        )
        assert await page.errors() == []
        await page.close()
