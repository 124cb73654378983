"""The doctor's checks of the sentinels in TAILRACE_REDIS_URL.

The sentinels decide how long a failover takes, and a worker gives its backends up after
`TAILRACE_REDIS_OUTAGE_S`. So the two have to fit.
"""

from __future__ import annotations

from collections.abc import Sequence

from cli.finding import Finding
from shared.redis.client import Client, client_follower
from shared.redis.sentinel.record import View
from shared.redis.sentinel.session import SentinelFault
from shared.text.addresses import format_authority

SENTINELS_ENOUGH = 3  # two cannot outvote one that is cut off
# From the moment when the master counts as down: the vote, up to 1 s of delay at random, the
# promotion, and up to 1 s until the leader sees it.
FAILOVER_S = 3.0


async def examine_sentinels(redis: Client, outage_s: float) -> list[Finding]:
    """Ask the sentinels of this client; without sentinels in its URL there are no findings."""
    follower = client_follower(redis)
    if follower is None:
        return []
    views, faults = await follower.ask()
    return judge_sentinels(views, faults, outage_s)


def judge_sentinels(
    views: Sequence[View], faults: Sequence[SentinelFault], outage_s: float
) -> list[Finding]:
    """Judge what the sentinels of the URL answered.

    Args:
        faults: of those that gave no view; one that is silent has none.
        outage_s: the setting `redis_outage_s`, s.
    """
    if not views:
        return [Finding("FAIL", "sentinel", "; ".join(["no sentinel answers", *map(str, faults)]))]
    best = max(views, key=lambda view: view.epoch)
    text = f"{len(views)} sentinels answer; the master is {format_authority(*best.master)}"
    findings = [Finding("ok", "sentinel", text)]
    if faults:
        findings.append(Finding("warn", "sentinel", "; ".join(map(str, faults))))
    if len({view.master for view in views}) > 1:
        advice = "wait for the end of a failover; if this stays, look at the sentinels' logs"
        findings.append(
            Finding("warn", "sentinel", f"the sentinels name several masters: {advice}")
        )
    return [*findings, *_judge_number(views, best), _judge_times(best, outage_s)]


def _judge_number(views: Sequence[View], best: View) -> list[Finding]:
    known = best.others + 1
    findings = []
    if known < SENTINELS_ENOUGH:
        text = f"there are {known} sentinels: run {SENTINELS_ENOUGH} or more on different machines"
        findings.append(Finding("warn", "sentinel", text))
    if known > len(views):
        text = f"the sentinels know {known} of one another, and {len(views)} of the URL answer"
        findings.append(Finding("warn", "sentinel", f"{text}: name all of them in the URL"))
    if best.quorum > known:
        text = f"the quorum is {best.quorum} of {known} sentinels: no failover can begin"
        findings.append(Finding("FAIL", "sentinel", text))
    if best.replicas == 0:
        text = "the master has no replica: add one, or no failover can begin"
        return [*findings, Finding("warn", "sentinel", text)]
    return [*findings, Finding("ok", "sentinel", f"replicas: {best.replicas}")]


def _judge_times(view: View, outage_s: float) -> Finding:
    down_s = view.down_after_ms / 1000
    text = f"a failover takes about {down_s + FAILOVER_S:g} s (down-after-milliseconds, and 3 s)"
    if down_s + FAILOVER_S > outage_s:
        advice = f"lower it, or raise TAILRACE_REDIS_OUTAGE_S ({outage_s:g})"
        return Finding("warn", "sentinel", f"{text}, and workers stop before: {advice}")
    timeout_s = view.failover_timeout_ms / 1000
    return Finding("ok", "sentinel", f"{text}; failover-timeout {timeout_s:g} s")
