"""The buttons of "Break it" in a real browser: after each fault the page counts nothing lost.

The counts, the text on the screen and the checksum of the demo's text must all agree. One of the
tests makes the picture of the README.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.axe import serious
from tests.support.browser import Browser, Page
from tests.support.local_up import LocalUp

ROOT = Path(__file__).resolve().parents[2]
MODELS = (
    '[models.demo]\nbackend = "demo"\non_takeover = "continue"\ntokens = {}\ntokens_per_s = 60\n'
)
TOKENS = 500
PICTURE = ROOT / "docs" / "break-it.png"
FAULTS = ["connection", "node", "worker", "freeze", "redis"]
SOON_S = 90.0  # a killed process starts in a second; on a busy machine Python needs several


@pytest.fixture(scope="module")
async def up(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalUp]:
    models = tmp_path_factory.mktemp("models") / "models.toml"
    models.write_text(MODELS.format(TOKENS))
    async with LocalUp(lease_s="1.5", models=str(models)) as up:
        yield up


def of(name: str) -> str:
    return f"document.querySelector('[data-test={name}]').textContent"


async def ask(page: Page, prompt: str) -> None:
    await page.until("!document.querySelector('#break').hidden", "the page can break the node")
    await page.until("document.querySelector('#model').options.length", "the models")
    await page.fill("[data-test=prompt]", prompt)
    await page.click("[data-test=send]")


async def receives(page: Page, more: int) -> None:
    """Wait until so many further events have arrived; ids and counts are those of this answer."""
    before = int(await page.evaluate(of("count-received")))
    await page.until(f"Number({of('count-received')}) >= {before + more}", "text", SOON_S)


async def attempt(page: Page) -> int:
    rows = await page.evaluate(of("break-rows"))
    return max([1, *map(int, re.findall(r"attempt (\d+)", rows))])


async def break_it(page: Page, fault: str) -> None:
    """Click one button; after a fault of the worker another attempt must begin."""
    before = await attempt(page)
    await page.click(f"[data-test=break-{fault}]")
    if fault in ("worker", "freeze"):
        rises = f"{of('break-rows')}.includes('attempt {before + 1},')"
        await page.until(rises, f"another attempt after {fault}", SOON_S)
    await receives(page, 10)


async def counts(page: Page) -> dict[str, str]:
    names = ("lost", "repeated", "disordered")
    return {name: await page.evaluate(of(f"count-{name}")) for name in names}


async def is_exact(page: Page) -> None:
    """The answer ends, nothing is lost, and the text is the demo's, letter for letter."""
    check = "document.querySelector('[data-test=text-check]').dataset.exact"
    await page.until(f"{check} !== ''", "the page compares the text", SOON_S)

    assert await counts(page) == {"lost": "0", "repeated": "0", "disordered": "0"}
    assert await page.evaluate(check) == "true", await page.evaluate(of("text-check"))
    refused = "can’t establish a connection"  # how Firefox reports a node that is away
    assert [each for each in await page.errors() if refused not in each] == []


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_answer_goes_on_and_the_page_counts_nothing_lost(
    browser: Browser, up: LocalUp, fault: str
) -> None:
    page = await browser.open(f"{up.url}/#{fault}")
    await ask(page, f"What happens when the {fault} breaks?")
    await receives(page, 20)
    await break_it(page, fault)
    if fault == "connection":
        assert "connected again" in await page.evaluate(of("break-rows"))
    await is_exact(page)
    await page.close()


@pytest.mark.parametrize("look", ["light", "dark", "phone"])
async def test_axe_finds_nothing_serious_in_the_panel(
    browser: Browser, up: LocalUp, look: str, tmp_path: Path
) -> None:
    size = {"width": 390, "height": 844} if look == "phone" else {"width": 1280, "height": 800}
    looks = {"colorScheme": "dark" if look == "dark" else "light", "viewport": size}
    page = await browser.open(f"{up.url}/#axe-{look}", looks=looks)
    await ask(page, f"How does the panel look in {look}?")
    await receives(page, 20)
    await break_it(page, "connection")
    assert await serious(page) == []
    await page.screenshot(tmp_path / f"break-it-{look}.png")
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert await page.evaluate(wide) == 0, "the page does not scroll to the side"
    await page.close()


async def test_firefox_counts_nothing_lost(up: LocalUp) -> None:
    async with Browser(is_firefox=True, within_s=60) as firefox:
        page = await firefox.open(f"{up.url}/#firefox")
        await ask(page, "What happens in Firefox?")
        await receives(page, 20)
        for fault in ("worker", "connection"):
            await break_it(page, fault)
        assert await serious(page) == []
        await is_exact(page)


async def test_faults_in_quick_succession_reach_the_answer(browser: Browser, up: LocalUp) -> None:
    """Without a pause between them, and the first one before a node has accepted the prompt."""
    page = await browser.open(f"{up.url}/#quick")
    await ask(page, "What happens when all breaks at once?")
    quick = ("worker", "connection", "node", "freeze", "redis")
    hooks = [f"document.querySelector('[data-test=break-{fault}]').click()" for fault in quick]
    await page.evaluate(f"({', '.join(hooks)})")
    rises = r"/attempt (\d{2,}|[2-9])/.test(" + of("break-rows") + ")"
    await page.until(rises, "another attempt", SOON_S)
    await is_exact(page)
    await page.close()


async def test_every_control_is_in_the_empty_page(browser: Browser, up: LocalUp) -> None:
    page = await browser.open(f"{up.url}/#nothing-yet")
    buttons = [f"break-{fault}" for fault in FAULTS]
    numbers = [f"count-{name}" for name in ("received", "lost", "repeated", "disordered")]
    for name in buttons:
        assert await page.evaluate(f"!!document.querySelector('button[data-test={name}]')"), name
    assert [await page.evaluate(of(name)) for name in numbers] == ["0"] * 4
    await page.close()


async def test_a_legend_names_what_the_strip_shows(browser: Browser, up: LocalUp) -> None:
    """Each kind of piece has the colour of its entry, and there is no legend without a strip."""
    page = await browser.open(f"{up.url}/#legend")
    shown = "document.querySelector('[data-test=break-legend]').offsetParent !== null"
    await page.until("!document.querySelector('#break').hidden", "the panel")
    assert not await page.evaluate(shown)
    await ask(page, "What does the strip show?")
    await receives(page, 20)
    await break_it(page, "connection")
    await page.until("document.querySelector('#break-strip .fault')", "the mark of the fault")

    assert await page.evaluate(shown)
    kinds = "[...document.querySelectorAll('#break-legend span')].map((each) => each.className)"
    assert await page.evaluate(kinds) == ["text", "wait", "fault"]
    for kind in ("text", "fault"):
        colour = "getComputedStyle(document.querySelector('{} .{}')).backgroundColor"
        strip, legend = (colour.format(part, kind) for part in ("#break-strip", "#break-legend"))
        assert await page.evaluate(f"{strip} === {legend}"), kind
    await page.close()


async def test_the_panel_stays_folded_when_the_page_is_loaded_again(
    browser: Browser, up: LocalUp
) -> None:
    page = await browser.open(f"{up.url}/#folded")
    await page.until("!document.querySelector('#break').hidden", "the panel")
    await page.click("#break-fold")
    await page.reload()
    await page.until("!document.querySelector('#break').hidden", "the panel")
    shown = "document.querySelector('[data-test=break-node]').offsetParent !== null"
    assert not await page.evaluate(shown)
    await page.click("#break-fold")
    assert await page.evaluate(shown)
    await page.close()


async def test_the_answer_goes_on_when_its_slot_moves_and_its_master_dies(
    browser: Browser,
) -> None:
    async with LocalUp("--cluster", lease_s="1.5") as up:
        page = await browser.open(f"{up.url}/#slot")
        await ask(page, "What happens when the slot moves?")
        await receives(page, 20)
        for fault, said in (("slot", "moved from port"), ("redis", "was killed by SIGKILL")):
            await break_it(page, fault)
            await page.until(f"{of('break-rows')}.includes('{said}')", f"the note of {fault}")
        await is_exact(page)
        await page.close()


async def test_the_picture_of_the_readme(
    browser: Browser, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """With the demo as `make up` serves it. `--write-pictures` writes docs/break-it.png again."""
    async with LocalUp() as up:
        page = await browser.open(f"{up.url}/#break-it")
        await ask(page, "What happens to this answer when I kill its worker?")
        await receives(page, 40)
        await break_it(page, "worker")
        await receives(page, 40)
        await break_it(page, "connection")
        await is_exact(page)
        is_new = request.config.getoption("--write-pictures")
        await page.screenshot(PICTURE if is_new else tmp_path / "break-it.png")
        await page.close()
