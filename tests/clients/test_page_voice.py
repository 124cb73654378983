"""The chat page records, and the transcript is the one of what the microphone gave.

Chromium plays a file into its microphone. A probe keeps the bytes that the page has sent, so a test
knows the text that must come of them.
"""

from __future__ import annotations

import base64
import math
import struct
import wave
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.audio.media import parse_media_type
from tests.support.axe import serious
from tests.support.browser import Browser
from tests.support.chat_page import ANSWERS, PROMPT, TURNS, ChatPage
from tests.support.npm import CLIENTS
from tests.support.processes import Deployment
from tests.support.scenario_proxy import ScenarioProxy
from workers.backends.demo_transcriber.transcript import transcript_of

DOCS = Path(__file__).parents[2] / "docs"
RECORD, STOP, CANCEL = (
    f'[data-test="{name}"]' for name in ("record", "voice-stop", "voice-cancel")
)
STATE = """document.querySelector('[data-test="voice"]')?.dataset.state ?? ''"""
HINT = """document.querySelector('[data-test="voice-hint"]').textContent"""
HAS_FOCUS = f"document.activeElement.matches('{PROMPT}')"
PROBLEM = "document.querySelector('#problem-text').textContent"
WORDS = f"({ANSWERS}.at(-1) ?? '').split(' ').filter(Boolean).length"
RATE_HZ = 48_000
SOON_S = 90.0  # on a busy machine
PCM = parse_media_type("audio/pcm;rate=16000;channels=1")
MODELS = '[models.demo]\nbackend = "demo"\n[models.scribe]\nbackend = "demo_transcriber"\n'
LOOKS = {
    "light": {"colorScheme": "light", "viewport": {"width": 1200, "height": 800}},
    "dark": {"colorScheme": "dark", "viewport": {"width": 1200, "height": 800}},
    "phone": {"colorScheme": "light", "viewport": {"width": 390, "height": 844}, "hasTouch": True},
}


def speak(path: Path) -> None:
    """Write ten seconds of something like syllables: tones that rise, with short pauses."""
    count = 10 * RATE_HZ
    phase, samples = 0.0, bytearray()
    for at in range(count):
        seconds = at / RATE_HZ
        phase += 2 * math.pi * (180 + 60 * (seconds % 1.3) + 40 * math.sin(9 * seconds)) / RATE_HZ
        loud = max(0.0, math.sin(2 * math.pi * 2.3 * seconds)) * (seconds % 3 < 2.4)
        tone = math.sin(phase) + 0.5 * math.sin(2 * phase) + 0.3 * math.sin(5 * phase)
        samples += struct.pack("<h", int(9_000 * loud * tone))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(bytes(samples))


@pytest.fixture(scope="module")
async def speaking(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    path = tmp_path_factory.mktemp("microphone") / "speech.wav"
    speak(path)
    flags = (
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={path}",
    )
    async with Browser(*flags, within_s=SOON_S) as browser:
        yield browser


@pytest.fixture(scope="module")
async def shared_nodes() -> AsyncIterator[Deployment]:
    async with Deployment(api=2, workers=2, lease_s=2, models=MODELS) as deployment:
        yield deployment


@pytest.fixture
async def proxy(shared_nodes: Deployment) -> AsyncIterator[ScenarioProxy]:
    """A load balancer before the nodes."""
    await shared_nodes.heal()
    async with ScenarioProxy([role.port for role in shared_nodes.api]) as proxy:
        yield proxy


async def opened(browser: Browser, url: str, **options: object) -> ChatPage:
    probes = "".join((CLIENTS / name).read_text() for name in ("probes.js", "voice-probes.js"))
    page = await browser.open(url, first=probes, **options)  # type: ignore[arg-type]
    await page.until(
        f"Boolean(document.querySelector('{RECORD}')?.offsetParent)", "the button Record", SOON_S
    )
    return ChatPage(page)


async def record(chat: ChatPage, words: int = 3) -> None:
    """Record until the transcript has so many words, which come while the recording goes on."""
    await chat.page.click(RECORD)
    await chat.page.until(f"{WORDS} >= {words}", f"{words} words", SOON_S)
    assert await chat.page.evaluate(STATE) == "recording"


async def is_exact(chat: ChatPage) -> None:
    """The section is gone, and the transcript is the stand-in's text of the audio that was sent."""
    (answer,) = await chat.done(within_s=SOON_S)
    sent = base64.b64decode(await chat.page.evaluate("voice.sent()"))
    await chat.page.until(f"{STATE} === ''", "the section is closed", SOON_S)

    assert answer == transcript_of(PCM, sent)
    assert await chat.states() == ["completed"]
    assert await chat.page.evaluate("voice.differing") == []
    assert await chat.page.evaluate("voice.tracks.every((each) => each.readyState === 'ended')")


async def test_a_recording_becomes_its_transcript_while_it_goes_on(
    speaking: Browser, proxy: ScenarioProxy
) -> None:
    chat = await opened(speaking, f"{proxy.url}/#record")
    await record(chat)
    await chat.page.click(STOP)

    await is_exact(chat)
    await chat.page.until(HAS_FOCUS, "the focus in the prompt", SOON_S)
    assert await chat.prompts() == ["Recording"]
    await chat.close()


@pytest.mark.parametrize("transport", ["websocket", "sse"])
async def test_a_killed_node_takes_nothing_from_a_recording(
    speaking: Browser, proxy: ScenarioProxy, shared_nodes: Deployment, transport: str
) -> None:
    """Over SSE the page sends its chunks by HTTP."""
    chat = await opened(speaking, f"{proxy.url}/#killed-{transport}")
    await chat.page.select('[data-test="transport"]', transport)
    await record(chat)
    shared_nodes.api[0].kill()
    before = await chat.page.evaluate(WORDS)
    await chat.page.until(f"{WORDS} >= {before} + 3", "more words from the other node", SOON_S)
    await chat.page.click(STOP)

    await is_exact(chat)
    await chat.close()


async def test_a_killed_worker_takes_nothing_from_a_recording(
    speaking: Browser, proxy: ScenarioProxy, shared_nodes: Deployment
) -> None:
    chat = await opened(speaking, f"{proxy.url}/#worker")
    await record(chat)
    for worker in shared_nodes.workers:
        worker.kill()
    shared_nodes.workers[0].start()
    before = await chat.page.evaluate(WORDS)
    await chat.page.until(f"{WORDS} >= {before} + 3", "more words from the next worker", SOON_S)
    await chat.page.click(STOP)

    await is_exact(chat)
    await chat.close()


async def test_an_outage_is_told_and_the_recording_goes_on(
    speaking: Browser, proxy: ScenarioProxy
) -> None:
    chat = await opened(speaking, f"{proxy.url}/#outage")
    await record(chat)
    await proxy.go_away()
    await chat.page.until(f"{HINT}.startsWith('No connection.')", "the hint", SOON_S)
    assert await chat.page.evaluate(STATE) == "recording"
    await chat.page.click(STOP)
    await chat.page.until(f"{STATE} === 'sending'", "the rest waits", SOON_S)
    proxy.come_back()

    await is_exact(chat)
    await chat.close()


async def test_a_reload_ends_the_recording_and_its_transcript_stays(
    speaking: Browser, proxy: ScenarioProxy
) -> None:
    chat = await opened(speaking, f"{proxy.url}/#reload")
    await record(chat)
    (before,) = await chat.answers()
    await chat.page.reload()

    (answer,) = await chat.done(within_s=SOON_S)
    assert answer.startswith(before.rstrip("."))
    assert await chat.states() == ["completed"]
    assert await chat.page.evaluate(STATE) == ""
    await chat.close()


@pytest.mark.parametrize("way", ["button", "key"])
async def test_a_cancelled_recording_keeps_the_transcript_so_far(
    speaking: Browser, proxy: ScenarioProxy, way: str
) -> None:
    chat = await opened(speaking, f"{proxy.url}/#cancel-{way}")
    await record(chat)
    await (chat.page.click(CANCEL) if way == "button" else chat.page.press("Escape"))

    (answer,) = await chat.done(within_s=SOON_S)
    assert await chat.states() == ["cancelled"]
    assert len(answer.split()) >= 3
    await chat.page.until(f"{STATE} === ''", "the section is closed", SOON_S)
    assert await chat.page.evaluate("voice.tracks.every((each) => each.readyState === 'ended')")
    await chat.page.until(HAS_FOCUS, "the focus in the prompt", SOON_S)
    await chat.close()


async def test_what_keeps_the_microphone_away_is_said_with_its_remedy(
    speaking: Browser, proxy: ScenarioProxy
) -> None:
    chat = await opened(speaking, f"{proxy.url}/#refused")
    for name, said in (
        ("NotAllowedError", "Allow the microphone for this page"),
        ("NotFoundError", "Connect one"),
        ("NotReadableError", "close that program"),
        ("SecurityError", "begins with https://"),
    ):
        await chat.page.evaluate(f"voice.refusal = {name!r}")
        await chat.page.click(RECORD)
        await chat.page.until(f"{PROBLEM}.includes({said!r})", said, SOON_S)
        assert await chat.page.evaluate(STATE) == ""
    assert await chat.page.evaluate(f"{TURNS}.length") == 0
    await chat.close()


async def test_without_a_model_that_takes_audio_there_is_no_button(speaking: Browser) -> None:
    async with Deployment(api=1, workers=1, models='[models.demo]\nbackend = "demo"\n') as silent:
        page = await speaking.open(silent.urls[0])
        has_models = "document.querySelector('#model').options.length === 1"
        await page.until(has_models, "the models are listed", SOON_S)

        assert await page.evaluate(f"document.querySelector('{RECORD}').offsetParent === null")
        await page.close()


@pytest.mark.parametrize("look", LOOKS)
async def test_axe_finds_nothing_serious_while_the_page_records(
    speaking: Browser,
    proxy: ScenarioProxy,
    look: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    chat = await opened(speaking, f"{proxy.url}/#{look}", looks=LOOKS[look])
    await record(chat, words=12 if look == "light" else 3)
    is_picture = look == "light" and request.config.getoption("--write-pictures")
    await chat.page.screenshot((DOCS if is_picture else tmp_path) / "page-record.png")

    assert await serious(chat.page) == []
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert await chat.page.evaluate(wide) == 0
    await chat.page.press("Escape")
    await chat.done(within_s=SOON_S)
    await chat.close()


async def test_firefox_says_why_it_cannot_record(proxy: ScenarioProxy) -> None:
    """The sound of Firefox starts only where a device plays it, so nothing is recorded here."""
    async with Browser(is_firefox=True, within_s=SOON_S) as firefox:
        chat = await opened(firefox, f"{proxy.url}/#firefox")
        await chat.page.evaluate("voice.refusal = 'NotAllowedError'")
        await chat.page.click(RECORD)
        said = f"{PROBLEM}.includes('Allow the microphone for this page')"
        await chat.page.until(said, "the remedy", SOON_S)
        assert await serious(chat.page) == []
        await chat.close()
