"""The ledger: each generation counts once, whatever is repeated, late or forgotten."""

from __future__ import annotations

from datetime import date

import pytest

from shared.config.settings import Settings
from shared.redis import keys
from shared.usage import ledger as ledger_module
from shared.usage.figures import Figures
from shared.usage.ledger import OTHER_MODELS, SPARE_MS, Fact, Ledger, day_of, months_of

RETENTION_S = 100
A, B = "gen_aaaaaaaaaa", "gen_bbbbbbbbbb"
SOME = Figures(1, 10, 5, 2, 0, 300)
MORE = Figures(1, 10, 8, 2, 18, 400)


class Book:
    """The ledger of alice, and the present time of Redis."""

    def __init__(self, redis, now_ms):
        settings = Settings(redis_url="redis://test", retention_s=RETENTION_S)
        self.redis = redis
        self.now_ms = now_ms
        self.ledger = Ledger(redis, settings)

    def fact(self, name=A, figures=SOME, *, model="demo", age_ms=0, created_ms=None, owner="alice"):
        created_ms = self.now_ms if created_ms is None else created_ms
        return Fact(owner, name, self.now_ms - age_ms, created_ms, model, figures)

    async def settle(self, *facts):
        return await self.ledger.settle(facts)

    async def rows(self, owner="alice"):
        today = day_of(self.now_ms)
        ((rows),) = await self.ledger.rows([owner], date(today.year - 1, 1, 1), today)
        return {(row.day, row.model): row.figures for row in rows}

    async def total(self):
        rows = await self.rows()
        return [sum(column) for column in zip(*rows.values(), strict=True)]


@pytest.fixture
async def book(redis):
    seconds, micros = await redis.time()
    return Book(redis, seconds * 1000 + micros // 1000)


async def test_a_fact_that_is_settled_again_changes_nothing(book):
    assert await book.settle(book.fact()) == 1
    assert await book.settle(book.fact()) == 0
    assert await book.settle(book.fact(), book.fact(B)) == 1

    assert await book.total() == list(SOME.plus(SOME))


async def test_a_later_fact_replaces_an_earlier_one(book):
    await book.settle(book.fact(age_ms=50))

    assert await book.settle(book.fact(figures=MORE)) == 1
    assert await book.total() == list(MORE)


async def test_an_earlier_fact_that_comes_late_is_ignored(book):
    await book.settle(book.fact(figures=MORE))

    assert await book.settle(book.fact(age_ms=50)) == 0
    assert await book.total() == list(MORE)


async def test_a_fact_whose_record_may_be_gone_is_refused(book):
    age_ms = 2 * RETENTION_S * 1000 + SPARE_MS + 1_000

    assert await book.settle(book.fact(age_ms=age_ms)) == 0
    assert await book.rows() == {}


async def test_the_record_lives_longer_than_facts_are_accepted(book):
    await book.settle(book.fact())

    left_ms = await book.redis.pttl(keys.usage_counted("alice", str(day_of(book.now_ms))))
    assert left_ms > 2 * RETENTION_S * 1000 + SPARE_MS


async def test_a_fact_moves_to_the_model_that_it_names_now(book):
    await book.settle(book.fact(age_ms=50, model="a model"))
    await book.settle(book.fact(model="another"))

    assert list(await book.rows()) == [(day_of(book.now_ms), "another")]


async def test_usage_belongs_to_the_day_on_which_the_prompt_was_accepted(book):
    yesterday_ms = book.now_ms - 86_400_000
    await book.settle(book.fact(created_ms=yesterday_ms), book.fact(B))

    assert set(await book.rows()) == {
        (day_of(yesterday_ms), "demo"),
        (day_of(book.now_ms), "demo"),
    }


async def test_many_facts_of_many_owners_are_counted_in_one_call_of_the_ledger(book, monkeypatch):
    monkeypatch.setattr(ledger_module, "FACTS_AT_ONCE", 2)
    facts = [book.fact(f"gen_{n:010}", owner=f"o{n % 2}") for n in range(10)]

    assert await book.settle(*facts) == 10
    for owner in ("o0", "o1"):
        assert [row.prompts for row in (await book.rows(owner)).values()] == [5]
    assert await book.ledger.owners() == ["o0", "o1"]
    assert await book.ledger.owners("o0") == ["o1"]


async def test_further_models_of_a_full_month_share_a_row(book, monkeypatch):
    monkeypatch.setattr(ledger_module, "ROWS_OF_MONTH_MAX", 1)
    await book.settle(book.fact(age_ms=50), book.fact(B, model="b", age_ms=50))
    await book.settle(book.fact(B, MORE, model="b"))

    rows = {model: figures for (_, model), figures in (await book.rows()).items()}
    assert rows == {"demo": SOME, OTHER_MODELS: MORE}


async def test_only_so_many_owners_are_listed(redis):
    settings = Settings(redis_url="redis://test", usage_owners_max=2)
    ledger = Ledger(redis, settings)
    seconds, _ = await redis.time()
    for owner in ("a", "b", "c"):
        await ledger.settle([Fact(owner, A, seconds * 1000, seconds * 1000, "demo", SOME)])

    assert len(await ledger.owners()) == 2


async def test_forgetting_an_owner_deletes_every_key_of_the_usage(book):
    await book.settle(book.fact(), book.fact(B, created_ms=book.now_ms - 40 * 86_400_000))
    await book.settle(book.fact(owner="bob"))

    assert await book.ledger.forget("alice", 1_000)
    assert await book.rows() == {}
    assert await book.ledger.owners() == ["bob"]
    left = {key.decode() async for key in book.redis.scan_iter(f"{keys.usage_month('alice', '')}*")}
    assert {name for name in left if not name.endswith(("forgotten",))} <= {
        # of a day on which nothing that still counts was accepted; it expires
        keys.usage_counted("alice", str(day_of(book.now_ms - 40 * 86_400_000)))
    }


async def test_generations_of_before_do_not_count_after_their_owner_was_forgotten(book):
    await book.ledger.forget("alice", 1_000)

    assert await book.settle(book.fact(created_ms=book.now_ms - 1)) == 0
    seconds, _ = await book.redis.time()
    assert await book.settle(book.fact(B, created_ms=(seconds + 1) * 1000)) == 1


def test_the_months_of_a_span_of_days_include_both_ends():
    assert list(months_of(date(2025, 11, 30), date(2026, 2, 1))) == [
        "2025-11",
        "2025-12",
        "2026-01",
        "2026-02",
    ]
