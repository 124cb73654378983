"""Holds the head of a streamed answer back until the answer has content, or has failed without.

An HTTP status can be sent once. A client of OpenAI's API shows a failure well if the failure is an
HTTP status, and badly if it comes in a stream that has begun with 200. So the head waits for the
first content, for a bounded time: nothing else can be sent meanwhile, and a proxy gives a silent
connection up. The wait costs no task and no call of Redis: the request's own handler waits for the
reader's copy of the log. Knows no dialect.
Source: docs/protocol.md, "Before the first content".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import Receive

from api.hub.contracts import ReadingOutcome
from api.hub.hub import Hub
from api.hub.relay import Relay
from api.readers.disconnect import DisconnectWatcher
from api.readers.log_waiter import Waiter


async def wait_for_content(
    hub: Hub,
    relay: Relay,
    receive: Receive,
    *,
    is_content: Callable[[bytes], bool],
    label: str,
    left_s: float | None = None,
) -> bytes | None:
    """Wait until the log has content, has ended, or `head_wait_s` or `left_s` is over.

    Args:
        relay: held by the caller.
        left_s: until the credentials of the request expire; None: they do not expire. After
            `left_s` the stream begins and is broken off at once, like every stream whose
            credentials have expired.
        receive: the ASGI `receive` of the request; it reports a disconnect.
        is_content: whether an entry, in JSON, shows the client a part of the answer.
        label: of the metrics: the connection counts as a reader of this transport.

    Returns:
        The JSON of the `end` of a log without content; None: begin the stream.

    Raises:
        RequestError: as `Waiter.check_not_broken_off`.
    """
    wait_s = hub.settings.head_wait_s
    if left_s is not None:
        wait_s = min(wait_s, left_s)
    if not wait_s:
        return None
    opening = _Opening(relay, is_content)
    with Waiter(relay, hub.now()) as waiter:
        departure = DisconnectWatcher(receive, lambda: waiter.break_off(ReadingOutcome.LEFT))
        hub.admit(waiter, label)
        try:
            async with asyncio.timeout(wait_s):
                await waiter.until(opening.is_decided)
        except TimeoutError:
            pass
        finally:
            departure.close()
            hub.dismiss(waiter)
        waiter.check_not_broken_off()
    return opening.end


class _Opening:
    """The entries of a log up to the first content. Looks at each entry once."""

    def __init__(self, relay: Relay, is_content: Callable[[bytes], bool]) -> None:
        self._relay = relay
        self._is_content = is_content
        self._epoch = relay.feed.epoch
        self._seen = 0  # entries without content, since the log was last rewritten

    def is_decided(self) -> bool:
        return self._relay.is_over or self._has_content()

    @property
    def end(self) -> bytes | None:
        """The `end` of a log that is over and has no content, JSON."""
        relay = self._relay
        if not relay.is_over or self._has_content():
            return None
        return relay.unlogged_end or relay.feed.raws[-1]

    def _has_content(self) -> bool:
        feed = self._relay.feed
        if feed.base:
            return True  # the beginning was trimmed: another reader has got it
        if self._epoch != feed.epoch:
            self._epoch, self._seen = feed.epoch, 0
        while self._seen < len(feed.raws):
            if self._is_content(feed.raws[self._seen]):
                return True
            self._seen += 1
        return False
