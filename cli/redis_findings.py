"""The doctor's checks of the server at TAILRACE_REDIS_URL.

The `judge_…` functions are pure. Invariant: nothing is changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from redis.exceptions import NoPermissionError, ResponseError

from cli.cluster_findings import ask_masters, judge_cluster
from cli.finding import Finding
from cli.sentinel_findings import examine_sentinels
from cli.up.private_server import VERSION_MIN, parse_version
from shared.config.settings import Settings
from shared.errors import ConfigurationError, Unavailable
from shared.queue.partitions import check as check_partitions
from shared.redis import keys
from shared.redis.client import Client, translated
from shared.redis.cluster.client import ClusterClient, cluster_of
from shared.redis.connections import connect
from shared.redis.server_check import RULES, check_connection, find_jobs_url, missing_rights

PUBSUB_BYTES_MIN = 33_554_432  # Redis's own default
MAXMEMORY_SHARE_MAX = 0.5  # of the memory of the machine on which Redis runs


async def examine_redis(settings: Settings) -> list[Finding]:
    """Check the server at TAILRACE_REDIS_URL."""
    try:
        client = connect(settings)
    except ConfigurationError as exc:
        return [Finding("FAIL", "redis", str(exc))]
    try:
        if (cluster := cluster_of(client)) is not None:
            return await _examine_cluster(cluster, settings)
        await check_connection(client)
        sentinels = await examine_sentinels(client, settings.redis_outage_s)
        with translated():
            findings = await _examine_configuration(client)
            rights = judge_rights(await missing_rights(client))
            if not any(finding.level == "FAIL" for finding in rights):
                rights.append(await _examine_partitions(client, settings))
            return [*sentinels, *findings, *rights, await _examine_queue(settings)]
    except Unavailable as exc:
        advice = "check that Redis runs and that TAILRACE_REDIS_URL is right"
        return [Finding("FAIL", "redis", f"{exc}: {advice}")]
    except ConfigurationError as exc:
        return [Finding("FAIL", "redis", str(exc))]
    except ResponseError as exc:
        advice = "correct the database in TAILRACE_REDIS_URL"
        return [Finding("FAIL", "redis", f"the server refuses: {exc}: {advice}")]
    finally:
        await client.aclose()


async def _examine_cluster(cluster: ClusterClient, settings: Settings) -> list[Finding]:
    """Check a cluster, and each of its masters as a single server is checked."""
    reports = await ask_masters(cluster)
    slots_without = cluster.topology.slot_map.slots_without
    findings = judge_cluster(reports, slots_without, settings.redis_outage_s)
    judged = [
        (report, finding)
        for report in reports
        if report.info
        for finding in judge_server(report.info)
    ]
    findings += [
        Finding(finding.level, finding.subject, f"{report.name}: {finding.text}")
        for report, finding in judged
        if finding.level != "ok"
    ]
    if judged and all(finding.level == "ok" for _, finding in judged):
        findings.append(Finding("ok", "redis", f"each master: {reports[0].version}, well set"))
    partitions = await _examine_partitions(cluster, settings)
    return [*findings, partitions, await _examine_queue(settings)]


async def _examine_configuration(client: Client) -> list[Finding]:
    info: dict[str, Any] = {}
    try:
        for section in ("server", "memory", "persistence"):
            info |= await client.info(section)
    except NoPermissionError as exc:
        if "'info'" not in str(exc):
            raise
        text = "INFO is refused, so version, policy and memory are not checked"
        return [Finding("warn", "redis", f"{text}: allow INFO for this user")]
    return [*judge_server(info), judge_pubsub_limit(await _pubsub_limit(client))]


async def _examine_queue(settings: Settings) -> Finding:
    """Say where the jobs role keeps arq's queue."""
    url, is_shared = await find_jobs_url(settings)
    text = f"arq's queue is in database {url.database}"
    if is_shared:
        text += f", with all other data: there is no database {url.database + 1} for this user"
    return Finding("ok", "redis", text)


async def _examine_partitions(client: Client, settings: Settings) -> Finding:
    """Compare the number of partitions with that of this Redis, and with the slots of a worker."""
    try:
        await check_partitions(client, settings)
    except ConfigurationError as exc:
        return Finding("FAIL", "redis", str(exc))
    count, slots = settings.partition_count, settings.worker_slots
    if count > 1 and slots < count * len(keys.LANES):
        advice = f"set TAILRACE_WORKER_SLOTS to {count * len(keys.LANES)} or more"
        text = f"a worker of {slots} slots cannot wait on {count} partitions of the queue at once"
        return Finding("warn", "redis", f"{text}: {advice}")
    return Finding("ok", "redis", f"partitions of the queue: {count}")


async def _pubsub_limit(client: Client) -> str:
    """Return the setting; "" if CONFIG is not allowed, as on many hosted servers."""
    try:
        answer = await client.config_get("client-output-buffer-limit")
    except ResponseError:
        return ""
    return str(answer.get("client-output-buffer-limit", ""))


def judge_server(info: Mapping[str, Any]) -> list[Finding]:
    """Judge version, eviction policy, append-only file and memory in the reply of INFO."""
    version = str(info.get("valkey_version") or info.get("redis_version", ""))
    compatible = parse_version(f"v={info.get('redis_version', '')}")
    findings = [Finding("ok", "redis", f"version {version}")]
    if compatible < VERSION_MIN:
        text = f"version {version or 'unknown'}: install Redis or Valkey 6.2 or newer"
        findings = [Finding("FAIL", "redis", text)]
    policy = str(info.get("maxmemory_policy", "unknown"))
    if policy == "noeviction":
        findings.append(Finding("ok", "redis", "maxmemory-policy noeviction"))
    else:
        advice = "set noeviction, because eviction deletes single keys of a generation"
        findings.append(Finding("FAIL", "redis", f"maxmemory-policy is {policy}: {advice}"))
    if info.get("aof_enabled"):
        findings.append(Finding("ok", "redis", "append-only file on"))
    else:
        advice = "set appendonly yes, because otherwise a restart of Redis loses all data"
        findings.append(Finding("warn", "redis", f"append-only file off: {advice}"))
    return [*findings, judge_memory(info)]


def judge_memory(info: Mapping[str, Any]) -> Finding:
    """Judge the memory limit in the reply of INFO."""
    maxmemory, machine = int(info.get("maxmemory", 0)), int(info.get("total_system_memory", 0))
    if not maxmemory:
        advice = "set it to less than half of the machine's memory, or the system may kill Redis"
        return Finding("warn", "redis", f"maxmemory is not set: {advice}")
    if machine and maxmemory > machine * MAXMEMORY_SHARE_MAX:
        advice = "set less than half: a rewrite of the append-only file may take as much again"
        return Finding("warn", "redis", f"maxmemory is {maxmemory} of {machine} bytes: {advice}")
    return Finding("ok", "redis", f"maxmemory {maxmemory} bytes")


def judge_rights(missing: Sequence[str]) -> list[Finding]:
    """Judge the rights of the user in TAILRACE_REDIS_URL."""
    if not missing:
        return [Finding("ok", "redis", "the user has all rights that roles need")]
    return [Finding("FAIL", "redis", f"the user has no right to {', '.join(missing)}: {RULES}")]


def judge_pubsub_limit(value: str) -> Finding:
    """Judge client-output-buffer-limit.

    Args:
        value: `normal 0 0 0 slave … pubsub <hard> <soft> <seconds>`; empty: not known.
    """
    words = value.split()
    if "pubsub" not in words[:-1]:
        advice = "make sure that client-output-buffer-limit for pubsub is 32mb or more"
        return Finding("warn", "redis", f"CONFIG GET is refused: {advice}")
    hard = int(words[words.index("pubsub") + 1])
    if hard == 0 or hard >= PUBSUB_BYTES_MIN:
        return Finding("ok", "redis", f"pubsub buffer {hard or 'unlimited'} bytes")
    advice = (
        "set client-output-buffer-limit 'pubsub 32mb 8mb 60', or Redis disconnects busy API nodes"
    )
    return Finding("warn", "redis", f"pubsub buffer {hard} bytes: {advice}")
