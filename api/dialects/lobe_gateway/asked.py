"""Finds in the log of an operation whether its feeder waits for a client's reply.

Invariant: a reply counts only where the log of the same operation has the request for it, so that a
client cannot answer for the operation of another owner. The answer depends only on the log, so
every node gives the same. Source: docs/dialects/lobehub-gateway.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from api.dialects.lobe_gateway.messages import Message, read_message, read_reply
from shared.log.ids import START
from shared.log.store import Store

TOOL_EXECUTE = "tool_execute"
TOOL_RESULT, CONFIRMATION, USER_INPUT = "tool_result", "tool_confirmation", "user_input"
NAMES = {TOOL_RESULT: "toolCallId", CONFIRMATION: "toolCallId", USER_INPUT: "requestId"}
# The kind of a reply -> the message that asks for it.
REQUESTS = {
    TOOL_RESULT: TOOL_EXECUTE,
    CONFIRMATION: "tool_confirmation_request",
    USER_INPUT: "input_request",
}
PAGE_ENTRIES = 500
State = Literal["unknown", "open", "answered"]


class Asked:
    """Looks for one request and for its reply in the entries of a log. Pure.

    Args:
        kind: of the reply, a key of `REQUESTS`.
        name: of the tool call or the request.

    Attributes:
        state: after the entries so far.
        reply: the members of the first reply; empty: there is none yet.
    """

    def __init__(self, kind: str, name: str) -> None:
        self.state: State = "unknown"
        self.reply: dict[str, Any] = {}
        self._kind, self._name = kind, name
        self._request = REQUESTS[kind]
        self._mark = self._request.encode()

    def add(self, raws: Iterable[bytes]) -> None:
        """Read the next entries."""
        for raw in raws:
            if self.state == "unknown" and self._mark in raw and self._is_request(raw):
                self.state = "open"
            elif self.state == "open" and (reply := self._reply_in(raw)) is not None:
                self.state, self.reply = "answered", reply

    def _is_request(self, raw: bytes) -> bool:
        found = read_message(raw, ())
        return (
            found is not None
            and found.message.kind == self._request
            and self._name_in(found.message) == self._name
        )

    def _name_in(self, message: Message) -> Any:
        members = msgspec.json.decode(message.body)
        is_call = self._request == TOOL_EXECUTE
        if message.is_event != is_call:
            return None
        data = members.get("data") if is_call else members
        return data.get(NAMES[self._kind]) if isinstance(data, dict) else None

    def _reply_in(self, raw: bytes) -> dict[str, Any] | None:
        reply = read_reply(raw)
        if reply is None or reply.get("type") != self._kind:
            return None
        return reply if reply.get(NAMES[self._kind]) == self._name else None


async def find_asked(store: Store, generation_id: str, kind: str, name: str) -> Asked:
    """Return whether the feeder of an operation has asked for a reply, and the reply.

    Raises:
        Unavailable: Redis did not answer in time.
    """
    asked, at = Asked(kind, name), START
    while True:
        page = await store.page(generation_id, at, PAGE_ENTRIES)
        asked.add(raw for entry_id, raw in page if entry_id != at)
        if asked.state == "answered" or len(page) < PAGE_ENTRIES:
            return asked
        at = page[-1][0]
