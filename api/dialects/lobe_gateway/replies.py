"""What clients answer a feeder: results of tools, confirmations and inputs.

A reply is an entry of the operation's log. So the feeder may wait at another node than that of the
client, may ask again after its node has died, and gets the first reply if several clients send one.
Source: docs/dialects/lobehub-gateway.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from starlette.types import Receive

from api.dialects.denial import deny
from api.dialects.lobe_gateway.asked import CONFIRMATION, NAMES, USER_INPUT
from api.dialects.lobe_gateway.feed_body import Entries, now_ms, read_name
from api.dialects.lobe_gateway.messages import read_reply, reply_entry
from api.dialects.lobe_gateway.patience import until_redis_answers
from api.errors import request_error
from api.hub.contracts import ReadingOutcome
from api.hub.relay import Relay
from api.intake.body import invalid_request
from api.node import Node
from api.readers.disconnect import DisconnectWatcher
from api.readers.log_waiter import Waiter
from shared.errors import NotFound
from shared.log.producing import Denied

WAITS_MAX = 1_000  # feeders that wait at one node
OPTIONAL = ("error", "state", "workRegistration")  # of a result; they stay as they are


class Reply(NamedTuple):
    """A client's reply, and what it writes."""

    kind: str
    name: str
    members: dict[str, Any]
    entries: Entries


def read_reply_frame(frame: Mapping[str, Any]) -> Reply:
    """Return the reply in a client's frame.

    Raises:
        RequestError: 422, a wrong member.
    """
    kind = str(frame["type"])
    name = read_name(NAMES[kind], frame.get(NAMES[kind]))
    members: dict[str, Any] = {"type": kind, NAMES[kind]: name}
    if kind == CONFIRMATION:
        members["approved"] = _boolean(frame, "approved")
    elif kind == USER_INPUT:
        members["content"] = _text(frame, may_be_null=False)
    else:
        members["content"] = _text(frame, may_be_null=True)
        members["success"] = _boolean(frame, "success")
        members |= {each: frame[each] for each in OPTIONAL if frame.get(each) is not None}
    entries = Entries([reply_entry(members)], "", now_ms(), name=name)
    return Reply(kind, name, members, entries)


def _boolean(frame: Mapping[str, Any], member: str) -> bool:
    value = frame.get(member)
    if not isinstance(value, bool):
        raise invalid_request(f"{member} must be true or false")
    return value


def _text(frame: Mapping[str, Any], *, may_be_null: bool) -> str | None:
    value = frame.get("content")
    if isinstance(value, str) or (value is None and may_be_null):
        return value
    raise invalid_request("content must be a string" + (" or null" if may_be_null else ""))


class ReplyWaits:
    """The feeders that wait for replies at one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._waits = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Count a feeder that waits during the block.

        Take the place before the question is written: a refused feeder writes nothing.

        Raises:
            RequestError: 429, no more feeders may wait.
        """
        if self._waits >= WAITS_MAX:
            raise request_error("rate_limited", f"at most {WAITS_MAX} feeders wait at one node")
        self._waits += 1
        try:
            yield
        finally:
            self._waits -= 1

    async def first(
        self, generation_id: str, kind: str, name: str, *, wait_s: float, receive: Receive
    ) -> dict[str, Any] | None:
        """Return the first reply; None: none came in time. The caller has a `place`.

        Args:
            receive: of the request; reports a feeder that leaves.

        Raises:
            RequestError: 409 the operation ended meanwhile; as `Hub.reading`.
            NotFound: the operation is gone.
        """
        hub = self._node.hub
        meta = await until_redis_answers(lambda: self._node.store.meta(generation_id))
        if meta is None:
            raise NotFound
        async with hub.reading(meta) as relay:
            with Waiter(relay, hub.now()) as waiter:
                search = _Search(relay, kind, name)
                left = DisconnectWatcher(receive, lambda: waiter.break_off(ReadingOutcome.LEFT))
                hub.admit(waiter, "whole")
                try:
                    async with asyncio.timeout(wait_s):
                        await waiter.until(search.is_over)
                except TimeoutError:
                    return None
                finally:
                    left.close()
                    hub.dismiss(waiter)
                if search.found is None:
                    waiter.check_not_broken_off()
                    ended = await self._node.store.meta(generation_id)
                    deny(Denied("ended", ended.status if ended is not None else "sealed"))
                return search.found


class _Search:
    """Looks for a reply in a log that grows."""

    def __init__(self, relay: Relay, kind: str, name: str) -> None:
        self.found: dict[str, Any] | None = None
        self._relay = relay
        self._kind, self._name = kind, name
        self._epoch = relay.feed.epoch
        self._seq = 0

    def is_over(self) -> bool:
        """Whether the reply is there, or can come no more."""
        feed = self._relay.feed
        if feed.epoch != self._epoch:
            self._epoch, self._seq = feed.epoch, 0
        if self._seq < feed.base:  # trimmed: read it again
            self._relay.refill_soon()
            return self._relay.unlogged_end is not None  # with a lost log there is no refill
        while self.found is None and self._seq < feed.count:
            reply = read_reply(feed.raws[self._seq - feed.base])
            self._seq += 1
            if reply is not None and self._is_wanted(reply):
                self.found = reply
        return self.found is not None or self._relay.is_over

    def _is_wanted(self, reply: dict[str, Any]) -> bool:
        return reply.get("type") == self._kind and reply.get(NAMES[self._kind]) == self._name
