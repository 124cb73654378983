"""What the doctor says of backends."""

from __future__ import annotations

from typing import Any

import pytest

from cli import backend_findings
from cli.backend_findings import examine_backends, judge_backends
from shared.backends.board import Report, change_breaker, write_reports
from shared.backends.breaker import Breaker
from shared.backends.overview import BackendView
from shared.config.settings import Settings
from shared.redis.client import clock_ms
from shared.redis.scripts import Scripts

CLOSED = BackendView(name="good")


def test_backends_that_all_work_are_one_line() -> None:
    (found,) = judge_backends([CLOSED, CLOSED])
    assert (found.level, found.text) == ("ok", "workers reach all 2")


def test_without_workers_there_is_nothing_to_say() -> None:
    assert judge_backends([]) == []


def test_an_open_breaker_is_a_warning_with_its_reason_and_what_to_do() -> None:
    view = BackendView(name="gpu", state="open", since_s=30.2, retry_s=4.0, reason="refused")
    (found,) = judge_backends([CLOSED, view])
    assert found.level == "warn"
    assert found.text == (
        "gpu is not asked for 30 s: refused. check the server; workers try it again by themselves"
    )


def test_a_used_up_rate_limit_is_a_warning() -> None:
    (found,) = judge_backends([BackendView(name="gpt", state="limited", limited_s=12.0)])
    assert found.level == "warn"
    assert found.text.startswith("gpt is not asked for 12 s: its rate limit is used up.")


async def test_the_doctor_reads_what_workers_share(
    fake_redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ms = await clock_ms(fake_redis)
    await write_reports(fake_redis, "w", {"gpu": Report()}, now_ms)
    opened = Breaker(state="open", since_ms=now_ms, until_ms=now_ms + 5_000, reason="refused")
    await change_breaker(Scripts(fake_redis), "gpu", b"", opened)
    monkeypatch.setattr(backend_findings, "connect", lambda settings: fake_redis)

    (found,) = await examine_backends(Settings(redis_url="redis://x"))
    assert found.text.startswith("gpu is not asked for 0 s: refused.")
    assert await examine_backends(Settings()) == []
