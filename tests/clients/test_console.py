"""The operators' console in real browsers, at two nodes whose workers are killed and drained.

`--write-pictures` writes the pictures of docs/console.md; without it they go to a temporary folder.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from shared.console.board import history_command, points_of
from shared.console.histogram import merged, quantile
from shared.redis.pipeline import ClientPipeline
from tests.support import batch, npm
from tests.support.browser import Browser, Page
from tests.support.processes import Deployment
from tests.support.receiver import SECRET, Receiver
from tests.support.wait import until

DOCS = Path(__file__).parents[2] / "docs"
OLGA, ANN, BOB = "key-of-olga-0123456789", "key-of-ann-0123456789", "key-of-bob-0123456789"
BLIND = "key-of-blind-0123456789"
KEYS = f"{OLGA}:olga:admin content,{BLIND}:blanche:admin,{ANN}:ann,{BOB}:bob"
MODELS = """
[models.demo]
backend = "demo"
on_takeover = "continue"
[models.large]
backend = "demo"
on_takeover = "continue"
"""
WITHIN_S = 40.0
LOOKS = {
    "light": {"colorScheme": "light", "viewport": {"width": 1280, "height": 860}},
    "dark": {"colorScheme": "dark", "viewport": {"width": 1280, "height": 860}},
    "phone": {"colorScheme": "light", "viewport": {"width": 390, "height": 844}, "hasTouch": True,
              "deviceScaleFactor": 2},
}  # fmt: skip
PICTURES = (
    "console-now-light.png", "console-now-dark.png", "console-now-phone.png",
    "console-charts-dark.png",
)  # fmt: skip
SERIOUS = """axe.run(document, {resultTypes: ['violations']}).then(({violations}) => violations
  .filter(({impact}) => ['serious', 'critical'].includes(impact))
  .map(({id, nodes}) => id + ': ' + nodes.map(({html, failureSummary}) =>
    html + ' ' + failureSummary).join('; ')))"""


class Place:
    """The deployment, and a client of it."""

    def __init__(self, deployment: Deployment, http: aiohttp.ClientSession) -> None:
        self.deployment = deployment
        self.http = http

    @property
    def url(self) -> str:
        return self.deployment.urls[0]

    async def ask(
        self, key: str = ANN, model: str = "demo", webhook: Any = None, **demo: Any
    ) -> str:
        """Start a generation, and return its id."""
        told = {"tokens": 400, "tokens_per_s": 10, "first_token_s": 0, **demo}
        body = {"prompt": "What is a lease?", "model": model, "params": {"demo": told}}
        body |= {"webhook": webhook} if webhook else {}
        url, headers = f"{self.url}/v1/generations", {"authorization": f"Bearer {key}"}
        async with self.http.post(url, json=body, headers=headers) as response:
            found: str = (await response.json())["id"]
            return found

    async def cancel_all(self) -> None:
        """End everything, so that the next test begins with an empty table."""
        headers = {"authorization": f"Bearer {OLGA}"}
        url = f"{self.url}/v1/generations"
        async with self.http.get(f"{url}?owner=*", headers=headers) as response:
            ids = (await response.json())["active"]
        for generation_id in ids:
            async with self.http.post(f"{url}/{generation_id}/cancel", headers=headers):
                pass

    async def read(self, node: int, generation_id: str, events: int) -> None:
        """Read some events of a generation at a node, and leave."""
        url = f"{self.deployment.urls[node]}/v1/generations/{generation_id}/events"
        headers = {"authorization": f"Bearer {ANN}", "accept": "application/x-ndjson"}
        async with self.http.get(url, headers=headers) as response:
            for _ in range(events):
                await response.content.readline()

    async def story(self, generation_id: str) -> list[dict[str, Any]]:
        url = f"{self.url}/v1/generations/{generation_id}/timeline"
        async with self.http.get(url, headers={"authorization": f"Bearer {ANN}"}) as response:
            found: list[dict[str, Any]] = (await response.json())["data"]
            return found


@pytest.fixture(scope="module")
async def deployment() -> AsyncIterator[Deployment]:
    settings = {"api_keys": KEYS, "worker_slots": "40", "webhook_private": "allow"}
    async with Deployment(
        api=2, workers=2, jobs=1, lease_s=1.0, models=MODELS, settings=settings
    ) as deployment:
        yield deployment


@pytest.fixture
async def place(deployment: Deployment) -> AsyncIterator[Place]:
    await deployment.heal()
    async with aiohttp.ClientSession() as http:
        found = Place(deployment, http)
        yield found
        await found.cancel_all()


async def open_console(
    browser: Browser, place: Place, *, key: str = OLGA, hash: str = "", **given: Any
) -> Page:
    # Firefox also runs the script in about:blank, which has no storage.
    first = f"try {{ sessionStorage.setItem('tailrace.key', '{key}') }} catch {{}}"
    page = await browser.open(f"{place.url}/console#{hash}", first=first, **given)
    await page.until("document.querySelector('#state').dataset.state === 'live'", "a picture")
    return page


def row(generation_id: str) -> str:
    return f"document.querySelector('[data-test=generation][data-id={generation_id}]')"


async def ids_shown(page: Page) -> list[str]:
    script = (
        "[...document.querySelectorAll('[data-test=generation]')].map((each) => each.dataset.id)"
    )
    found: list[str] = await page.evaluate(script)
    return found


async def shows(page: Page, *ids: str) -> None:
    """Wait until the table has exactly these generations."""

    async def has() -> bool:
        return sorted(await ids_shown(page)) == sorted(ids)

    await until(has, WITHIN_S, f"a table of {len(ids)} generations")


async def moments(page: Page) -> list[tuple[str, str]]:
    """The events of the story: what and in which process, in their order."""
    script = """[...document.querySelectorAll('[data-test=moment]')]
      .map((each) => [each.dataset.what, each.dataset.process])"""
    return [(what, process) for what, process in await page.evaluate(script)]


async def test_the_live_list_names_owner_model_worker_and_rate_and_filters(
    browser: Browser, place: Place
) -> None:
    one, two = await place.ask(ANN), await place.ask(BOB, "large")
    page = await open_console(browser, place)
    await shows(page, one, two)
    names = f"['ann', 'demo'].every((name) => {row(one)}.innerText.includes(name))"
    await page.until(names, "owner and model")
    rate = f"Number({row(one)}.querySelector('[data-head=\"Tokens/s\"]').textContent)"
    assert 5 < await page.until(f"{rate} > 0 && {rate}", "a rate") < 15

    await page.fill("[name=owner]", "bob")
    await page.press("Enter")
    await shows(page, two)
    await page.click("#filters [type=reset]")
    await shows(page, one, two)
    await page.fill("[name=search]", one)
    await page.press("Enter")
    await shows(page, one)
    await page.click("#filters [type=reset]")
    await page.fill("[name=model]", "nothing")
    await page.press("Enter")
    await page.until("document.querySelector('#generations .empty')", "an empty table")
    assert await page.errors() == []
    await page.close()


async def test_a_story_has_each_event_of_a_killed_worker_and_a_moved_reader_in_order(
    browser: Browser, place: Place, pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    worker_of = {role.ready_name: role for role in place.deployment.workers}
    generation_id = await place.ask(tokens=80)
    await place.read(0, generation_id, 5)
    begun = next(each for each in await place.story(generation_id) if each["what"] == "begun")
    page = await open_console(browser, place, hash=generation_id)
    await page.until(
        "document.querySelector('[data-test=story] [data-what=first_token]')", "it began"
    )
    worker_of[begun["worker"]].kill()
    await place.read(1, generation_id, 40)
    await page.until(
        "document.querySelector('[data-test=story] [data-what=end]')", "the end", WITHIN_S
    )

    async def whole_story() -> list[tuple[str, str]] | None:
        # Processes write events after the end, and the page asks for them for some seconds.
        told, story = await moments(page), await place.story(generation_id)
        wanted = [(each["what"], each.get("worker") or each.get("node", "")) for each in story]
        return told if told == wanted else None

    told = await until(whole_story, WITHIN_S, "the story of the server")
    assert told
    whats = [what for what, _ in told]
    workers = [process for what, process in told if what == "begun"]
    nodes = {process for what, process in told if what == "readers"}
    assert workers[0] == begun["worker"] and workers[1] not in ("", begun["worker"])
    assert len(nodes) == 2 and not nodes & set(workers)
    wanted = ["accepted", "queued", "begun", "connected", "first_token", "takeover", "end"]
    assert [what for what in whats if what in wanted and whats.count(what) == 1] == [
        what for what in wanted if whats.count(what) == 1
    ]
    assert ("takeover", workers[1]) in told and whats[0] == "accepted" and whats[-1] == "end"
    bars = "document.querySelectorAll('[data-test=story] .axis rect.attempt').length"
    assert await page.evaluate(bars) == 2
    directory = DOCS if pytestconfig.getoption("--write-pictures") else tmp_path
    await page.screenshot(directory / "console-takeover.png")
    await page.close()


async def test_an_operator_cancels_an_answer_and_sees_its_end(
    browser: Browser, place: Place
) -> None:
    generation_id = await place.ask()
    page = await open_console(browser, place)
    await page.until(f"!!{row(generation_id)}", "the row")
    await page.evaluate(f"{row(generation_id)}.click()")
    await page.click("[data-test=story] [data-test=cancel]")
    await page.click("#sure-yes")

    await page.until("document.querySelector('[data-test=story] [data-what=end]')", "the end")
    # The page reads the facts and the events of a story in two requests at the same time.
    state = "document.querySelector('#story dd').textContent"
    await page.until(f"{state}.includes('cancelled')", "the state")
    log = await until(lambda: place.deployment.api[0].stderr().count("console action"), WITHIN_S)
    assert log and '"by": "olga"' in place.deployment.api[0].stderr().replace('":"', '": "')
    await page.close()


async def test_an_operator_watches_an_answer_live_and_reads_its_raw_log(
    browser: Browser, place: Place
) -> None:
    generation_id = await place.ask()
    page = await open_console(browser, place, hash=generation_id)
    await page.click("[data-test=watch]")
    await page.until("document.querySelector('[data-test=live]').textContent.length > 20", "text")
    await page.click("[data-test=log]")
    await page.until("document.querySelectorAll('[data-test=raw-log] li').length > 3", "entries")
    await page.close()


async def test_an_operator_without_the_scope_content_sees_no_text(
    browser: Browser, place: Place
) -> None:
    generation_id = await place.ask()
    page = await open_console(browser, place, key=BLIND, hash=generation_id)
    await page.click("[data-test=log]")
    entries = "document.querySelector('[data-test=raw-log]')?.textContent"
    await page.until(f"{entries}?.includes('token')", "entries")

    assert '"text"' not in await page.evaluate(entries)
    assert await page.evaluate("document.querySelector('[data-test=watch]').disabled")
    assert "lease" not in await page.evaluate("document.querySelector('#story').textContent")
    await page.close()


async def test_a_drained_worker_leaves_and_its_answers_go_on(
    browser: Browser, place: Place
) -> None:
    ids = [await place.ask(tokens=300) for _ in range(4)]
    drained = place.deployment.workers[0]
    name = drained.ready_name
    page = await open_console(browser, place, hash="/machines")
    button = f"[data-test=drain][data-id='{name}']"
    await page.until(f'document.querySelector("{button}")', "the worker")
    await page.click(button)
    await page.click("#sure-yes")

    assert await drained.ended(WITHIN_S) == 0
    await page.until(
        f"!document.querySelector(\"[data-test=worker][data-id='{name}']\")", "it left"
    )
    await page.evaluate("location.hash = '/now'")
    await shows(page, *ids)
    other = place.deployment.workers[1].ready_name
    on_other = f"""[...document.querySelectorAll('[data-test=generation] [data-head=Worker]')]
      .every((each) => each.textContent === '{other}')"""
    await page.until(on_other, "all answers at the other worker", WITHIN_S)
    await page.evaluate("location.hash = '/events'")
    event = "[data-test=event][data-what=takeovers] [data-test=generation-link]"
    links = f"[...document.querySelectorAll('{event}')]"
    named = f"{links}.find(({{dataset}}) => {ids}.includes(dataset.id))"
    await page.until(f"!!{named}", "the event", WITHIN_S)
    await page.evaluate(f"{named}.click()")
    await page.until(
        "document.querySelector('[data-test=story] [data-what=takeover]')", "its story", WITHIN_S
    )
    await page.close()


async def test_the_filtered_generations_are_cancelled_after_a_question_with_their_number(
    browser: Browser, place: Place
) -> None:
    ids, other = [await place.ask() for _ in range(3)], await place.ask(BOB)
    page = await open_console(browser, place)
    await shows(page, *ids, other)
    await page.fill("[name=owner]", "ann")
    await page.press("Enter")
    button = "document.querySelector('[data-test=cancel-all]:not([hidden])')?.textContent"
    await page.until(f"{button} === 'Cancel all 3'", "a button with the number")
    await page.click("[data-test=cancel-all]")
    question = await page.evaluate("document.querySelector('#sure-text').textContent")
    assert "the 3 generations with owner ann" in question
    await until(partial(are_running, place, *ids), WITHIN_S, "three running generations")
    await page.click("#sure [value=no]")
    await page.until("!document.querySelector('#sure').open", "no question")
    await page.evaluate("fetch('/livez').then((answer) => answer.text())")
    assert await statuses(place, *ids) == {"running"}, "the answer no cancels nothing"
    await page.click("[data-test=cancel-all]")
    await page.click("#sure-yes")

    notice = "document.querySelector('#notice').textContent"
    await page.until(f"{notice} === '3 of 3 generations are cancelled.'", "the result")
    assert await statuses(place, *ids) == {"cancelled"}
    assert await statuses(place, other, key=BOB) == {"running"}
    await page.close()


async def are_running(place: Place, *ids: str) -> bool:
    return await statuses(place, *ids) == {"running"}


async def statuses(place: Place, *ids: str, key: str = ANN) -> set[str]:
    found, headers = set(), {"authorization": f"Bearer {key}"}
    for each in ids:
        url = f"{place.url}/v1/generations/{each}"
        async with place.http.get(url, headers=headers) as response:
            found.add((await response.json())["status"])
    return found


async def test_a_webhook_that_was_given_up_is_delivered_again(
    browser: Browser, place: Place
) -> None:
    async with Receiver(answers=[410]) as receiver:
        webhook = {"url": receiver.url, "secret": SECRET}
        generation_id = await place.ask(tokens=1, webhook=webhook)
        await until(lambda: len(receiver.calls) == 1, WITHIN_S, "the only attempt")
        receiver.answers = [200]
        page = await open_console(browser, place, hash="/work")
        line = f"document.querySelector('[data-test=webhook][data-id={generation_id}]')"
        text = await page.until(f"{line}?.textContent", "the dead letter", WITHIN_S)
        await page.click(f"[data-test=deliver][data-id={generation_id}]")
        await page.click("#sure-yes")
        await until(lambda: len(receiver.calls) == 2, WITHIN_S, "the second delivery")
        await page.until(f"!{line}", "no dead letter", WITHIN_S)

    assert "410" in text and "ann" in text and "/hook" not in text
    first, second = receiver.calls
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    await page.close()


async def test_dead_letters_of_a_batch_are_driven_again(browser: Browser, place: Place) -> None:
    bad = batch.chat_line(2, demo={"fail_at": 0, "fail_always": True, "fail_retryable": False})
    content = batch.encoded([batch.demo_line(1), bad])
    async with openai.AsyncOpenAI(base_url=f"{place.url}/v1", api_key=ANN) as client:
        made = await batch.submit(client, content)
        assert (await batch.ended(client, made.id)).request_counts.failed == 1
        page = await open_console(browser, place, hash="/work")
        button = f"[data-test=redrive][data-id={made.id}]"
        await page.until(f"document.querySelector('{button}')", "the batch", WITHIN_S)
        await page.click(button)
        await page.click("#sure-yes")
        notice = "document.querySelector('#notice:not([hidden])')?.textContent"
        text = await page.until(
            f"/batch_\\w+/.exec({notice} ?? '')?.[0]", "the new batch", WITHIN_S
        )
        again = await client.batches.retrieve(text)

    assert again.metadata is not None and again.metadata["redrive_of"] == made.id
    await page.close()


async def test_the_charts_show_a_known_load_within_ten_percent(
    browser: Browser, place: Place
) -> None:
    """The truth: the tokens that the logs got, and the first tokens that the stories tell."""
    redis = place.deployment.redis()
    before = await idle_points(redis)
    ids = [await place.ask(tokens=120, tokens_per_s=8, first_token_s=0.4) for _ in range(12)]
    page = await open_console(browser, place, hash="/charts")

    async def over() -> list[Any]:
        """The points from the start on, once one with no tokens has followed the others."""
        found = (await points(redis))[len(before) :]
        rates = [point.tokens_per_s for point in found]
        return found if any(rates) and rates[-1] == 0 else []

    found = await until(over, 2 * WITHIN_S, "the end of the load in the history")
    told = sum(point.tokens_per_s * point.seconds for point in found)
    assert told == pytest.approx(12 * 120, rel=0.1)
    waits = sorted([await first_token_s(place, each) for each in ids])
    (first,) = [point for point in found if point.answers == 12]
    assert first.first_p50_s == pytest.approx(waits[5], rel=0.1)
    assert first.first_p99_s == pytest.approx(waits[-1], rel=0.1)
    ran = [await attempt_s(place, each) for each in ids]
    runs = merged(point.models["demo"].runs for point in found if "demo" in point.models)
    assert sum(runs.values()) == 12
    assert quantile(runs, 0.95) == pytest.approx(sorted(ran)[11], rel=0.1)
    newest = found[-1]
    value = "Number(document.querySelector('[data-series={}]').dataset.value)"
    await page.until(f"{value.format('running')} === {newest.running}", "the newest point")
    drawn = "[...document.querySelectorAll('#plots .uplot')].length"
    assert await page.evaluate(drawn) == 9
    await page.evaluate("location.hash = '/machines'")
    model = "document.querySelector('[data-test=model][data-id=demo]')?.innerText"
    shown = await page.until(model, "the model's waits and runs")
    assert all(role.ready_name in shown for role in place.deployment.workers)
    await redis.aclose()
    await page.close()


async def idle_points(redis: Any) -> list[Any]:
    """Return the points up to one that has just come and has no tokens: the next one is far."""
    seen = len(await points(redis))

    async def has_idle() -> list[Any]:
        found = await points(redis)
        return found if len(found) > seen and found[-1].tokens_per_s == 0 else []

    return await until(has_idle, 2 * WITHIN_S, "a point without tokens")


async def points(redis: Any) -> list[Any]:
    (reply,) = await ClientPipeline(redis).run([history_command(0)])
    return points_of(reply)


async def first_token_s(place: Place, generation_id: str) -> float:
    at = {each["what"]: each["at"] for each in await place.story(generation_id)}
    return float(at["first_token"] - at["accepted"])


async def attempt_s(place: Place, generation_id: str) -> float:
    story = await place.story(generation_id)
    (ended,) = [each for each in story if each["what"] == "attempt_ended"]
    return float(ended["seconds"])


async def axe(page: Page) -> list[str]:
    script = (npm.installed() / "axe-core" / "axe.min.js").read_text()
    await page.evaluate(f"(() => {{ {script} }})()")
    found: list[str] = await page.evaluate(SERIOUS)
    return found


@pytest.mark.parametrize("look", LOOKS)
async def test_axe_finds_nothing_serious_and_nothing_is_cut_off(
    browser: Browser, place: Place, look: str, pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    directory = DOCS if pytestconfig.getoption("--write-pictures") else tmp_path
    asked = itertools.cycle([(ANN, "demo"), (BOB, "large"), (BOB, "demo")])
    ids = [await place.ask(key, model, tokens=900) for key, model in itertools.islice(asked, 9)]
    async with asyncio.TaskGroup() as group:
        group.create_task(place.read(1, ids[0], 30))
        page = await open_console(browser, place, looks=LOOKS[look])
        await page.until("document.querySelectorAll('[data-test=generation]').length >= 9", "rows")
        await page.until(
            "/\\d/.test(document.querySelector('[data-head=\"Tokens/s\"]').textContent)", "rates"
        )
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        for tab in ("now", "charts", "machines", "events", "work", "usage"):
            await page.evaluate(f"location.hash = '/{tab}'")
            await page.until(f"!document.querySelector('#{tab}').hidden", tab)
            if tab == "machines":
                await page.until("document.querySelector('[data-test=backend]')", "a backend")
            assert await axe(page) == [], tab
            assert await page.evaluate(wide) == 0, f"{tab} does not scroll to the side"
            picture = f"console-{tab}-{look}.png"
            await page.screenshot((directory if picture in PICTURES else tmp_path) / picture)
    await page.evaluate(f"location.hash = '{ids[0]}'")
    await page.until("document.querySelector('[data-test=moment]')", "the story")
    assert await axe(page) == [], "the story"
    await page.screenshot(tmp_path / f"console-story-{look}.png")
    await page.close()


async def test_firefox_shows_the_list_and_a_story(place: Place) -> None:
    generation_id = await place.ask()
    async with Browser(is_firefox=True, within_s=WITHIN_S) as firefox:
        page = await open_console(firefox, place)
        await page.until(f"!!{row(generation_id)}", "the row", WITHIN_S)
        await page.evaluate(f"{row(generation_id)}.click()")
        await page.until(
            "!!document.querySelector('[data-what=first_token]')", "its story", WITHIN_S
        )
        assert await page.errors() == []
