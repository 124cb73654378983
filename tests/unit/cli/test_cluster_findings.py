"""The doctor's judgement of a cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cli.cluster_findings import MasterReport, judge_cluster, judge_node_timeout
from cli.redis_findings import examine_redis
from shared.config.settings import Settings
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer


def report(n: int, **changes: object) -> MasterReport:
    info = {"redis_version": "7.2.4", "connected_slaves": 1}
    options = {"cluster-node-timeout": "3000", "cluster-require-full-coverage": "no"}
    info |= {key: value for key, value in changes.items() if key in info}
    options |= {key: value for key, value in changes.items() if key in options}
    return MasterReport(f"h{n}:6379", str(changes.get("fault", "")), info, options)


def texts(*reports: MasterReport, slots_without: int = 0, outage_s: float = 10.0) -> list[str]:
    found = judge_cluster(reports, slots_without, outage_s)
    return [f"{finding.level} {finding.text}" for finding in found]


def test_a_cluster_that_fits_has_only_good_findings():
    assert texts(report(1), report(2), report(3)) == [
        "ok 3 of 3 masters answer",
        "ok replicas of each master: 1 or more",
        "ok a failover takes about 7 s (cluster-node-timeout 3 s)",
        "ok a lost shard stops no other (full coverage not required)",
    ]


def test_masters_that_do_not_answer_are_named():
    (first, *_) = texts(report(1), report(2, fault="no answer"))

    assert first == "FAIL 1 of 2 masters answer: h2:6379: no answer"


def test_slots_without_a_master_fail():
    assert any(
        "FAIL 100 slots have no master" in text for text in texts(report(1), slots_without=100)
    )


def test_masters_without_a_replica_and_of_several_versions_are_named():
    found = texts(report(1, connected_slaves=0), report(2, redis_version="6.2.1"))

    assert any("warn masters without a replica: h1:6379" in text for text in found)
    assert any(
        "warn the masters have several versions: h1:6379 7.2.4, h2:6379" in text for text in found
    )


def test_a_failover_that_takes_longer_than_workers_wait_is_a_warning():
    assert judge_node_timeout(15.0, 10.0).level == "warn"
    assert "TAILRACE_REDIS_OUTAGE_S (10)" in judge_node_timeout(15.0, 10.0).text
    assert judge_node_timeout(15.0, 40.0).level == "ok"


def test_full_coverage_is_a_warning():
    found = texts(report(1, **{"cluster-require-full-coverage": "yes"}))

    assert any("cluster-require-full-coverage is yes: set no" in text for text in found)


async def test_the_doctor_examines_a_real_cluster():
    async with RedisCluster() as cluster:
        with RedisServer(tcp=True) as jobs:
            settings = Settings(redis_url=cluster.url, jobs_redis_url=jobs.url)
            found = [f"{each.level} {each.text}" for each in await examine_redis(settings)]

    assert "ok 3 of 3 masters answer" in found
    assert any("masters without a replica" in text for text in found)
    assert any("failover takes about 3 s" in text for text in found)
    assert any("append-only file off" in text for text in found)
    assert "ok partitions of the queue: 8" in found
    assert not any(text.startswith("FAIL") for text in found), found


@pytest.fixture(scope="module")
def node() -> Iterator[RedisServer]:
    with RedisServer(is_cluster=True) as server:
        yield server


async def test_a_plain_url_of_a_node_of_a_cluster_is_one_line_with_the_right_url(node: RedisServer):
    (finding,) = await examine_redis(Settings(redis_url=node.url))

    assert finding.level == "FAIL"
    assert f"write redis+cluster://127.0.0.1:{node.port}" in finding.text
