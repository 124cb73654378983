"""Passes the result of a tool on to LobeHub's server, which waits for it.

    POST {TAILRACE_LOBEHUB_URL}/api/agent/tool-result
    {"toolCallId":…,"content":…,"success":…,"error":…}

The server looks only at the id of the call. So the caller forwards only replies to calls of the
same operation, whose feeder must be trusted (api/dialects/lobe_gateway/asked.py).
The server accepts a repeated result, so a request whose answer is lost is sent again.
Source: docs/dialects/lobehub-gateway.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from shared.config.settings import Settings

logger = logging.getLogger(__name__)

ANSWER_S = 10.0  # of one try
FORWARD_S = 120.0  # of all tries: LobeHub's server keeps a result for so long
PAUSE_S, PAUSE_S_MAX = 0.5, 5.0


def note_untrusted() -> None:
    """Tell the operator that a result stays in the log, because its feeder is not trusted."""
    logger.error("tool result not delivered", extra={"reason": "the feeder's key has no scope act"})


async def forward_result(settings: Settings, result: Mapping[str, Any]) -> None:
    """Send a result until the server has it, or refuses it, or `FORWARD_S` have passed.

    Args:
        result: the members of the client's frame.
    """
    import aiohttp  # only nodes that are a gateway need it

    url = settings.lobehub_url.rstrip("/") + "/api/agent/tool-result"
    headers = {"authorization": f"Bearer {settings.lobehub_token}"}
    body = {name: value for name, value in result.items() if name != "type"}
    pause_s = PAUSE_S
    try:
        async with (
            asyncio.timeout(FORWARD_S),
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S)) as session,
        ):
            while True:
                reason = await _send(session, url, headers, body)
                if reason in ("", "refused"):
                    break
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, PAUSE_S_MAX)
    except TimeoutError:
        reason = "the server did not take it in time"
    if reason:
        logger.error("tool result not delivered", extra={"reason": reason})


async def _send(session: Any, url: str, headers: Mapping[str, str], body: Any) -> str:
    """Send a result once; return why the server does not have it, "refused" for good."""
    import aiohttp

    try:
        async with session.post(url, json=body, headers=headers, allow_redirects=False) as answer:
            if answer.status < 300:
                return ""
            return "refused" if 400 <= answer.status < 500 and answer.status != 429 else "busy"
    except (aiohttp.ClientError, TimeoutError, OSError) as exc:
        return type(exc).__name__
