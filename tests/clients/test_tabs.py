"""`tailrace/tabs` in a browser: the frames of a page stand for the tabs of an origin."""

from __future__ import annotations

import json
from typing import Any

from tests.support import npm
from tests.support.browser import Browser, Page, PageServer
from tests.support.client import Client
from tests.support.demo import demo_body
from tests.support.processes import Deployment
from tests.support.scenario_proxy import ScenarioProxy
from tests.support.scenarios import problems_of

TABS = 4
TAB = """<!doctype html><meta charset="utf-8"><script>window.options = %s;</script>
<script>%s</script>"""
PAGE = "<!doctype html><body>" + "<iframe src=/tab></iframe>" * TABS
WINDOWS = "[...document.querySelectorAll('iframe')].map((each) => each.contentWindow)"
READY = f"{WINDOWS}.every((tab) => tab.read)"
OVER = f"{WINDOWS}.every(({{said}}) => said.text !== undefined || said.error)"


async def opened(browser: Browser, pages: PageServer, url: str) -> Page:
    npm.built()
    pages.pages["/tab"] = TAB % (json.dumps({"url": url}), npm.bundle("tailrace-tabs.mjs"))
    pages.pages["/tabs"] = PAGE
    page = await browser.open(pages.origin + "/tabs")
    await page.until(READY, "the tabs")
    return page


async def outcomes(page: Page, generation_id: str) -> list[dict[str, Any]]:
    await page.until(OVER, "the ends")
    said = await page.evaluate(f"{WINDOWS}.map(({{said}}) => said)")
    return [
        {
            "id": generation_id,
            "events": each["events"],
            "result": {"text": each.get("text"), "status": each["events"][-1]["status"]},
            "cursor": each["events"][-1]["id"],
        }
        for each in said
    ]


async def test_all_tabs_read_over_one_socket(
    deployment: Deployment, browser: Browser, pages: PageServer
) -> None:
    body = demo_body(60, 40)
    async with ScenarioProxy([deployment.api[0].port]) as proxy, Client(deployment.urls) as client:
        page = await opened(browser, pages, proxy.url)
        generation_id = (await client.start(body))["id"]
        await page.evaluate(f"{WINDOWS}.forEach((tab) => void tab.read('{generation_id}'))")
        found = await outcomes(page, generation_id)
        await page.close()

    assert [problem for each in found for problem in problems_of(each, body)] == []
    assert proxy.upgrades == 1


async def test_the_tabs_go_on_when_the_tab_that_leads_is_closed(
    deployment: Deployment, browser: Browser, pages: PageServer
) -> None:
    """The first frame asked for the lock first, or another did: each is closed in its turn."""
    body = demo_body(150, 30)
    async with ScenarioProxy([deployment.api[0].port]) as proxy, Client(deployment.urls) as client:
        page = await opened(browser, pages, proxy.url)
        generation_id = (await client.start(body))["id"]
        await page.evaluate(f"{WINDOWS}.forEach((tab) => void tab.read('{generation_id}'))")
        for _ in range(TABS - 1):
            most = f"Math.max(...{WINDOWS}.map(({{said}}) => said.events.length))"
            before = await page.evaluate(most)
            await page.until(f"{most} > {before} + 3", "further events")
            await page.evaluate("document.querySelector('iframe').remove()")
        found = await outcomes(page, generation_id)
        await page.close()

    assert len(found) == 1
    assert [problem for each in found for problem in problems_of(each, body)] == []


async def test_a_refusal_reaches_the_tab_that_asked(
    deployment: Deployment, browser: Browser, pages: PageServer
) -> None:
    page = await opened(browser, pages, deployment.urls[0])
    unknown = "gen_00000000000000000000"
    await page.evaluate(f"{WINDOWS}.forEach((tab) => void tab.read('{unknown}'))")
    await page.until(OVER, "the errors")
    said = await page.evaluate(f"{WINDOWS}.map(({{said}}) => said.error)")
    await page.close()

    assert said == [{"code": "not_found", "retryable": False}] * TABS
