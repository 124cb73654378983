"""How a takeover continues: the form, the guard, and the second try from the beginning."""

from __future__ import annotations

import asyncio
import logging

import pytest

from shared.errors import BackendError
from shared.log.events import Token
from shared.queue.continuations import Verdict, store_verdict
from shared.queue.endings import cancel
from tests.support.backend_scripts import fails, says
from tests.support.wait import until
from tests.support.worker_harness import DEADLINE_S, WorkerHarness
from workers.backends.contract import Finish
from workers.takeover import answer as answer_module
from workers.takeover import verdicts

ANSWER = "Rivers carry water from the hills to the sea. They are old."
SO_FAR = ANSWER[:45] + " "
REFUSED = fails(code="upstream_refused", retryable=False)
HOLDS = Verdict(model="m", forms={"prefix": "continues", "trailing": "begins anew"}, at_ms=1)


async def finished(harness: WorkerHarness) -> list[str]:
    await harness.start()
    generation_id = await harness.ask()
    await harness.ended(generation_id)
    return await harness.said(generation_id)


async def test_white_space_at_the_seam_is_sent_to_readers_once(url):
    async with WorkerHarness(url, fails(SO_FAR), says(" They are old.")) as harness:
        said = await finished(harness)

        assert harness.backend.prefixes == ["", SO_FAR.rstrip()]
        assert said == ["start", SO_FAR, "start", "They are old.", "end"]


async def test_an_echo_of_the_answer_so_far_is_dropped(url):
    async with WorkerHarness(url, fails(SO_FAR), says(ANSWER[:20], ANSWER[20:])) as harness:
        said = await finished(harness)

        assert said == ["start", SO_FAR, "start", "They are old.", "end"]


async def test_a_server_that_begins_anew_is_asked_from_the_beginning(url, caplog):
    backend_scripts = fails(SO_FAR), says(ANSWER[:30], " elsewhere"), says(ANSWER)
    async with WorkerHarness(url, *backend_scripts) as harness:
        said = await finished(harness)

        assert harness.backend.prefixes == ["", SO_FAR.rstrip(), ""]
        assert said == ["start", SO_FAR, "start", "reset", ANSWER, "end"]
        assert "continuation began anew" in caplog.messages
        assert harness.backend.open == 0


async def test_a_refused_continuation_is_asked_from_the_beginning(url, caplog):
    async with WorkerHarness(url, fails(SO_FAR), REFUSED, says(ANSWER)) as harness:
        said = await finished(harness)

        assert harness.backend.prefixes == ["", SO_FAR.rstrip(), ""]
        assert said == ["start", SO_FAR, "start", "reset", ANSWER, "end"]
        assert "continuation refused" in caplog.messages


async def test_readers_keep_their_text_if_the_beginning_is_refused_as_well(url):
    async with WorkerHarness(url, fails(SO_FAR), REFUSED, REFUSED) as harness:
        said = await finished(harness)

        assert harness.backend.prefixes == ["", SO_FAR.rstrip(), ""]
        assert said == ["start", SO_FAR, "start", "end"]


async def test_a_refusal_after_the_first_words_fails_the_attempt(url):
    late = fails("They are", code="upstream_refused", retryable=False)
    async with WorkerHarness(url, fails(SO_FAR), late) as harness:
        said = await finished(harness)

        assert said == ["start", SO_FAR, "start", "They are", "end"]


async def test_text_at_the_seam_leaves_after_the_bound_of_time(url, monkeypatch):
    monkeypatch.setattr(answer_module, "HELD_S", 0.01)
    gate = asyncio.Event()

    async def waits(prefix):
        yield [Token(ANSWER[:9])]
        await gate.wait()
        yield [Token("! They"), Finish("stop")]

    async with WorkerHarness(url, fails(SO_FAR), waits) as harness:
        await harness.start()
        generation_id = await harness.ask()

        await harness.has_said(generation_id, SO_FAR + ANSWER[:9])

        gate.set()
        await harness.ended(generation_id)
        assert await harness.text(generation_id) == SO_FAR + ANSWER[:9] + "! They"


@pytest.mark.parametrize(
    ("verdict", "forms", "said"),
    [
        (HOLDS, ["", "prefix"], ["start", SO_FAR, "start", "They are old.", "end"]),
        (None, ["", ""], ["start", SO_FAR, "start", "reset", "They are old.", "end"]),
    ],
    ids=["a form was seen to hold", "no form was tried"],
)
async def test_auto_continues_only_in_a_form_that_was_seen_to_hold(url, verdict, forms, said):
    backend_scripts = fails(SO_FAR), says("They are old.")
    async with WorkerHarness(url, *backend_scripts, on_takeover="auto") as harness:
        if verdict is not None:
            await store_verdict(harness.redis, harness.models["m"], verdict)

        assert await finished(harness) == said
        assert harness.backend.forms == forms


async def test_a_verdict_reaches_a_worker_that_runs(url, monkeypatch):

    monkeypatch.setattr(verdicts, "VERDICTS_EVERY_S", 0.01)
    async with WorkerHarness(url, says("a"), on_takeover="auto") as harness:
        worker = await harness.start()
        assert worker.verdicts.form_of(harness.models["m"]).name == ""

        await store_verdict(harness.redis, harness.models["m"], HOLDS)

        await until(
            lambda: worker.verdicts.form_of(harness.models["m"]).name == "prefix", DEADLINE_S
        )


@pytest.mark.parametrize(
    ("forms", "warns"),
    [({}, True), ({"trailing": "continues"}, True), ({"continue_final_message": "echoes"}, False)],
    ids=["nothing", "another form", "this form"],
)
async def test_a_worker_warns_of_a_form_that_was_never_verified(url, caplog, forms, warns):
    caplog.set_level(logging.WARNING)
    async with WorkerHarness(url, says("a"), on_takeover="continue") as harness:
        if forms:
            verdict = Verdict(model="m", forms=forms, at_ms=1)
            await store_verdict(harness.redis, harness.models["m"], verdict)

        await harness.start()

        assert ("continuation never verified" in caplog.messages) == warns


def away(*texts: str):
    """A script of a server that is away, or breaks the connection after these texts."""

    async def backend_script(prefix):
        for text in texts:
            yield [Token(text)]
        raise BackendError("upstream_error", "cannot be reached", is_outage=True)

    return backend_script


async def test_an_outage_before_the_answer_is_no_failure(url):
    async with WorkerHarness(url, away(), away(), says("Hello"), attempts_max=1) as harness:
        worker = await harness.start()
        generation_id = await harness.ask()
        meta = await harness.ended(generation_id)

        assert (meta.status, meta.failures) == ("completed", 0)
        assert await harness.text(generation_id) == "Hello"
        assert worker.counters["attempts_failed"] == 0
        assert worker.counters["postponed"] == 2


async def test_an_outage_before_a_due_reset_takes_no_text_away(url):
    backend_scripts = away(SO_FAR), away(), says(ANSWER)
    async with WorkerHarness(url, *backend_scripts, on_takeover="restart") as harness:
        said = await finished(harness)

        assert said == ["start", SO_FAR, "start", "start", "reset", ANSWER, "end"]


async def test_a_server_that_breaks_off_each_time_does_not_loop_for_ever(url):
    async with WorkerHarness(url, away("a"), attempts_max=2) as harness:
        await harness.start()
        generation_id = await harness.ask()
        meta = await harness.ended(generation_id)

        assert meta.failures == 1  # the last one ends the generation without a release
        assert b"attempts_exhausted" in meta.end
        assert len(harness.backend.prefixes) == 2 + 2  # UPSTREAM_BREAKS_MAX, and `attempts_max`


async def test_an_outage_past_the_limit_counts(url):
    async with WorkerHarness(url, away(), attempts_max=2, upstream_outage_s=0.001) as harness:
        await harness.start()
        generation_id = await harness.ask()
        meta = await harness.ended(generation_id)

        assert b"attempts_exhausted" in meta.end


async def test_a_generation_that_waits_for_its_server_takes_no_slot_and_can_be_cancelled(url):

    async with WorkerHarness(url, away(), worker_slots=1) as harness:
        worker = await harness.start()
        generation_id = await harness.ask()
        await until(lambda: len(harness.backend.seeds) == 3, DEADLINE_S, "it is tried again")
        await until(lambda: not worker.runs, DEADLINE_S, "a free slot")

        meta = await cancel(harness.store, generation_id)

        assert meta is not None and meta.status == "cancelled"
