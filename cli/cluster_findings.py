"""The doctor's checks of the cluster in TAILRACE_REDIS_URL.

The `judge_…` functions are pure. Invariant: nothing is changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from cli.finding import Finding
from shared.errors import ConfigurationError, Unavailable
from shared.redis.client import open_pool, translated
from shared.redis.cluster.client import ClusterClient
from shared.redis.cluster.topology import NoCluster
from shared.redis.server_check import NO_CLUSTER_MODE
from shared.text.addresses import format_authority

# A master counts as lost after up to 1.5 node timeouts; the others agree, and the replica waits
# for up to a second before it asks for votes. On loopback a failover took 1.6 to 2.1 timeouts.
FAILOVER_TIMEOUTS = 2.0
FAILOVER_S = 1.0
OPTIONS = ("cluster-node-timeout", "cluster-require-full-coverage")


@dataclass(frozen=True, slots=True)
class MasterReport:
    """The replies of one master.

    Attributes:
        name: its address.
        fault: why the master gave no reply; "": it answered.
        info: the sections of INFO that the doctor reads; empty: INFO is refused.
        options: of `OPTIONS`; empty: CONFIG is refused.
    """

    name: str
    fault: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def version(self) -> str:
        return str(self.info.get("valkey_version") or self.info.get("redis_version", ""))


async def ask_masters(cluster: ClusterClient) -> list[MasterReport]:
    """Ask each master.

    Raises:
        ConfigurationError: the servers run without cluster mode.
        Unavailable: no server answers with the slots.
    """
    try:
        urls = await cluster.masters()
    except NoCluster as exc:
        raise ConfigurationError(NO_CLUSTER_MODE) from exc
    reports = []
    for url in urls:
        name = format_authority(url.host, url.port)
        try:
            async with Redis.from_pool(open_pool(url)) as master:
                with translated():
                    reports.append(await _ask(name, master))
        except (Unavailable, ResponseError) as exc:
            reports.append(MasterReport(name, fault=str(exc)))
    return reports


async def _ask(name: str, master: Any) -> MasterReport:
    info: dict[str, Any] = {}
    options: dict[str, str] = {}
    try:
        for section in ("server", "memory", "persistence", "replication"):
            info |= await master.info(section)
    except ResponseError:
        info = {}
    try:
        for option in OPTIONS:  # a server before 7.0 takes one at a time
            options |= await master.config_get(option)
    except ResponseError:
        pass
    return MasterReport(name, info=info, options=options)


def judge_cluster(
    reports: Sequence[MasterReport], slots_without: int, outage_s: float
) -> list[Finding]:
    """Judge the replies of the masters.

    Args:
        slots_without: slots that have no master.
        outage_s: the setting `redis_outage_s`, s.
    """
    answering = [report for report in reports if not report.fault]
    findings = [_finding("ok", f"{len(answering)} of {len(reports)} masters answer")]
    if len(answering) < len(reports):
        faults = "; ".join(f"{each.name}: {each.fault}" for each in reports if each.fault)
        findings = [
            _finding("FAIL", f"{len(answering)} of {len(reports)} masters answer: {faults}")
        ]
    if slots_without:
        text = f"{slots_without} slots have no master"
        advice = "give each slot to a master (redis-cli --cluster fix)"
        findings.append(_finding("FAIL", f"{text}, so their generations are lost: {advice}"))
    return [
        *findings,
        *_judge_versions(answering),
        *_judge_replicas(answering),
        *_judge_options(answering, outage_s),
    ]


def _judge_versions(reports: Sequence[MasterReport]) -> list[Finding]:
    versions = {report.version for report in reports if report.version}
    if len(versions) < 2:
        return []
    named = ", ".join(f"{report.name} {report.version}" for report in reports)
    return [_finding("warn", f"the masters have several versions: {named}: upgrade the older ones")]


def _judge_replicas(reports: Sequence[MasterReport]) -> list[Finding]:
    known = [report for report in reports if "connected_slaves" in report.info]
    lacking = [report.name for report in known if not report.info["connected_slaves"]]
    if lacking:
        advice = "add one to each, or a lost master takes its generations with it"
        return [_finding("warn", f"masters without a replica: {', '.join(lacking)}: {advice}")]
    if not known:
        return []
    fewest = min(int(report.info["connected_slaves"]) for report in known)
    return [_finding("ok", f"replicas of each master: {fewest} or more")]


def _judge_options(reports: Sequence[MasterReport], outage_s: float) -> list[Finding]:
    findings = []
    timeouts = [
        int(report.options[OPTIONS[0]]) for report in reports if OPTIONS[0] in report.options
    ]
    if timeouts:
        findings.append(judge_node_timeout(max(timeouts) / 1000, outage_s))
    coverage = {report.options.get(OPTIONS[1]) for report in reports} - {None}
    if "yes" in coverage:
        text = "cluster-require-full-coverage is yes: set no"
        findings.append(_finding("warn", f"{text}, or one lost shard stops all others"))
    elif coverage:
        findings.append(_finding("ok", "a lost shard stops no other (full coverage not required)"))
    return findings


def judge_node_timeout(timeout_s: float, outage_s: float) -> Finding:
    """Judge cluster-node-timeout against the time for which workers wait for Redis."""
    failover_s = FAILOVER_TIMEOUTS * timeout_s + FAILOVER_S
    text = f"a failover takes about {failover_s:g} s (cluster-node-timeout {timeout_s:g} s)"
    if failover_s > outage_s:
        advice = f"lower it, or raise TAILRACE_REDIS_OUTAGE_S ({outage_s:g})"
        return _finding("warn", f"{text}, and workers stop before: {advice}")
    return _finding("ok", text)


def _finding(level: Any, text: str) -> Finding:
    return Finding(level, "cluster", text)
