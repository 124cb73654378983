"""Usage and `max_tokens` after a takeover, and the usage of cancelled answers."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from shared.errors import BackendError
from shared.log.events import Counts, Token, Usage, decode
from shared.log.request import Request
from shared.queue.endings import cancel
from tests.support.backend_scripts import says_and_waits
from tests.support.wait import until
from tests.support.worker_harness import DEADLINE_S, WorkerHarness
from workers.backends.contract import Finish

MARK = {"estimated": True}
# A token of six characters counts as one, also if the worker has joined several in one event.
TOKENS = [" river"] * 6
PROMPT = "Which rivers do you know?"  # 25 characters count as 7 tokens


def request(**params) -> bytes:
    return msgspec.json.encode(Request([{"role": "user", "content": PROMPT}], params))


def backend_scripts(*items, error: str = ""):
    """A script of these lists; with `error` it breaks then, else it finishes."""

    async def backend_script(prefix):
        for item in items:
            yield [item]
        if error:
            raise fails_with(error)
        yield [Finish("stop")]

    return backend_script


def fails_with(code: str) -> Exception:

    return BackendError(code, "it broke")


async def ended(harness: WorkerHarness, **params):
    await harness.start()
    generation_id = await harness.ask(request=request(**params))
    return decode((await harness.ended(generation_id)).end), generation_id


async def test_usage_is_of_all_attempts_and_the_first_prompt(url):
    first = backend_scripts(*map(Token, TOKENS), error="upstream_error")
    second = backend_scripts(Token("g"), Usage(16, 1, 17))
    async with WorkerHarness(url, first, second) as harness:
        end, generation_id = await ended(harness)

        assert end.usage == Counts(10, 7, 17, MARK)
        usage = next(e for e in await harness.events(generation_id) if isinstance(e, Usage))
        assert (usage.prompt_tokens, usage.completion_tokens) == (10, 7)


async def test_usage_after_a_reset_is_of_the_new_answer_only(url):
    first = backend_scripts(Token("abcdef"), error="upstream_error")
    second = backend_scripts(Token("g"), Usage(10, 1, 11))
    async with WorkerHarness(url, first, second, on_takeover="restart") as harness:
        end, _ = await ended(harness)

        assert end.usage == Counts(10, 1, 11)


async def test_a_server_that_reports_no_usage_gives_none(url):
    first = backend_scripts(Token("a"), error="upstream_error")
    async with WorkerHarness(url, first, backend_scripts(Token("b"))) as harness:
        end, _ = await ended(harness)

        assert end.usage is None


async def test_a_continuation_may_use_what_is_left_of_max_tokens(url):
    first = backend_scripts(*map(Token, TOKENS), error="upstream_error")
    async with WorkerHarness(url, first, backend_scripts(Token("g"))) as harness:
        await ended(harness, max_tokens=10)

        assert [r.params["max_tokens"] for r in harness.backend.requests] == [10, 4]


async def test_an_answer_that_begins_again_may_use_all_of_max_tokens(url):
    first = backend_scripts(*map(Token, TOKENS), error="upstream_error")
    async with WorkerHarness(
        url, first, backend_scripts(Token("g")), on_takeover="restart"
    ) as harness:
        await ended(harness, max_tokens=10)

        assert [r.params["max_tokens"] for r in harness.backend.requests] == [10, 10]


async def test_an_answer_with_nothing_left_ends_with_length_and_asks_no_server(url):
    first = backend_scripts(*map(Token, TOKENS), error="upstream_error")
    async with WorkerHarness(url, first) as harness:
        end, _ = await ended(harness, max_completion_tokens=6)

        assert (end.status, end.finish_reason) == ("completed", "length")
        assert end.usage == Counts(7, 6, 13, MARK)
        assert len(harness.backend.requests) == 1


@pytest.mark.parametrize(
    ("reported", "usage"),
    [(None, Counts(7, 3, 10, MARK)), (Usage(5, 3, 8), Counts(5, 3, 8))],
    ids=["counted", "reported while streaming"],
)
async def test_a_cancelled_answer_has_usage(url, reported, usage):
    gate = asyncio.Event()

    async def backend_script(prefix):
        yield [Token(" river")]
        yield [Token(" river")]
        yield [Token(" river"), *([reported] if reported else [])]
        await gate.wait()
        yield [Finish("stop")]

    async with WorkerHarness(url, backend_script) as harness:
        await harness.start()
        generation_id = await harness.ask(request=request())
        await harness.has_said(generation_id, " river" * 3)
        if reported:

            async def is_reported():
                return any(isinstance(e, Usage) for e in await harness.events(generation_id))

            await until(is_reported, DEADLINE_S)

        meta = await cancel(harness.store, generation_id)

        assert decode(meta.end).usage == usage


async def test_an_answer_that_is_cancelled_because_its_readers_left_has_usage(url):
    gate = asyncio.Event()
    async with WorkerHarness(url, says_and_waits(gate, "a"), lease_s=0.3) as harness:
        await harness.start()
        generation_id = await harness.ask(request=request(), grace_s=0.01)
        await harness.has_said(generation_id, "a")
        await harness.store.attach_readers(generation_id, "node")
        await harness.store.detach_readers(generation_id, "node")

        meta = await harness.ended(generation_id)

        end = decode(meta.end)
        assert (end.status, end.usage) == ("cancelled", Counts(7, 1, 8, MARK))


async def test_a_prompt_that_is_cancelled_in_the_queue_has_no_usage(url):
    async with WorkerHarness(url) as harness:
        generation_id = await harness.ask(request=request())

        meta = await cancel(harness.store, generation_id)

        assert decode(meta.end).usage is None


async def test_running_counts_are_not_written_for_every_token(url):
    pieces = [item for n in range(1, 200) for item in (Token("a"), Usage(5, n, 5 + n))]
    async with WorkerHarness(url, backend_scripts(*pieces)) as harness:
        end, generation_id = await ended(harness)

        events = await harness.events(generation_id)
        assert end.usage == Counts(5, 199, 204)
        usages = [event for event in events if isinstance(event, Usage)]
        assert usages[0].completion_tokens == 1
        assert usages[-1].completion_tokens == 199
        assert len(usages) < 20


async def test_a_repeated_cancel_reads_no_log(url, monkeypatch):
    async with WorkerHarness(url, backend_scripts(*map(Token, TOKENS))) as harness:
        _, generation_id = await ended(harness)

        async def read(*_):
            raise AssertionError("the log of an ended answer may be 16 MiB long")

        monkeypatch.setattr(harness.store, "page", read)

        meta = await cancel(harness.store, generation_id)

        assert meta is not None and meta.status == "completed"
