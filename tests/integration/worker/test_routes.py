"""Several backends behind one name: who is asked, and what readers see when a backend fails."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from shared.config.model_request import RequestRules
from shared.config.models import Model
from shared.config.stages import parse_stages
from shared.errors import BackendError, Refusal
from shared.log.events import Token, Usage, decode
from shared.metrics.prometheus import WorkerMetrics
from shared.queue.continuations import Verdict, store_verdict
from shared.queue.endings import cancel
from shared.redis.pipeline import Call
from shared.redis.scripts import Scripts
from shared.timeline.story import read_story
from tests.support.backend_scripts import (
    breaks_off,
    fails,
    says,
    says_and_waits,
    until_nothing_is_queued,
)
from tests.support.routes import RouteHarness
from tests.support.wait import until
from tests.support.worker_harness import DEADLINE_S
from workers.backends.contract import Finish


async def finished(harness: RouteHarness) -> tuple[list[str], list[str]]:
    """Return the log of one answer, and the backends that wrote it."""
    await harness.start()
    generation_id = await harness.ask()
    await harness.ended(generation_id)
    return await harness.said(generation_id), await harness.writers(generation_id)


async def test_the_first_backend_of_the_order_answers_and_start_names_it(url):
    async with RouteHarness(url, {"a": [says("hi")], "b": [says("ho")]}) as harness:
        assert await finished(harness) == (["start", "hi", "end"], ["a"])
        assert harness.members["b"].seeds == []


@pytest.mark.parametrize(
    "failure",
    [
        fails(),
        fails(code="upstream_timeout"),
        fails(is_outage=True),
        fails(code="upstream_refused", retryable=False),  # 401: our key
        fails(code="upstream_refused", retryable=False, upstream=Refusal("no", 404)),
        fails(
            code="upstream_refused",
            retryable=False,
            upstream=Refusal("too long", 400, "context_length_exceeded"),
        ),
        breaks_off(),
    ],
    ids=["error", "timeout", "away", "key", "no model", "too long", "no finish"],
)
async def test_before_the_first_token_another_backend_answers_unseen(url, failure):
    async with RouteHarness(url, {"a": [failure], "b": [says("ho")]}) as harness:
        worker = await harness.start()
        generation_id = await harness.ask()
        meta = await harness.ended(generation_id)

        assert await harness.said(generation_id) == ["start", "ho", "end"]
        assert await harness.writers(generation_id) == ["b"]
        assert (meta.attempt, meta.failures, worker.counters["attempts_failed"]) == (1, 0, 0)
        assert len(harness.members["a"].seeds) == len(harness.members["b"].seeds) == 1


async def test_a_request_that_every_server_would_refuse_goes_to_one_server(url):
    refused = fails(code="upstream_refused", retryable=False, upstream=Refusal("bad", 422))
    async with RouteHarness(url, {"a": [refused], "b": [says("ho")]}) as harness:
        await harness.start()
        end = decode((await harness.ended(await harness.ask())).end)

        assert end.error.upstream == Refusal("bad", 422)
        assert harness.members["b"].seeds == []


async def test_a_backend_goes_on_behind_the_text_of_another_one(url):
    scripts = {"a": [fails("Hel")], "b": [says("lo")]}
    async with RouteHarness(url, scripts) as harness:
        said, writers = await finished(harness)

        assert said == ["start", "Hel", "start", "lo", "end"]
        assert writers == ["a", "b"]
        assert harness.members["b"].prefixes == ["Hel"]


async def test_an_answer_keeps_its_attempt_when_another_backend_goes_on(url):
    async with RouteHarness(url, {"a": [fails("Hel")], "b": [says("lo")]}) as harness:
        await harness.start()
        generation_id = await harness.ask()
        await harness.ended(generation_id)

        events = await harness.events(generation_id)
        assert [event.attempt for event in events if hasattr(event, "attempt")] == [1, 1]
        assert (await harness.store.meta(generation_id)).failures == 0


async def test_the_same_backend_goes_on_where_no_other_one_is_left(url):
    scripts = {"a": [fails("Hel"), says("lo")], "b": [fails()]}
    async with RouteHarness(url, scripts) as harness:
        said, writers = await finished(harness)

        assert said == ["start", "Hel", "lo", "end"]
        assert writers == ["a"]
        assert harness.members["a"].prefixes == ["", "Hel"]


async def test_without_a_verdict_auto_begins_the_answer_anew_at_another_backend(url):
    scripts = {"a": [fails("Hel")], "b": [says("Hullo")]}
    async with RouteHarness(url, scripts, on_takeover="auto") as harness:
        said, writers = await finished(harness)

        assert said == ["start", "Hel", "start", "reset", "Hullo", "end"]
        assert writers == ["a", "b"]


async def test_with_auto_the_backend_whose_verdict_holds_goes_on(url):
    scripts = {"a": [fails("Hel")], "b": [says("Hullo")], "c": [says("lo")]}
    async with RouteHarness(url, scripts, on_takeover="auto") as harness:
        verdict = Verdict(model="c", forms={"prefix": "continues"}, at_ms=1)
        await store_verdict(harness.redis, harness.models["c"], verdict)
        said, writers = await finished(harness)

        assert said == ["start", "Hel", "start", "lo", "end"]
        assert writers == ["a", "c"]
        assert harness.members["c"].forms == ["prefix"]
        assert harness.members["b"].seeds == []


async def test_a_backend_that_says_restart_is_never_asked_to_continue(url):
    scripts = {"a": [fails("Hel"), fails()], "b": [says("Hullo")]}
    members = {"b": Model(name="b", on_takeover="restart")}
    async with RouteHarness(url, scripts, members=members) as harness:
        said, _ = await finished(harness)

        # The connection of `a` broke, and `a` may still live: it is asked before a reset.
        assert harness.members["a"].prefixes == ["", "Hel"]
        assert said == ["start", "Hel", "start", "reset", "Hullo", "end"]


async def test_a_backend_that_fell_silent_is_not_asked_again(url):
    scripts = {"a": [fails("Hel", code="upstream_timeout")], "b": [says("Hullo")]}
    members = {"b": Model(name="b", on_takeover="restart")}
    async with RouteHarness(url, scripts, members=members) as harness:
        said, _ = await finished(harness)

        assert harness.members["a"].prefixes == [""]
        assert said == ["start", "Hel", "start", "reset", "Hullo", "end"]


async def test_with_fail_a_begun_answer_ends_with_its_backend(url):
    scripts = {"a": [fails("Hel")], "b": [says("Hullo")]}
    async with RouteHarness(url, scripts, on_takeover="fail") as harness:
        await harness.start()
        generation_id = await harness.ask()
        end = decode((await harness.ended(generation_id)).end)

        assert end.error.code == "upstream_error"
        assert await harness.said(generation_id) == ["start", "Hel", "end"]


async def test_with_fail_another_backend_answers_before_the_first_token(url):
    scripts = {"a": [fails()], "b": [says("ho")]}
    async with RouteHarness(url, scripts, on_takeover="fail") as harness:
        assert await finished(harness) == (["start", "ho", "end"], ["b"])


async def test_an_attempt_that_fails_everywhere_is_tried_again_without_a_trace(url):
    scripts = {"a": [fails(), says("hi")], "b": [fails(), says("ho")]}
    async with RouteHarness(url, scripts) as harness:
        said, writers = await finished(harness)

        assert said in (["start", "hi", "end"], ["start", "ho", "end"])
        assert len(writers) == 1


async def test_an_answer_that_no_backend_gives_has_a_start_and_an_end(url):
    scripts = {"a": [fails()], "b": [fails()]}
    async with RouteHarness(url, scripts, attempts_max=2) as harness:
        said, writers = await finished(harness)

        assert said == ["start", "end"]
        assert writers == [""]
        assert len(harness.members["a"].seeds) == len(harness.members["b"].seeds) == 2


async def test_a_worker_that_takes_over_asks_the_backend_that_wrote_the_answer(url):
    gate = asyncio.Event()
    scripts = {"a": [fails(), fails("never")], "b": [says_and_waits(gate, "Hel"), says("lo")]}
    async with RouteHarness(url, scripts, lease_s=0.3) as harness:
        await harness.start("first")
        generation_id = await harness.ask()
        await harness.has_said(generation_id, "Hel")
        await harness.start("second")
        await harness.kill("first")
        await harness.ended(generation_id)

        assert await harness.said(generation_id) == ["start", "Hel", "start", "lo", "end"]
        assert await harness.writers(generation_id) == ["b", "b"]
        assert len(harness.members["a"].seeds) == 1


async def test_an_attempt_whose_worker_dies_before_the_first_token_leaves_no_event(url):
    never = asyncio.Event()
    scripts = {"a": [speaks_when(never), says("hi")], "b": [says("ho")]}
    async with RouteHarness(url, scripts, lease_s=0.3) as harness:
        await harness.start("first")
        generation_id = await harness.ask()
        await until(lambda: harness.members["a"].open == 1, DEADLINE_S, "it is asked")
        await harness.start("second")
        await harness.kill("first")
        await harness.ended(generation_id)

        assert await harness.said(generation_id) == ["start", "hi", "end"]
        (start, *_) = await harness.events(generation_id)
        assert (start.attempt, start.backend) == (2, "a")


async def test_with_fail_a_worker_that_drains_hands_a_begun_answer_over(url):
    never = asyncio.Event()
    scripts = {"a": [says_and_waits(never, "Hel"), says("Hullo")]}
    async with RouteHarness(url, scripts, on_takeover="fail", drain_s=0.1) as harness:
        worker = await harness.start("first")
        generation_id = await harness.ask()
        await harness.has_said(generation_id, "Hel")
        worker.drain()
        await harness.drained("first")
        await harness.start("second")
        await harness.ended(generation_id)

        assert await harness.said(generation_id) == [
            *("start", "Hel"),
            *("start", "reset", "Hullo", "end"),
        ]


async def test_if_all_backends_cool_down_all_are_tried(url):
    away = fails(is_outage=True)
    scripts = {"a": [*[away] * 4, says("hi")], "b": [away]}
    async with RouteHarness(url, scripts, upstream_outage_s=30) as harness:
        worker = await harness.start()
        for name in ("a", "b"):
            for _ in range(3):
                health = worker.parts.health
                health.start(name).close(BackendError("upstream_error", "503", is_outage=True))
        assert {worker.parts.health.state(name) for name in ("a", "b")} == {"open"}

        generation_id = await harness.ask()
        await until(lambda: len(harness.members["b"].seeds) >= 1, DEADLINE_S, "both are tried")
        assert len(harness.members["a"].seeds) >= 1
        await harness.ended(generation_id)

        assert await harness.said(generation_id) == ["start", "hi", "end"]


@pytest.mark.parametrize(("says_so", "warns"), [("continue", True), ("auto", False)])
async def test_a_worker_warns_of_a_route_that_continues_unverified(url, caplog, says_so, warns):
    scripts = {"a": [says("hi")], "b": [says("ho")]}
    async with RouteHarness(url, scripts, on_takeover=says_so) as harness:
        await harness.start()

        assert ("continuation never verified" in caplog.messages) == warns


async def test_each_request_to_a_backend_is_counted_by_how_it_ended(url):
    registry = CollectorRegistry()
    scripts = {"a": [fails("Hel")], "b": [says("lo")]}
    async with RouteHarness(url, scripts) as harness:
        await harness.start(metrics=WorkerMetrics(registry))
        await harness.ended(await harness.ask())

        def count(backend: str, ending: str) -> float | None:
            labels = {"model": "m", "backend": backend, "ending": ending}
            return registry.get_sample_value("tailrace_backend_requests_total", labels)

        await until(lambda: count("b", "completed") == 1, DEADLINE_S, "the end is counted")
        assert count("a", "failed") == 1
        assert count("a", "completed") is None


async def test_the_timeline_names_each_backend_that_wrote(url):
    scripts = {"a": [fails()], "b": [fails("Hel")], "c": [says("lo")]}
    async with RouteHarness(url, scripts) as harness:
        await harness.start()
        generation_id = await harness.ask()
        await harness.ended(generation_id)

        async def connected() -> list[str]:
            meta = await harness.store.meta(generation_id)
            assert meta is not None
            story = await read_story(harness.redis, meta, "q")
            return [timed.moment.backend for timed in story if timed.moment.what == "connected"]

        async def are_there() -> bool:
            return await connected() == ["b", "c"]

        await until(are_there, DEADLINE_S, "both moments")


# A second backend after a silence


def speaks_when(gate: asyncio.Event, *texts: str):
    """A backend that accepts the request and is silent until the gate opens."""

    async def backend_script(_: str):
        yield []
        await gate.wait()
        yield [Token(text) for text in texts]
        yield [Finish("stop")]

    return backend_script


HEDGE = {"hedge_after_s": 0.05}


async def test_after_a_silence_a_second_backend_answers_and_the_first_is_closed_at_once(url):
    never, gate = asyncio.Event(), asyncio.Event()
    scripts = {"a": [speaks_when(never)], "b": [says_and_waits(gate, "ho")]}
    async with RouteHarness(url, scripts, rules=HEDGE) as harness:
        worker = await harness.start()
        generation_id = await harness.ask()
        await harness.has_said(generation_id, "ho")
        await until(lambda: harness.members["a"].open == 0, DEADLINE_S, "the slower is closed")
        gate.set()
        await harness.ended(generation_id)

        assert await harness.said(generation_id) == ["start", "ho", "end"]
        assert await harness.writers(generation_id) == ["b"]
        assert worker.counters["hedges"] == 1
        assert worker.counters["backend_calls"] == 2


async def test_the_first_backend_wins_if_it_speaks_before_the_second(url):
    gate, never = asyncio.Event(), asyncio.Event()
    scripts = {"a": [speaks_when(gate, "hi")], "b": [speaks_when(never)]}
    async with RouteHarness(url, scripts, rules=HEDGE) as harness:
        await harness.start()
        generation_id = await harness.ask()
        await until(lambda: harness.members["b"].open == 1, DEADLINE_S, "the second is asked")
        gate.set()
        await harness.ended(generation_id)

        assert await harness.said(generation_id) == ["start", "hi", "end"]
        assert await harness.writers(generation_id) == ["a"]
        await until(lambda: harness.members["b"].open == 0, DEADLINE_S, "the slower is closed")


async def test_a_second_backend_that_fails_leaves_the_first_one_alone(url):
    gate = asyncio.Event()
    scripts = {"a": [speaks_when(gate, "hi")], "b": [fails()]}
    async with RouteHarness(url, scripts, rules=HEDGE) as harness:
        await harness.start()
        generation_id = await harness.ask()
        await until(lambda: len(harness.members["b"].seeds) == 1, DEADLINE_S, "it is asked")
        await until(lambda: harness.members["b"].open == 0, DEADLINE_S, "it has failed")
        gate.set()
        await harness.ended(generation_id)

        assert await harness.said(generation_id) == ["start", "hi", "end"]
        assert len(harness.members["a"].seeds) == 1


async def test_a_backend_that_speaks_in_time_is_the_only_one_asked(url):
    scripts = {"a": [says("hi")], "b": [says("ho")]}
    async with RouteHarness(url, scripts, rules={"hedge_after_s": 600.0}) as harness:
        assert await finished(harness) == (["start", "hi", "end"], ["a"])
        assert harness.members["b"].seeds == []


async def test_a_hedged_answer_that_breaks_goes_on_at_another_backend(url):
    scripts = {"a": [fails("Hel")], "b": [says("lo")]}
    async with RouteHarness(url, scripts, rules={"hedge_after_s": 600.0}) as harness:
        said, writers = await finished(harness)

        assert (said, writers) == (["start", "Hel", "start", "lo", "end"], ["a", "b"])


async def test_a_cancel_closes_both_backends_of_a_race(url):
    never = asyncio.Event()
    scripts = {"a": [speaks_when(never)], "b": [speaks_when(never)]}
    async with RouteHarness(url, scripts, rules=HEDGE, cancel_usage_s=0.0) as harness:
        await harness.start()
        generation_id = await harness.ask()
        await until(lambda: harness.members["b"].open == 1, DEADLINE_S, "both are asked")

        await cancel(harness.store, generation_id)

        def are_closed() -> bool:
            return [member.open for member in harness.members.values()] == [0, 0]

        await until(are_closed, DEADLINE_S, "both are closed")


async def test_a_bug_in_a_backend_of_a_race_ends_only_its_own_run(url):
    async def broken(_: str):
        yield []
        raise RuntimeError("a bug")

    scripts = {"a": [broken], "b": [says("ho")]}
    async with RouteHarness(url, scripts, rules={"hedge_after_s": 600.0}, lease_s=0.3) as harness:
        worker = await harness.start()
        await harness.ask()
        await until(lambda: len(harness.members["a"].seeds) >= 1, DEADLINE_S, "it is asked")
        await until(lambda: not worker.runs, DEADLINE_S, "the run is over")

        assert not harness.tasks["one"].done()


async def test_the_usage_is_of_the_whole_answer_of_two_backends(url):
    async def rest(_: str):
        yield [Token("lo"), Usage(9, 1, 10), Finish("stop")]

    async with RouteHarness(url, {"a": [fails("Hel")], "b": [rest]}) as harness:
        await harness.start()
        end = decode((await harness.ended(await harness.ask())).end)

        assert (end.usage.completion_tokens, end.usage.extra) == (2, {"estimated": True})


async def test_running_counts_of_one_backend_are_not_added_up(url):
    async def counts(_: str):
        yield [Token("h"), Usage(9, 1, 10)]
        yield [Token("i"), Usage(9, 2, 11)]
        yield [Finish("stop")]

    async with RouteHarness(url, {"a": [counts]}) as harness:
        await harness.start()
        end = decode((await harness.ended(await harness.ask())).end)

        assert (end.usage.completion_tokens, end.usage.extra) == (2, None)


async def test_a_continuation_gets_the_rest_of_the_tokens_that_the_client_allows(url):
    scripts = {"a": [fails("Hel", "l")], "b": [says("o")]}
    async with RouteHarness(url, scripts) as harness:
        await harness.start()
        request = b'{"messages":[],"params":{"max_tokens":5}}'
        await harness.ended(await harness.ask(request=request))

        (asked,) = harness.members["b"].requests
        assert asked.params["max_tokens"] == 3


# The cost of a route


async def test_a_route_asks_redis_no_oftener_than_one_backend(url, monkeypatch):
    """One append with the first token, and one finish: for the route `m` as for `a`."""
    counted: Counter[str] = Counter()
    run_mixed = Scripts.run_mixed

    async def counting(self: Scripts, calls: Sequence[tuple[str, Call]]):
        counted.update(name for name, _ in calls)
        return await run_mixed(self, calls)

    monkeypatch.setattr(Scripts, "run_mixed", counting)
    for model in ("a", "m"):
        counted.clear()
        async with RouteHarness(url, {"a": [says("hi")], "b": [says("ho")]}) as harness:
            await harness.start()
            await harness.ended(await harness.ask(model=model))
            await until_nothing_is_queued(harness)

        assert 0 < counted["append"] + counted["finish"] <= 2


# Stages


async def test_a_word_that_two_backends_write_together_is_masked(url):
    table = [{"stage": "filter", "words": ["secret"]}]
    stages = parse_stages(table, "models.m.stages", Path())
    scripts = {"a": [fails("my sec")], "b": [says("secret is")]}
    async with RouteHarness(url, scripts) as harness:
        harness.models["m"] = replace(harness.models["m"], stages=stages)
        await harness.start()
        generation_id = await harness.ask()
        await harness.ended(generation_id)

        # The log has "my ", because the filter holds "sec" back: this is what `b` goes on from.
        assert harness.members["b"].prefixes == ["my"]
        assert await harness.text(generation_id) == "my ****** is"
        assert await harness.writers(generation_id) == ["a", "b"]


async def test_a_limit_of_the_answer_counts_the_text_of_all_backends(url):
    table = [{"stage": "limits", "max_characters": 6}]
    stages = parse_stages(table, "models.m.stages", Path())
    scripts = {"a": [fails("1234")], "b": [says("567890")]}
    async with RouteHarness(url, scripts) as harness:
        harness.models["m"] = replace(harness.models["m"], stages=stages)
        await harness.start()
        generation_id = await harness.ask()
        end = decode((await harness.ended(generation_id)).end)

        assert await harness.text(generation_id) == "123456"
        assert end.finish_reason == "length"


async def test_an_answer_of_a_stage_says_nothing_about_the_backend(url):
    table = [{"stage": "cache"}]
    stages = parse_stages(table, "models.m.stages", Path())
    async with RouteHarness(url, {"a": [says("hi")], "b": [says("ho")]}) as harness:
        harness.models["m"] = replace(harness.models["m"], stages=stages)
        worker = await harness.start()
        request = b'{"messages":[{"role":"user","content":"q"}],"params":{"temperature":0}}'
        for _ in range(2):
            generation_id = await harness.ask(request=request)
            end = decode((await harness.ended(generation_id)).end)
            # The answer is stored after its end.
            await until(lambda: not worker.runs, DEADLINE_S, "the run is over")

        assert end.cached_at
        assert await harness.text(generation_id) == "hi"
        assert await harness.writers(generation_id) == [""]
        assert len(harness.members["a"].seeds) == 1
        assert worker.counters["backend_calls"] == 1
        assert worker.parts.health.busy("a") == 0


# What each backend gets


async def test_a_backend_gets_only_the_members_that_its_table_forwards(url):
    forwards = RequestRules(forward=("metadata",))
    members = {"b": Model(name="b", rules=forwards)}
    scripts = {"a": [fails()], "b": [says("ho")]}
    async with RouteHarness(url, scripts, members=members) as harness:
        harness.models["m"] = replace(harness.models["m"], rules=forwards)
        await harness.start()
        request = b'{"messages":[],"params":{"metadata":{"k":"v"},"top_p":1}}'
        await harness.ended(await harness.ask(request=request))

        (got_a,), (got_b,) = harness.members["a"].requests, harness.members["b"].requests
        assert got_a.params == {"top_p": 1}
        assert got_b.params == {"metadata": {"k": "v"}, "top_p": 1}
