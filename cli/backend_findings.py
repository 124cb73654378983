"""The doctor's look at the backends, as the running workers know them. Nothing is changed."""

from __future__ import annotations

from collections.abc import Sequence

from cli.finding import Finding
from shared.backends.overview import BackendView, backend_views
from shared.config.settings import Settings
from shared.errors import Unavailable
from shared.redis.connections import connect

SUBJECT = "backends"


async def examine_backends(settings: Settings) -> list[Finding]:
    """Return what the workers know; nothing without workers. Another check tells of Redis."""
    if not settings.redis_url:
        return []
    redis = connect(settings)
    try:
        return judge_backends(await backend_views(redis))
    except Unavailable:
        return []
    finally:
        await redis.aclose()


def judge_backends(views: Sequence[BackendView]) -> list[Finding]:
    """Judge the backends: one line for each that is not asked, or one for all."""
    found = []
    for view in views:
        if view.state in ("open", "half_open"):
            since = f" for {view.since_s:.0f} s" if view.since_s is not None else ""
            text = f"{view.name} is not asked{since}: {view.reason}"
            advice = "check the server; workers try it again by themselves"
            found.append(Finding("warn", SUBJECT, f"{text}. {advice}"))
        elif view.state == "limited":
            advice = "use fewer requests, or ask the vendor for a higher limit"
            text = f"{view.name} is not asked for {view.limited_s:.0f} s: its rate limit is used up"
            found.append(Finding("warn", SUBJECT, f"{text}. {advice}"))
    if views and not found:
        return [Finding("ok", SUBJECT, f"workers reach all {len(views)}")]
    return found
