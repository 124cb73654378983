"""One operation as frames of version 2 of LobeHub's gateway.

    {"type":"agent_event","operationId":"op_…","id":"3","event":{…}}

The numbers are those of version 1. A request to execute a tool goes to the clients that said
`executor`, and to all clients while there is no such client.
Source: docs/dialects/lobehub-gateway.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from api.dialects.lobe_gateway.asked import TOOL_EXECUTE
from api.dialects.lobe_gateway.events import encode
from api.dialects.lobe_gateway.fold import GatewayFrameFold
from api.dialects.lobe_gateway.messages import (
    SESSION_COMPLETE,
    STATUS_CHANGE,
    Message,
    read_executor,
)
from api.dialects.lobe_gateway.operation_log import numbered
from shared.log.ids import EventId
from shared.log.records import Meta


class MuxFrameFold(GatewayFrameFold):
    """The events as frames of one subscription."""

    def __init__(self, meta: Meta, operation: str, seen: int, *, is_executor: bool) -> None:
        self._name = encode(operation)
        self._is_executor = is_executor
        self._executors: set[str] = set()
        super().__init__(meta, operation, seen, wants_status=True)

    @property
    def status(self) -> str:
        """The status of the operation, as far as it is known."""
        return self._log.status

    def add(self, event_id: EventId, raw: bytes) -> Sequence[bytes]:
        marked = read_executor(raw)
        if marked is not None:
            client, is_there = marked
            (self._executors.add if is_there else self._executors.discard)(client)
            return self._take_opened()
        return super().add(event_id, raw)

    def _is_for_client(self, message: Message) -> bool:
        return message.kind != TOOL_EXECUTE or self._is_executor or not self._executors

    def _frame(self, message: Message, number: int) -> bytes:
        return numbered(message, number, b'"operationId":%b,' % self._name)

    def _completed(self) -> list[bytes]:
        if self._log.has_said_complete or self._log.has_said_end:
            return []
        status = self._log.status
        if status in ("error", "interrupted"):
            return [self._frame(_status(status), self._number + 1)]
        body = b'{"type":"session_complete"}'
        return [self._frame(Message(SESSION_COMPLETE, body, False), self._number + 1)]

    def _given_up(self) -> bytes:
        return self._frame(_status("error"), 0)

    def _resumed(self, status: str) -> bytes:
        return b'{"type":"resume_complete","operationId":%b,"status":%b,"gap":false}' % (
            self._name, encode(status),
        )  # fmt: skip


def _status(status: str) -> Message:
    return Message(STATUS_CHANGE, encode({"type": STATUS_CHANGE, "status": status}), False)
