"""Requests that tailrace_client does not have: bytes with their progress, and measured answers.

`tailrace batch` sends and reads files in pieces and shows how far each is, and `tailrace bench`
measures an answer from the request that starts it. Both open connections of aiohttp of their own.
Knows no terminal.
"""

from __future__ import annotations

import asyncio
import random
import time
from types import TracebackType
from typing import Any

import aiohttp

from cli.client.client import RESPONSE_S, Client, RequestRefused, ServerUnreachable

SILENCE_S = 60.0  # between two reads of a stream; the server sends heartbeats more often
RETRY_PAUSE_S, RETRY_PAUSE_MAX_S = 0.2, 5.0  # the first pause, which doubles, and the longest
EVENT_LINE_BYTES_MAX = 32 * 1024 * 1024


class TransientError(Exception):
    """A request failed, but a repetition may succeed."""


class TransferClient(Client):
    """A client with a session of aiohttp, whose requests it does not repeat."""

    async def __aenter__(self) -> TransferClient:
        await super().__aenter__()
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=RESPONSE_S, sock_read=SILENCE_S)
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        self._session = aiohttp.ClientSession(
            headers=headers, timeout=timeout, read_bufsize=EVENT_LINE_BYTES_MAX
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session.close()
        await super().__aexit__(kind, error, traceback)


class Patience:
    """The pauses between tries of one request, and when to give up.

    Args:
        patience_s: how long to try without any answer.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self.renew()

    def renew(self) -> None:
        """Note an answer: the pauses are short again, and the patience starts anew."""
        self._tries = 0
        self._since = time.monotonic()

    @property
    def is_first(self) -> bool:
        return self._tries == 0

    async def wait(self, url: str, why: str) -> None:
        """Pause before the next try.

        Raises:
            ServerUnreachable: the patience is over; the message names `url` and `why`.
        """
        if time.monotonic() - self._since > self._patience_s:
            message = f"gave up on {url} after {self._patience_s:.0f} s: {why}"
            raise ServerUnreachable(message)
        pause_s = min(RETRY_PAUSE_MAX_S, RETRY_PAUSE_S * 2**self._tries)
        self._tries = min(self._tries + 1, 10)
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))


async def check(response: aiohttp.ClientResponse) -> None:
    """Raise the error of a response whose status is 400 or more.

    Raises:
        TransientError: a repetition may succeed.
        RequestRefused: the server would refuse the request again.
    """
    if response.status < 400:
        return
    error: dict[str, Any] = {}
    try:
        error = (await response.json())["error"]
        message = str(error["message"])
    except (aiohttp.ClientError, ValueError, KeyError, TypeError):
        message = f"the server answered {response.status}"
    # An error in OpenAI's form has no member `retryable`.
    if error.get("retryable", response.status in (408, 429) or response.status >= 500):
        raise TransientError(message)
    raise RequestRefused(response.status, str(error.get("code", "")), message)


def describe(error: BaseException) -> str:
    """Return a network error as a message for a person."""
    if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError):
        return "the server closed the connection"
    return str(error) or type(error).__name__
