"""What the doctor says about sentinels: the table of findings, and one look at real ones."""

from __future__ import annotations

import dataclasses

import pytest

from cli.redis_findings import examine_redis
from cli.sentinel_findings import judge_sentinels
from shared.config.settings import Settings
from shared.redis.sentinel.record import View
from shared.redis.sentinel.session import SentinelFault
from tests.support.fake_sentinel import FakeSentinel, url_of
from tests.support.redis_server import RedisServer

GOOD = View(
    sentinel=("s1", 26379),
    master=("10.0.0.1", 6379),
    epoch=4,
    replicas=2,
    others=2,
    quorum=2,
    down_after_ms=5_000,
    failover_timeout_ms=60_000,
)
FAULT = SentinelFault("sentinel s3:26379: refused")


def judged(*views: View, faults: tuple[SentinelFault, ...] = (), outage_s: float = 10.0) -> str:
    findings = judge_sentinels(views, faults, outage_s)
    return "\n".join(f"{finding.level} {finding.text}" for finding in findings)


def test_three_that_agree_have_only_good_findings() -> None:
    said = judged(GOOD, GOOD, GOOD)

    assert "warn" not in said and "FAIL" not in said
    assert "ok 3 sentinels answer; the master is 10.0.0.1:6379" in said
    assert "ok replicas: 2" in said
    assert "ok a failover takes about 8 s" in said


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"others": 1}, "warn there are 2 sentinels: run 3 or more"),
        ({"others": 4}, "warn the sentinels know 5 of one another, and 3 of the URL answer"),
        ({"quorum": 4}, "FAIL the quorum is 4 of 3 sentinels"),
        ({"replicas": 0}, "warn the master has no replica"),
        ({"down_after_ms": 30_000}, "warn a failover takes about 33 s"),
    ],
)
def test_what_hinders_a_failover_is_named(changes: dict[str, int], finding: str) -> None:
    view = dataclasses.replace(GOOD, **changes)

    assert finding in judged(view, view, view)


def test_the_time_of_a_failover_is_compared_with_the_outage_that_workers_survive() -> None:
    assert "ok a failover takes about 8 s" in judged(GOOD, GOOD, GOOD, outage_s=8.0)
    said = judged(GOOD, GOOD, GOOD, outage_s=7.0)
    assert "raise TAILRACE_REDIS_OUTAGE_S (7)" in said


def test_sentinels_that_differ_or_are_silent_are_named() -> None:
    other = dataclasses.replace(GOOD, master=("10.0.0.2", 6379), epoch=5)
    said = judged(GOOD, other, faults=(FAULT,))

    assert "the master is 10.0.0.2:6379" in said, "the highest epoch counts"
    assert "warn the sentinels name several masters" in said
    assert "warn sentinel s3:26379: refused" in said


def test_without_an_answer_there_is_one_failure() -> None:
    assert judged(faults=(FAULT,)) == "FAIL no sentinel answers; sentinel s3:26379: refused"


async def test_the_doctor_asks_the_sentinels_and_then_the_master() -> None:
    with RedisServer(tcp=True) as server:
        async with FakeSentinel(1, ("127.0.0.1", server.port)) as sentinel:
            findings = await examine_redis(Settings(redis_url=url_of(sentinel)))

    said = [f"{finding.subject} {finding.level} {finding.text}" for finding in findings]
    assert f"sentinel ok 1 sentinels answer; the master is 127.0.0.1:{server.port}" in said
    assert any(line.startswith("redis ok version") for line in said)
