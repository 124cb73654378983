"""What an owner may still start: the record in Redis, on the fake and on a real server."""

from __future__ import annotations

import pytest

from shared.config.limits import OwnerLimits
from shared.config.settings import Settings
from shared.log.events import Counts, End, encode, encode_counts
from shared.log.records import failed
from shared.log.request import Request
from shared.queue.allowance import (
    ADMIT,
    ANSWER_TOKENS,
    SETTLE,
    OverLimit,
    admission,
    estimated_tokens,
    line_admission,
    read,
    settlement,
    tokens_of,
    withdrawal,
)
from shared.redis import keys
from shared.redis.scripts import Scripts

SETTINGS = Settings(redis_url="redis://test")
DAY_MS = 86_400_000
SPENT = encode_counts(Counts(5, 6, 11))


class Record:
    """The record of the owner alice."""

    def __init__(self, redis):
        self.redis = redis
        self.scripts = Scripts(redis)

    async def admit(self, name, tokens=100, **limits):
        limits = OwnerLimits(**limits)
        call = admission("alice", name, tokens, limits, SETTINGS)
        return read(await self.scripts.run(ADMIT, *call), limits)

    async def code(self, name, tokens=100, **limits):
        """Return the code of the refusal; "": admitted."""
        try:
            await self.admit(name, tokens, **limits)
        except OverLimit as exc:
            assert exc.status == 429
            return exc.code
        return ""

    async def line(self, name):
        await self.scripts.run(ADMIT, *line_admission("alice", name, 60.0))

    async def settle(self, name, tokens):
        return int(await self.scripts.run(SETTLE, *settlement("alice", name, tokens)))

    async def withdraw(self, name):
        return int(await self.scripts.run(SETTLE, *withdrawal("alice", name)))

    async def pass_time(self, ms):
        """Move the buckets into the past, as if time had passed."""
        key = keys.owner_limits("alice")
        await self.redis.hset(key, "at", int(await self.redis.hget(key, "at")) - ms)


def is_near(tokens, expected):
    """Whether a bucket of 1,000 tokens a minute has what it must have, up to 6 s later."""
    return expected <= tokens <= expected + 100


@pytest.fixture
def record(redis):
    return Record(redis)


async def test_a_generation_counts_as_active_until_it_is_settled(record):
    assert [await record.code(name, active_max=2) for name in "abc"] == ["", "", "too_many_active"]

    assert await record.settle("a", 5) == 1

    assert await record.code("c", active_max=2) == ""


async def test_a_repeat_of_the_same_generation_counts_nothing(record):
    limits = {"active_max": 1, "prompts_per_min": 5, "tokens_per_min": 1_000}
    first = await record.admit("a", 100, **limits)

    again = await record.admit("a", 100, **limits)

    assert (first.prompts, again.prompts) == (4, 4)
    assert first.tokens == 900 and is_near(again.tokens, 900)


async def test_a_refusal_consumes_nothing(record):
    limits = {"active_max": 1, "prompts_per_min": 5, "tokens_per_min": 1_000}
    await record.admit("a", 100, **limits)
    for name in "bcd":
        assert await record.code(name, **limits) == "too_many_active"
    await record.settle("a", 100)

    left = await record.admit("b", 100, **limits)

    assert left.prompts == 3 and is_near(left.tokens, 800)


async def test_the_prompts_of_a_minute_come_back_evenly(record):
    assert [await record.code(name, prompts_per_min=2) for name in "abc"] == [
        "", "", "rate_limited",
    ]  # fmt: skip
    with pytest.raises(OverLimit) as caught:
        await record.admit("c", prompts_per_min=2)
    assert caught.value.retry_after_s == 30

    await record.pass_time(30_000)

    assert [await record.code(name, prompts_per_min=2) for name in "de"] == ["", "rate_limited"]


async def test_a_settled_answer_counts_its_real_tokens_once(record):
    await record.admit("a", 900, tokens_per_min=1_000)

    assert await record.settle("a", 200) == 1
    assert await record.settle("a", 900) == 0

    assert is_near((await record.admit("b", 0, tokens_per_min=1_000)).tokens, 800)


async def test_an_answer_beyond_its_estimate_is_owed(record):
    await record.admit("a", 100, tokens_per_min=1_000)
    await record.settle("a", 1_600)

    with pytest.raises(OverLimit) as caught:
        await record.admit("b", 100, tokens_per_min=1_000)

    assert caught.value.code == "rate_limited"
    assert 30 <= caught.value.retry_after_s <= 37, "600 tokens are owed"
    await record.pass_time(37_000)
    assert await record.code("b", 100, tokens_per_min=1_000) == ""


async def test_a_debt_is_not_swallowed_by_a_bucket_that_was_full(record):
    await record.admit("a", 100, tokens_per_min=1_000)
    await record.pass_time(600_000)

    await record.settle("a", 1_600)

    assert await record.code("b", tokens_per_min=1_000) == "rate_limited"


async def test_one_prompt_may_be_larger_than_the_limit_of_a_minute(record):
    assert await record.code("a", 5_000, tokens_per_min=1_000) == ""
    assert await record.code("b", 1, tokens_per_min=1_000) == "rate_limited"


async def test_an_end_without_known_tokens_counts_its_estimate(record):
    await record.admit("a", 400, tokens_per_min=1_000)

    await record.settle("a", None)

    assert is_near((await record.admit("b", 0, tokens_per_min=1_000)).tokens, 600)


async def test_a_prompt_that_was_not_accepted_gives_everything_back(record):
    limits = {
        "active_max": 1, "prompts_per_min": 5, "tokens_per_min": 1_000, "tokens_per_day": 9_000,
    }  # fmt: skip
    await record.admit("a", 400, **limits)

    assert await record.withdraw("a") == 1

    left = await record.admit("b", 0, **limits)
    assert (left.prompts, left.tokens, left.day_tokens) == (4, 1_000, 9_000)


async def test_the_tokens_of_a_day_end_with_the_day(record):
    assert await record.code("a", 600, tokens_per_day=1_000) == ""
    assert await record.code("b", 600, tokens_per_day=1_000) == "", "one overdraft"
    with pytest.raises(OverLimit) as caught:
        await record.admit("c", 1, tokens_per_day=1_000)
    error = caught.value
    assert (error.code, error.retryable) == ("quota_exhausted", False)
    assert 0 < error.retry_after_s <= DAY_MS / 1000

    await record.redis.hincrby(keys.owner_limits("alice"), "day", -1)

    assert await record.code("c", 600, tokens_per_day=1_000) == ""
    await record.settle("b", 0)
    left = await record.admit("d", 0, tokens_per_day=1_000)
    assert left.day_tokens == 1_000, "b's entry was made today, too"


async def test_tokens_of_yesterday_do_not_count_today(record):
    await record.admit("a", 600, tokens_per_day=1_000)
    key = keys.owner_limits("alice")
    tokens, day, kind = (await record.redis.hget(key, "a")).decode().split()
    await record.redis.hset(key, mapping={"a": f"{tokens} {int(day) - 1} {kind}"})

    await record.settle("a", 0)

    assert (await record.admit("b", 0, tokens_per_day=1_000)).day_tokens == 400


async def test_lines_of_a_batch_count_only_in_the_day(record):
    limits = {"active_max": 1, "prompts_per_min": 2, "tokens_per_min": 100, "tokens_per_day": 1_000}
    for name in ("line-1", "line-2"):
        await record.line(name)
    assert await record.settle("line-1", 300) == 1

    left = await record.admit("a", 0, **limits)

    assert (left.prompts, left.tokens, left.day_tokens) == (1, 100, 700)
    assert await record.code("b", **limits) == "too_many_active"


async def test_a_limit_that_is_lowered_counts_at_once(record):
    await record.admit("a", 0, tokens_per_min=10_000, prompts_per_min=100)

    left = await record.admit("b", 0, tokens_per_min=500, prompts_per_min=2)

    assert (left.tokens, left.prompts) == (500, 1)


async def test_an_entry_that_nobody_settles_expires(record):
    await record.admit("a", active_max=1)
    active = keys.owner_active("alice")
    await record.redis.zadd(active, {"a": 1})

    assert await record.code("b", active_max=1) == ""
    assert await record.redis.zcard(active) == 1


async def test_the_record_expires_after_a_debt_and_every_entry(record):
    await record.admit("a", 10_000_000, tokens_per_min=10)

    debt_ms = 10_000_000 * 6_000
    for key in (keys.owner_limits("alice"), keys.owner_active("alice")):
        assert await record.redis.pttl(key) > debt_ms


async def test_only_generations_that_counted_for_a_while_are_looked_at(record):
    await record.admit("old", active_max=2)
    await record.admit("new", active_max=2)
    await record.redis.zincrby(keys.owner_active("alice"), -11_000, "old")

    with pytest.raises(OverLimit) as caught:
        await record.admit("c", active_max=2)

    assert caught.value.active == ["old"]


def test_an_estimate_is_the_prompt_and_the_longest_answer():
    messages = [{"role": "user", "content": "x" * 400}]

    assert estimated_tokens(Request(messages)) == 100 + ANSWER_TOKENS
    assert estimated_tokens(Request(messages, {"max_tokens": 7})) == 107
    assert estimated_tokens(Request(messages, {"max_completion_tokens": 9, "max_tokens": 7})) == 107
    assert estimated_tokens(Request(messages, {"max_tokens": "7"})) == 100 + ANSWER_TOKENS


@pytest.mark.parametrize(
    ("end", "tokens"),
    [
        (End("completed", "stop", usage=Counts(3, 4, 7)), 7),
        (End("completed", "stop"), None),
        (End("cancelled", "cancelled"), 0),
        (End("cancelled", "cancelled", usage=Counts(3, 4, 7)), 7),
        (failed("queue_timeout", "no worker", retryable=True), 0),
        (failed("attempts_exhausted", "given up", retryable=False), None),
    ],
    ids=["reported", "unknown", "unbegun", "cancelled", "waited", "failed"],
)
def test_the_tokens_of_an_end(end, tokens):
    assert tokens_of(encode(end), None) == tokens


@pytest.mark.parametrize("spent", [b"[1]", b'{"prompt_tokens":"many"}', b"\xff"])
def test_counts_of_a_newer_version_leave_the_estimate(spent):
    assert tokens_of(encode(End("cancelled", "cancelled")), spent) is None


def test_a_generation_that_is_gone_counts_its_estimate():
    assert tokens_of(None, SPENT) is tokens_of(b"", None) is None


@pytest.mark.parametrize(
    ("end", "tokens"),
    [
        (End("completed", "stop", Counts(3, 4, 7)), 7),
        (End("completed", "stop"), 11),
        (End("cancelled", "cancelled"), 11),
    ],
    ids=["reported", "unknown", "cancelled"],
)
def test_the_counts_of_a_worker_are_those_of_an_end_without_any(end, tokens):
    assert tokens_of(encode(end), SPENT) == tokens
