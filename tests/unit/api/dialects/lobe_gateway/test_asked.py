"""Which replies of clients an operation waits for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.dialects.lobe_gateway.asked import Asked
from api.dialects.lobe_gateway.messages import event_entries, message_entry, reply_entry

CALL = event_entries(
    "op_1", json.dumps({"type": "tool_execute", "data": {"toolCallId": "t1"}}).encode()
)[0]
CONFIRM = [message_entry(type="tool_confirmation_request", toolCallId="t1", tool={})]
INPUT = [message_entry(type="input_request", requestId="t1", prompt="?")]
FORGED = event_entries(
    "op_1", b'{"type":"stream_chunk","data":{"chunkType":"text","content":"tool_execute t1"}}'
)[0]


def state(kind: str, *raws: bytes, name: str = "t1") -> str:
    asked = Asked(kind, name)
    asked.add(raws)
    return asked.state


@pytest.mark.parametrize(
    ("kind", "request_", "others"),
    [
        ("tool_result", CALL, [*CONFIRM, *INPUT, *FORGED]),
        ("tool_confirmation", CONFIRM, [*CALL, *INPUT]),
        ("user_input", INPUT, [*CALL, *CONFIRM]),
    ],
)
def test_a_reply_needs_the_request_of_its_kind(
    kind: str, request_: list[bytes], others: list[bytes]
) -> None:
    member = "requestId" if kind == "user_input" else "toolCallId"
    reply: dict[str, Any] = {"type": kind, member: "t1"}
    assert state(kind, *others) == "unknown"
    assert state(kind, *request_, name="t2") == "unknown"
    assert state(kind, *others, *request_) == "open"
    assert state(kind, *request_, reply_entry({**reply, member: "t2"})) == "open"
    assert state(kind, *request_, reply_entry(reply)) == "answered"
    assert state(kind, reply_entry(reply)) == "unknown"
