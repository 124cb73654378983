"""The demo backend: repeatable answers, pace, failures, continuing from any point."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.config.models import Model
from shared.errors import BackendError
from shared.log.events import Reasoning, Token, ToolCall, Usage
from shared.log.request import Request
from workers.backends.contract import BackendItem, Finish
from workers.backends.demo.backend import BATCH_MAX, DemoBackend, expected_text


class FakeTime:
    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def request(prompt: str = "Why is the sky blue?", **params: Any) -> Request:
    return Request([{"role": "user", "content": prompt}], params)


async def batches_of(
    chat_request: Request,
    prefix: str = "",
    *,
    seed: str = "gen_1",
    time: FakeTime | None = None,
    **options: Any,
) -> tuple[list[list[BackendItem]], BackendError | None]:
    time = time or FakeTime()
    model = Model(name="demo", backend="demo", on_takeover="continue", options=options)
    backend = DemoBackend(model, clock=time.clock, sleep=time.sleep)
    batches: list[list[BackendItem]] = []
    try:
        async for batch in backend.stream(chat_request, prefix=prefix, seed=seed):
            assert batch
            batches.append(batch)
    except BackendError as error:
        return batches, error
    return batches, None


async def items_of(chat_request: Request, prefix: str = "", **more: Any) -> list[BackendItem]:
    batches, error = await batches_of(chat_request, prefix, **more)
    assert error is None
    return [item for batch in batches for item in batch]


def tokens_of(items: list[BackendItem]) -> list[str]:
    return [item.text for item in items if isinstance(item, Token)]


async def test_the_answer_is_the_expected_text() -> None:
    items = await items_of(request())

    text = "".join(tokens_of(items))
    assert text == expected_text(request(), "gen_1")
    assert "Why is the sky blue?" in text
    count = len(tokens_of(items))
    assert items[-2:] == [Usage(6, count, 6 + count), Finish("stop")]


async def test_answers_differ_by_seed_and_prompt_only() -> None:
    assert expected_text(request(), "a") == expected_text(request(), "a")
    assert expected_text(request(), "a") != expected_text(request(), "b")
    assert expected_text(request("x"), "a") != expected_text(request("y"), "a")


async def test_the_seed_of_the_request_wins_over_the_options() -> None:
    named = expected_text(request(), "7")
    assert expected_text(request(seed=7), "a") == named
    assert expected_text(request(), "a", {"seed": 7}) == named
    assert expected_text(request(seed=7), "a", {"seed": 8}) == named
    assert expected_text(request(demo={"seed": 7}), "a", {"seed": 8}) == named


def test_every_answer_has_non_ascii_text() -> None:
    for seed in range(30):
        text = expected_text(request(), str(seed))
        names = [unicodedata.name(char, "") for char in text]
        assert "—" in text
        assert any("CJK" in name for name in names)
        assert any("WITH" in name and "LATIN" in name for name in names)
        assert any(ord(char) > 0xFFFF for char in text)


async def test_the_pace_follows_tokens_per_s() -> None:
    time = FakeTime()
    chat_request = request(demo={"tokens": 401, "tokens_per_s": 40})
    batches, _ = await batches_of(chat_request, time=time)

    assert time.now - 100.0 == pytest.approx(0.3 + 400 / 40, rel=0.1)
    assert time.slept[0] == pytest.approx(0.3)
    gaps = time.slept[1:]
    assert len(gaps) == 400
    assert min(gaps) >= 0.5 / 40 - 1e-9 and max(gaps) <= 1.5 / 40 + 1e-9
    assert len(set(gaps)) > 100
    assert all(len(tokens_of(batch)) <= 1 for batch in batches)


async def test_pace_is_the_same_for_the_same_seed() -> None:
    first, second = FakeTime(), FakeTime()
    await batches_of(request(), time=first)
    await batches_of(request(), time=second)

    assert first.slept == second.slept


async def test_late_pieces_do_not_lower_the_rate() -> None:
    class LateTime(FakeTime):
        async def sleep(self, seconds: float) -> None:
            await super().sleep(max(seconds, 0.05))  # each sleep takes at least 50 ms

    time = LateTime()
    batches, _ = await batches_of(
        request(demo={"tokens": 1_000, "tokens_per_s": 50, "first_token_s": 0}), time=time
    )

    assert time.now - 100.0 == pytest.approx(20.0, rel=0.1)
    assert max(len(batch) for batch in batches[:-1]) <= BATCH_MAX


async def test_at_full_speed_the_loop_still_runs_other_tasks() -> None:
    time = FakeTime()
    batches, _ = await batches_of(request(demo={"tokens": 1_000, "tokens_per_s": 0}), time=time)

    assert time.now == 100.0
    assert all(len(batch) <= BATCH_MAX for batch in batches[:-1])
    assert len(time.slept) >= 1_000 / BATCH_MAX - 1


@pytest.mark.parametrize("tokens", [0, 1, 3, 57, 5_000])
async def test_answers_of_any_length(tokens: int) -> None:
    items = await items_of(request(demo={"tokens": tokens, "tokens_per_s": 0}))

    assert len(tokens_of(items)) == tokens
    assert items[-1] == Finish("stop")


async def test_max_tokens_ends_with_length() -> None:
    complete = tokens_of(await items_of(request()))
    cut = await items_of(request(max_tokens=9))
    exact = await items_of(request(max_tokens=len(complete)))
    newer = await items_of(request(max_completion_tokens=9, max_tokens=12))

    assert (tokens_of(cut), cut[-1]) == (complete[:9], Finish("length"))
    assert (tokens_of(exact), exact[-1]) == (complete, Finish("stop"))
    assert len(tokens_of(newer)) == 9


async def test_reasoning_comes_first_and_only_without_a_prefix() -> None:
    chat_request = request(demo={"tokens": 4, "reasoning_tokens": 12, "tokens_per_s": 0})
    items = await items_of(chat_request)
    kinds = [type(item) for item in items]
    prefix = "".join(tokens_of(items)[:2])

    assert kinds == [Reasoning] * 12 + [Token] * 4 + [Usage, Finish]
    assert not any(isinstance(item, Reasoning) for item in await items_of(chat_request, prefix))


async def test_tool_call() -> None:
    items = await items_of(request("hi", demo={"tokens": 2, "tool_call": "search"}))
    calls = [item for item in items if isinstance(item, ToolCall)]

    assert (calls[0].call_id, calls[0].name) == ("call_demo", "search")
    assert "".join(call.arguments for call in calls) == '{"query":"hi"}'
    assert items[-1] == Finish("tool_calls")


@settings(max_examples=60)
@given(
    prompt=st.text(max_size=80),
    seed=st.text(max_size=8),
    tokens=st.none() | st.integers(0, 900),
    share=st.floats(0, 1),
)
async def test_continued_from_any_token_the_text_is_the_same(
    prompt: str, seed: str, tokens: int | None, share: float
) -> None:
    chat_request = request(
        prompt, demo={"tokens_per_s": 0} | ({} if tokens is None else {"tokens": tokens})
    )
    complete = await items_of(chat_request, seed=seed)
    texts = tokens_of(complete)
    sent = int(share * len(texts))
    rest = await items_of(chat_request, "".join(texts[:sent]), seed=seed)

    assert rest == complete[sent:]
    assert "".join(texts) == expected_text(chat_request, seed)


async def test_a_prefix_that_ends_inside_a_piece_is_completed() -> None:
    complete = expected_text(request(), "gen_1")
    for size in range(1, 60):
        rest = tokens_of(await items_of(request(), complete[:size]))
        assert complete[:size] + "".join(rest) == complete


@pytest.mark.parametrize("prefix", ["something else", expected_text(request(), "gen_1") + "!"])
async def test_a_foreign_prefix_is_refused(prefix: str) -> None:
    batches, error = await batches_of(request(), prefix)

    assert batches == []
    assert error is not None and not error.retryable


async def test_an_attempt_fails_at_token_k_and_the_next_continues() -> None:
    chat_request = request(demo={"fail_at": 9, "fail_code": "upstream_timeout"})
    batches, error = await batches_of(chat_request)
    sent = [text for batch in batches for text in tokens_of(batch)]

    assert error is not None and (error.code, error.retryable) == ("upstream_timeout", True)
    assert len(sent) == 9
    rest = tokens_of(await items_of(chat_request, "".join(sent)))
    assert "".join(sent + rest) == expected_text(chat_request, "gen_1")


@pytest.mark.parametrize("fail_at", [0, 5])
async def test_without_a_prefix_every_attempt_fails(fail_at: int) -> None:
    for _ in range(2):
        batches, error = await batches_of(request(demo={"fail_at": fail_at}))
        assert error is not None
        assert sum(len(tokens_of(batch)) for batch in batches) == fail_at


async def test_fail_always_fails_later_attempts_at_once() -> None:
    chat_request = request(demo={"fail_at": 3, "fail_always": True, "fail_retryable": False})
    prefix = "".join(tokens_of(await items_of(request()))[:6])
    batches, error = await batches_of(chat_request, prefix)

    assert batches == []
    assert error is not None and not error.retryable


async def test_an_answer_shorter_than_fail_at_fails_too() -> None:
    _, error = await batches_of(request(demo={"tokens": 2, "fail_at": 5}))

    assert error is not None


@pytest.mark.parametrize(
    "params",
    [
        {"demo": 5},
        {"demo": {"unknown": 1}},
        {"demo": {"tokens": -1}},
        {"demo": {"tokens": 200_001}},
        {"demo": {"tokens_per_s": "fast"}},
        {"demo": {"fail_code": "No Code"}},
        {"demo": {"fail_upstream": {"status": 400}}},
        {"demo": {"fail_upstream": {"message": "m", "status": 200}}},
        {"demo": {"max_tokens": 0}},
        {"max_tokens": 0},
        {"max_tokens": "9"},
        {"seed": [1]},
    ],
)
async def test_invalid_params_are_not_retryable(params: dict[str, Any]) -> None:
    batches, error = await batches_of(request(**params))

    assert batches == []
    assert error is not None and (error.code, error.retryable) == ("upstream_refused", False)


@pytest.mark.parametrize(
    "content",
    [None, "", [], [{"type": "text", "text": "hey"}], [{"type": "image_url"}], 7, "\ud83d", "{x}"],
)
async def test_any_prompt_is_answered(content: Any) -> None:
    chat_request = Request([{"role": "user", "content": content}], {"demo": {"tokens_per_s": 0}})
    text = "".join(tokens_of(await items_of(chat_request)))

    assert text == expected_text(chat_request, "gen_1")
    text.encode()


def test_no_messages_at_all() -> None:
    assert expected_text(Request([], {}), "s")
