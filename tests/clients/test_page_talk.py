"""What people do with the chat page, in Chromium: ask, stop, edit, come back, lose the network."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.browser import Browser
from tests.support.chat_page import (
    ANSWERS,
    CONVERSATIONS,
    PROMPT,
    SEND,
    STOP,
    TRANSPORT,
    TURNS,
    ChatPage,
)
from tests.support.client import Client
from tests.support.demo import demo_body, expected_text
from tests.support.parrot import Parrot
from tests.support.processes import Deployment
from tests.support.raw_client import RawClient

MODELS = """
[models.demo]
backend = "demo"
tokens_per_s = 0
on_takeover = "continue"

[models.parrot]
backend = "openai"
base_url = "{url}"
on_takeover = "restart"
"""
TRANSPORTS = ["websocket", "sse", "ndjson", "poll"]
STORY = " ".join(f"word-{number}" for number in range(400))


@dataclass
class Place:
    deployment: Deployment
    parrot: Parrot
    browser: Browser

    @property
    def url(self) -> str:
        return self.deployment.urls[0]

    async def open(self, path: str = "/", **options: object) -> ChatPage:
        return await ChatPage.open(self.browser, self.url + path, **options)


@pytest.fixture(scope="module")
async def place(browser: Browser) -> AsyncIterator[Place]:
    async with Parrot() as parrot:
        models = MODELS.format(url=parrot.base_url)
        async with Deployment(api=2, workers=1, models=models) as deployment:
            yield Place(deployment, parrot, browser)


async def test_an_answer_has_exactly_the_text_of_the_model(place: Place) -> None:
    chat = await place.open()
    assert await chat.answers() == [""], "the empty page has a place for the answer"
    await chat.ask("What is a log good for?")
    (answer,) = await chat.done()

    messages = [{"role": "user", "content": "What is a log good for?"}]
    assert answer == expected_text({"messages": messages}, await chat.newest_id())
    await chat.close()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_page_that_is_reloaded_in_mid_answer_goes_on(place: Place, transport: str) -> None:
    prompt = f"A story over {transport}"
    line = place.parrot.says(prompt, STORY, hold_at=200)
    chat = await place.open(f"/#reload-{transport}")
    await chat.page.select(TRANSPORT, transport)
    await chat.ask(prompt, "parrot")
    await chat.shows("word-80")
    await chat.page.reload()
    await chat.shows("word-80")
    assert await chat.states() == ["running"]
    line.held.set()

    assert await chat.done() == [STORY]
    assert await chat.page.evaluate(f"document.querySelector('{TRANSPORT}').value") == transport
    await chat.close()


async def test_the_transport_can_be_changed_in_mid_answer(place: Place) -> None:
    line = place.parrot.says("switch", STORY, hold_at=200)
    chat = await place.open("/#switch")
    await chat.ask("switch", "parrot")
    await chat.shows("word-80")
    await chat.page.select(TRANSPORT, "ndjson")
    line.held.set()

    assert await chat.done() == [STORY]
    await chat.close()


async def test_a_second_device_shows_the_conversation_live(place: Place) -> None:
    """Each one also shows the prompts of the other. The devices are at two nodes."""
    line = place.parrot.says("from here", STORY, hold_at=200)
    here = await place.open("/#two")
    there = await ChatPage.open(place.browser, place.deployment.urls[1] + "/#two")
    await here.ask("from here", "parrot")
    await there.shows("word-80")
    assert await there.prompts() == ["from here"]
    line.held.set()
    assert await there.done() == [STORY]
    await there.ask("from there", "parrot")

    assert await here.done(2) == await there.done(2) == [STORY, "You said: from there"]
    assert await here.prompts() == ["from here", "from there"]
    sent = place.parrot.asked[-1]["messages"]
    assert [each["role"] for each in sent] == ["user", "assistant", "user"]
    assert sent[1]["content"] == STORY
    for each in (here, there):
        await each.close()


@pytest.mark.parametrize("transport", ["sse", "poll"])
async def test_more_tabs_than_a_browser_has_connections_read_at_once(
    place: Place, transport: str
) -> None:
    """Over HTTP/1.1 a browser opens six to one host. Here are ten answers in ten tabs."""
    lines = [place.parrot.says(f"{transport} {n}", STORY, hold_at=200) for n in range(10)]
    first = await place.open(f"/#{transport}-tab-0")
    paths = [f"/#{transport}-tab-{number}" for number in range(1, len(lines))]
    tabs = [first, *[await place.open(path, beside=first.page) for path in paths]]
    for number, tab in enumerate(tabs):
        await tab.page.select(TRANSPORT, transport)
        await tab.ask(f"{transport} {number}", "parrot")
    for tab in tabs:
        await tab.shows("word-80")
    for line in lines:
        line.held.set()
    assert [await tab.done() for tab in tabs] == [[STORY]] * len(tabs)

    # The tab that reads for all of them is closed in mid-answer.
    line = place.parrot.says(f"{transport} again", STORY, hold_at=200)
    await tabs[5].ask(f"{transport} again", "parrot")
    await tabs[5].shows("word-80")
    await first.close()
    line.held.set()
    assert await tabs[5].done(2) == [STORY, STORY]
    for tab in tabs[1:]:
        await tab.close()


async def test_a_new_name_reaches_the_other_tabs_at_once(place: Place) -> None:
    here = await place.open("/#named")
    await here.ask("About rivers", "parrot")
    await here.done()
    there = await place.open("/#named", beside=here.page)
    await there.done()
    await here.page.evaluate(
        "document.querySelector('[aria-label*=\"Rename “About rivers”\"]').click()"
    )
    await here.page.fill("#conversations input", "Rivers")
    await here.page.press("Enter")
    for each in (here, there):
        await each.page.until(f"{CONVERSATIONS}.includes('Rivers')", "the name")
        await each.page.until("document.title === 'Rivers · Tailrace'", "the title of the tab")
        await each.close()


async def test_a_prompt_of_another_program_appears_in_the_conversation(place: Place) -> None:
    chat = await place.open("/#shared")
    async with Client(place.deployment.urls) as client:
        body = {**demo_body(30, 0, prompt="from a program"), "session": "shared"}
        generation = await client.start(body)
    (answer,) = await chat.done()

    assert await chat.prompts() == ["from a program"]
    assert answer == expected_text(body, generation["id"])
    await chat.close()


@pytest.mark.parametrize("way", ["button", "Escape"])
async def test_stop_ends_the_answer_and_leaves_the_focus_at_the_prompt(
    place: Place, way: str
) -> None:
    place.parrot.says(f"stop by {way}", STORY, hold_at=200)
    chat = await place.open(f"/#stop-{way}")
    await chat.ask(f"stop by {way}", "parrot")
    await chat.shows("word-80")
    assert await chat.page.evaluate(f"document.querySelector('{SEND}').disabled")
    await (chat.page.click(STOP) if way == "button" else chat.page.press("Escape"))
    (answer,) = await chat.done()

    assert STORY.startswith(answer) and "word-80" in answer
    assert await chat.states() == ["cancelled"]
    assert await chat.has_focus(PROMPT)
    assert await chat.page.evaluate(f"document.querySelector('{STOP}').disabled")
    await chat.close()


async def test_a_prompt_can_be_edited_and_its_versions_stay(place: Place) -> None:
    chat = await place.open("/#edit")
    await chat.ask("frist", "parrot")
    await chat.done()
    await chat.ask("second", "parrot")
    await chat.done(2)
    await chat.page.press("ArrowUp")
    assert await chat.page.evaluate("document.activeElement.value") == "second"
    await chat.page.press("Escape")
    assert await chat.has_focus(PROMPT)

    await chat.page.click('.turn:first-child [aria-label="Edit and ask again"]')
    await chat.page.fill(".edit textarea", "first")
    await chat.page.press("Enter")
    await chat.page.until("document.querySelector('.versions')?.textContent === '2 / 2'", "two")
    assert await chat.done() == ["You said: first"], "what followed the old version is gone"
    assert len(place.parrot.asked[-1]["messages"]) == 1
    await chat.page.click('[aria-label="The version before"]')

    assert await chat.done(2) == ["You said: frist", "You said: second"]
    await chat.page.reload()
    assert await chat.done() == ["You said: first"], "the newest version is shown first"
    await chat.close()


async def test_two_people_edit_the_same_prompt_and_neither_loses_what_was_typed(
    place: Place,
) -> None:
    here = await place.open("/#both")
    await here.ask("frist", "parrot")
    await here.done()
    there = await place.open("/#both", beside=here.page)
    await there.done()
    await there.page.click('[aria-label="Edit and ask again"]')
    await there.page.fill(".edit textarea", "first of there")
    await here.page.click('[aria-label="Edit and ask again"]')
    await here.page.fill(".edit textarea", "first of here")
    await here.page.press("Enter")
    assert await here.done() == ["You said: first of here"]
    both = "document.querySelector('.versions').textContent === '1 / 2'"
    await there.page.until(both, "the version of the other tab")
    assert await there.prompts() == [], "the form is still open"
    await there.page.press("Enter")

    for each in (here, there):
        await each.page.until("document.querySelector('.versions').textContent === '3 / 3'", "all")
        assert await each.done() == ["You said: first of there"]
        await each.close()
    assert len(place.parrot.asked[-1]["messages"]) == 1


async def test_an_answer_can_be_asked_for_again(place: Place) -> None:
    chat = await place.open("/#again")
    place.parrot.says("dice", "one")
    await chat.ask("dice", "parrot")
    assert await chat.done() == ["one"]
    place.parrot.says("dice", "six")
    await chat.page.click('[aria-label="Ask again"]')
    await chat.shows("six")

    assert await chat.done() == ["six"]
    assert await chat.page.evaluate("document.querySelector('.versions').textContent") == "2 / 2"
    await chat.close()


async def test_a_prompt_without_network_is_kept_and_sent_once(place: Place) -> None:
    chat = await place.open("/#offline")
    await chat.page.offline(True)
    await chat.ask("Is anybody there?", "parrot")
    await chat.page.until(
        "document.querySelector('.note')?.textContent.includes('Not sent yet')", "the mark"
    )
    assert await chat.prompts() == ["Is anybody there?"]
    assert await chat.states() == ["unsent"]
    stored = await chat.page.evaluate("localStorage.getItem('tailrace.outbox')")
    assert json.loads(stored)[0]["prompt"] == "Is anybody there?"
    await chat.page.offline(False)

    await chat.done()
    await chat.shows("You said: Is anybody there?")  # read from the log, if the end came first
    assert await chat.page.evaluate("localStorage.getItem('tailrace.outbox')") is None
    asked = [each for each in place.parrot.asked if "anybody" in json.dumps(each)]
    assert len(asked) == 1
    await chat.close()


async def test_a_prompt_whose_acceptance_was_lost_is_sent_again_with_its_key(place: Place) -> None:
    """The node has it already, and the page does not know. There is one answer."""
    key = "a-key-of-this-test-1"
    body = {
        "messages": [{"role": "user", "content": "still here"}],
        "model": "parrot",
        "session": "unsent",
        "metadata": {"page": {"key": key}},
    }
    row = {"key": key, "session": "unsent", "prompt": "still here", "createdAt": 1, "body": body}
    other = {**row, "key": f"{key}2", "prompt": "and me", "createdAt": 2}
    other["body"] = {**body, "messages": [{"role": "user", "content": "and me"}], "metadata": {}}
    async with RawClient(place.url) as node:
        await node.post(body, headers={"idempotency-key": key})
    chat = await place.open("/#elsewhere")
    stored = json.dumps(json.dumps([row, other]))
    await chat.page.evaluate(f"localStorage.setItem('tailrace.outbox', {stored})")
    await chat.page.evaluate("location.hash = 'unsent'")
    await chat.page.reload()

    await chat.done(2)
    both = '["You said: still here","You said: and me"]'
    await chat.page.until(f"JSON.stringify({ANSWERS}) === {json.dumps(both)}", "both answers")
    assert await chat.page.evaluate("localStorage.getItem('tailrace.outbox')") is None
    asked = [json.dumps(each) for each in place.parrot.asked]
    assert len([each for each in asked if "still here" in each]) == 1
    await chat.close()


async def test_a_refused_prompt_stays_with_its_reason(place: Place) -> None:
    chat = await place.open("/#refused")
    await chat.page.evaluate("document.querySelector('#model').append(new Option('gone'))")
    await chat.ask("Who answers?", "gone")
    await chat.page.until("document.querySelector('.note.bad:not([hidden])')", "the reason")
    reason = await chat.page.evaluate("document.querySelector('.note.bad').textContent")
    assert "gone" in reason
    assert await chat.prompts() == ["Who answers?"]
    await chat.page.click(".note-actions button:last-child")

    assert await chat.prompts() == []
    assert await chat.page.evaluate(f"document.querySelector('{PROMPT}').value") == "Who answers?"
    await chat.close()


async def test_a_failed_answer_keeps_its_text_and_can_be_tried_again(place: Place) -> None:
    chat = await place.open("/#failed")
    async with Client(place.deployment.urls) as client:
        body = demo_body(20, 0, fail_at=5, fail_retryable=False)
        await client.start({**body, "session": "failed"})
    (answer,) = await chat.done()

    assert answer
    assert "upstream_error" in await chat.page.evaluate(
        "document.querySelector('.note.bad').textContent"
    )
    await chat.page.select("#model", "parrot")
    await chat.page.click(".note-actions button")
    await chat.page.until(
        "document.querySelector('.versions')?.textContent === '2 / 2'", "a new try"
    )
    await chat.done()
    assert await chat.states() == ["completed"]
    await chat.close()


async def test_conversations_can_be_found_renamed_and_deleted(place: Place) -> None:
    chat = await place.open("/#boats")
    await chat.ask("About boats", "parrot")
    await chat.done()
    await chat.page.click("#new")
    assert await chat.prompts() == []
    await chat.ask("About trains", "parrot")
    await chat.done()
    both = CONVERSATIONS
    await chat.page.until(f"{both}[0] === 'About trains' && {both}[1] === 'About boats'", "both")

    await chat.page.fill("#search", "boats")
    await chat.page.until(f"{both}.join() === 'About boats'", "what was searched for")
    await chat.page.click("[data-test=conversation]")
    assert await chat.done() == ["You said: About boats"]
    await chat.page.fill("#search", "")
    await chat.page.until(f"{both}.length > 1", "all")
    await chat.page.evaluate(
        "document.querySelector('[aria-label*=\"Rename “About boats”\"]').click()"
    )
    await chat.page.fill("#conversations input", "Ships")
    await chat.page.press("Enter")
    await chat.page.until(f"{both}.includes('Ships')", "the new name")
    await chat.ask("More", "parrot")
    await chat.done(2)
    elsewhere = await ChatPage.open(place.browser, place.deployment.urls[1] + "/#other")
    await elsewhere.page.until(f"{both}.includes('Ships')", "the name on another device")

    await chat.page.evaluate("document.querySelector('[aria-label*=\"Delete “Ships”\"]').click()")
    await chat.page.click("#confirm button[value=yes]")
    await chat.page.until(f"!{both}.includes('Ships')", "the end of the conversation")
    await chat.page.until(f"!{TURNS}.length", "a new conversation")
    for each in (chat, elsewhere):
        await each.close()


async def test_pictures_and_files_go_to_the_model(place: Place, tmp_path: Path) -> None:
    picture = tmp_path / "dot.png"
    picture.write_bytes(bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360"
        "60606000000005000157a0d5e90000000049454e44ae426082"))  # fmt: skip
    notes = tmp_path / "notes.txt"
    notes.write_text("the tide turns at six")
    chat = await place.open("/#files")
    await chat.page.attach("#file", picture, notes)
    await chat.page.until("document.querySelectorAll('.chip .icon').length === 2", "two files")
    await chat.ask("What is this?", "parrot")
    await chat.done()

    question, image, text = place.parrot.asked[-1]["messages"][-1]["content"]
    assert question["text"] == "What is this?"
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    assert text["text"].endswith("the tide turns at six")
    assert await chat.prompts() == ["What is this?"]
    await chat.page.reload()
    await chat.done()
    await chat.page.until(
        "document.querySelector('.attached .picture')?.naturalWidth", "the picture"
    )
    assert (
        await chat.page.evaluate("document.querySelector('.attached .file').textContent")
        == "notes.txt"
    )
    listed = await chat.page.evaluate("fetch('/v1/files').then((r) => r.json())")
    assert [each["filename"] for each in listed["data"]] == ["notes.txt"]
    await chat.close()


async def test_reasoning_calls_and_pictures_stand_beside_the_answer(place: Place) -> None:
    call = {
        "index": 0,
        "id": "c1",
        "type": "function",
        "function": {"name": "tide", "arguments": '{"at": 6}'},
    }
    dot = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
    more = [{"tool_calls": [call]}, {"images": [{"type": "image_url", "image_url": {"url": dot}}]}]
    place.parrot.says(
        "all kinds", "So it is.", reasoning="Let me think about it.", more=more, per_s=40
    )
    chat = await place.open("/#kinds")
    await chat.ask("all kinds", "parrot")

    assert await chat.done() == ["So it is."]
    summary = await chat.page.evaluate("document.querySelector('.reasoning summary').textContent")
    assert summary.startswith("Thought")
    await chat.page.click(".reasoning summary")
    await chat.page.until(
        "document.querySelector('.reasoning-text').textContent === 'Let me think about it.'",
        "the thoughts",
    )
    assert "tide" in await chat.page.evaluate("document.querySelector('.call').textContent")
    await chat.page.until(
        "document.querySelector('.files .picture')?.naturalWidth === 1", "the picture"
    )
    about = await chat.page.evaluate("document.querySelector('.about').textContent")
    assert re.match(r"parrot · \d+ tokens · \d", about)
    await chat.close()


async def test_progress_and_data_of_a_producer_are_shown(place: Place) -> None:
    chat = await place.open("/#producer")
    async with RawClient(place.url) as node:
        body = {"producer": True, "prompt": "Write the report", "session": "producer"}
        begun = (await node.post(body)).json()
        path = f"/v1/generations/{begun['id']}/events"

        async def append(seq: int, *events: dict[str, object]) -> None:
            token = {"x-producer-token": begun["producer_token"]}
            said = await node.call("POST", path, body={"seq": seq, "events": events}, headers=token)
            assert said.status == 200, said.body

        step = {"type": "progress", "stage": "reading", "current": 3, "total": 12}
        await append(2, step, {**step, "agent": "critic", "current": 9})
        lines = "[...document.querySelectorAll('.progress span')].map((each) => each.textContent)"
        await chat.page.until(f"{lines}.length === 2", "two bars")
        assert await chat.page.evaluate(lines) == ["reading, 25 %", "critic: reading, 75 %"]
        assert await chat.page.evaluate("document.querySelector('progress').value") == 25
        await append(4, {"type": "data", "name": "sources", "value": {"pages": 12}})
        await append(5, {"type": "token", "text": "All is well."}, {"type": "end"})

    assert await chat.done() == ["All is well."]
    assert await chat.page.evaluate("document.querySelector('.progress').hidden")
    there = await ChatPage.open(place.browser, place.deployment.urls[1] + "/#producer")
    await there.done()
    for each in (chat, there):
        assert '"pages": 12' in await each.page.evaluate(
            "document.querySelector('.call').textContent"
        )
        await each.close()


async def test_the_figures_are_behind_their_switch(place: Place) -> None:
    chat = await place.open("/#figures")
    await chat.ask("figures", "parrot")
    await chat.done()
    line = "document.querySelector('.figures')"
    assert await chat.page.evaluate(f"{line}.hidden")
    assert "1-" not in await chat.page.evaluate("document.querySelector('main').innerText")
    await chat.page.click("#figures")
    await chat.page.until(f"!{line}.hidden", "the figures")
    await chat.page.until(f"{line}.textContent.includes(' · worker ')", "the worker's name")
    said = await chat.page.evaluate(f"{line}.textContent")

    assert said.startswith("node ")
    assert "attempt 1 · event 1-" in said and "websocket" in said and "first token" in said
    await chat.close()


async def test_the_list_stays_where_its_reader_put_it(place: Place) -> None:
    text = "\n\n".join(STORY.split(" "))
    line = place.parrot.says("scroll", text, hold_at=500)
    chat = await place.open("/#scroll")
    await chat.ask("scroll", "parrot")
    await chat.shows("word-150")
    log = "document.querySelector('#log')"
    bottom = f"{log}.scrollHeight - {log}.scrollTop - {log}.clientHeight"
    await chat.page.until(f"{bottom} < 5", "the list follows the text")
    await chat.page.evaluate(f"{log}.scrollTop = 300")
    await chat.page.until("!document.querySelector('#to-newest').hidden", "the way back")
    line.held.set()
    await chat.done()
    assert await chat.page.evaluate(f"{log}.scrollTop") == 300
    await chat.page.click("#to-newest")
    await chat.page.until(f"{bottom} < 5", "the end of the list")
    await chat.close()


async def test_a_screen_reader_hears_the_end_and_not_each_token(place: Place) -> None:
    place.parrot.says("spoken", STORY, per_s=200)
    chat = await place.open("/#spoken")
    await chat.page.evaluate(
        """(window.heard = [], new MutationObserver(() => heard.push(spoken.textContent))
        .observe(document.querySelector('#spoken'), {childList: true, subtree: true}), true)"""
    )
    await chat.ask("spoken", "parrot")
    await chat.done()
    heard = await chat.page.evaluate("window.heard")

    assert len(heard) == 2
    assert heard[1].startswith("The answer is complete. word-0 word-1")
    live = "[...document.querySelectorAll('[aria-live], [role=status], [role=alert], [role=log]')]"
    assert not await chat.page.evaluate(f"{live}.some((each) => each.querySelector('.answer'))")
    await chat.close()


async def test_only_what_is_near_the_window_is_rendered(place: Place) -> None:
    """The rest of a long conversation has its plain text, and its Markdown when it is seen."""
    chat = await place.open("/#long")
    async with Client(place.deployment.urls) as client:
        for number in range(30):
            body = {**demo_body(60, 0, prompt=f"prompt {number}"), "session": "long"}
            await client.start(body)
    await chat.page.until(f"{TURNS}.length === 30 && {TURNS}.at(-1).querySelector('.block')", "all")
    await chat.page.reload()
    await chat.page.until(
        f"{TURNS}.length === 30 && {TURNS}.at(-1).querySelector('.block')", "again"
    )

    rendered = await chat.page.evaluate(
        f"{TURNS}.filter((each) => each.querySelector('.block')).length"
    )
    assert rendered < 15
    assert (
        await chat.page.evaluate(f"getComputedStyle({TURNS}[0].parentElement).contentVisibility")
        == "auto"
    )
    await chat.page.evaluate("document.querySelector('#log').scrollTop = 0")
    await chat.page.until(f"{TURNS}[0].querySelector('.block')", "the first turn")
    await chat.close()
