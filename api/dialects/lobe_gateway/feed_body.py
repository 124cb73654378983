"""Reads the bodies with which LobeHub's server feeds an operation.

    {"operationId":"op_…","event":{"type":…}}     {"operationId":"op_…","events":[…]}

Invariant: an event stays the JSON text that came, without spaces; only its type, its operation, its
time and what a chunk shows are read. Pure. Source: docs/dialects/lobehub-gateway.md.
"""

from __future__ import annotations

import hashlib
import math
import time
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from api.dialects.lobe_gateway.messages import (
    ENDS,
    RUNNING,
    end_entry,
    event_entries,
    message_entry,
)
from api.intake.body import check_idempotency_key, invalid_request, read_object, too_large
from api.intake.strict_json import mend_surrogates
from shared.errors import RequestError
from shared.log.events import encode as encode_entry
from shared.log.ids import GENERATION_PREFIX

BODY_BYTES_MAX = 4_194_304  # of one POST: an event may have the whole conversation
EVENTS_MAX = 1_000  # of one POST
NAME_CHARACTERS_MAX = 255  # of a tool call or a request
META_BYTES_MAX = 16_384  # of `meta` of an operation
WAIT_S = 60.0  # for a reply, without `timeout`
WAIT_S_MAX = 600.0
INPUTS = uuid.UUID("5f1c9a52-7d0c-4b58-9d0b-3a5f8b7d6c11")  # names inputs by Idempotency-Key
META_MEMBERS = (
    "topicId", "threadId", "agentId", "groupId", "taskId", "scope", "parentOperationId",
    "mirrorToOperationId", "rootOperationId",
)  # fmt: skip


class FeedBody(NamedTuple):
    """The members of one POST.

    Attributes:
        members: decoded, without those that are null.
        raw: the JSON text of the members that stay text.
    """

    operation: str
    members: Mapping[str, Any]
    raw: Mapping[str, bytes]

    def digest(self) -> str:
        """Return a name of everything that this POST says; `timeout` says nothing to readers."""
        said = hashlib.sha256()
        for name, text in sorted(self.raw.items()):
            if name != "timeout":
                said.update(b"%b %d\n%b" % (msgspec.json.encode(name), len(text), text))
        return said.hexdigest()


class Entries(NamedTuple):
    """What one POST writes.

    Attributes:
        entries: JSON.
        end: status of the `end` among them, which is the last one; empty: there is none.
        at_ms: the time that the feeder gives, ms since 1970.
        status: of the operation, if the feeder says one.
        name: of what a repeat of this POST would be about; empty: a repeat cannot be recognised.
    """

    entries: list[bytes]
    end: str
    at_ms: float
    status: str = ""
    name: str = ""


def read_feed(raw: bytes) -> FeedBody:
    """Return the members of a body.

    A half of a surrogate pair, which JavaScript writes for a text that was cut between two code
    units, becomes U+FFFD: no reader could decode it.

    Raises:
        RequestError: 400 not JSON; 413 too large; 422 not an object, or no `operationId`.
    """
    if len(raw) > BODY_BYTES_MAX:
        raise too_large(BODY_BYTES_MAX)
    try:
        members = read_object(raw, bytes_max=BODY_BYTES_MAX)
    except RequestError:
        if (mended := mend_surrogates(raw)) is None:
            raise
        raw, members = mended, read_object(mended, bytes_max=BODY_BYTES_MAX)
    texts = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    return FeedBody(
        read_operation(members.get("operationId")),
        members,
        {name: msgspec.json.format(bytes(text), indent=-1) for name, text in texts.items()},
    )


def read_operation(name: Any) -> str:
    """Return the name of an operation.

    Raises:
        RequestError: 422, it is none.
    """
    if not isinstance(name, str) or name.startswith(GENERATION_PREFIX):
        raise invalid_request("operationId must be a string that does not begin with gen_")
    try:
        return check_idempotency_key(name)
    except RequestError:
        raise invalid_request("operationId must be 1 to 255 visible ASCII characters") from None


def read_meta(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the known members of `meta` of an operation.

    Raises:
        RequestError: 422, it is no object, or too large.
    """
    meta = members.get("meta", {})
    if not isinstance(meta, dict):
        raise invalid_request("meta must be an object")
    known = {name: meta[name] for name in META_MEMBERS if isinstance(meta.get(name), str)}
    if len(msgspec.json.encode(known)) > META_BYTES_MAX:
        raise invalid_request(f"meta must have at most {META_BYTES_MAX} bytes")
    return known


def pushed(body: FeedBody) -> Entries:
    """Return what `push-event` and `push-events` write.

    Raises:
        RequestError: 422, a wrong member; the message names the event.
    """
    if "event" in body.members:
        raws = [("event", body.raw["event"])]
    else:
        listed = body.members.get("events")
        if not isinstance(listed, list) or not 0 < len(listed) <= EVENTS_MAX:
            raise invalid_request(f"send event, an object, or events, 1 to {EVENTS_MAX} objects")
        texts = msgspec.json.decode(body.raw["events"], type=list[msgspec.Raw])
        raws = [(f"events[{index}]", bytes(text)) for index, text in enumerate(texts)]
    entries: list[bytes] = []
    end, at_ms = "", math.inf
    for where, raw in raws:
        if end:
            raise invalid_request(f"{where}: nothing may follow agent_runtime_end")
        try:
            added, end = event_entries(body.operation, raw)
        except msgspec.MsgspecError:
            raise invalid_request(f"{where} must be an object with type, a string") from None
        entries += added
        at_ms = min(at_ms, _time_of(raw))
    return Entries(entries, end, at_ms)


def executed(body: FeedBody) -> Entries:
    """Return what `tool-execute` writes.

    Raises:
        RequestError: 422, a wrong member.
    """
    data = body.members.get("data")
    if not isinstance(data, dict):
        raise invalid_request("data must be an object with toolCallId")
    call, at_ms = read_name("data.toolCallId", data.get("toolCallId")), now_ms()
    told = {"data": msgspec.Raw(body.raw["data"]), "operationId": body.operation}
    event = {**told, "stepIndex": 0, "timestamp": at_ms, "type": "tool_execute"}
    entries, _ = event_entries(body.operation, msgspec.json.encode(event))
    return Entries(entries, "", at_ms, name=f"{call} {body.raw['data'].decode()}")


def confirmation_asked(body: FeedBody) -> tuple[Entries, str]:
    """Return what `request-confirmation` writes, and the id of the tool call.

    Raises:
        RequestError: 422, a wrong member.
    """
    call, tool = read_name("toolCallId", body.members.get("toolCallId")), body.members.get("tool")
    if not isinstance(tool, dict):
        raise invalid_request("tool must be an object")
    told = {"toolCallId": call, "tool": msgspec.Raw(body.raw["tool"])}
    entry = message_entry(type="tool_confirmation_request", **told)
    return Entries([entry], "", now_ms(), name=call), call


def input_asked(body: FeedBody, key: str) -> tuple[Entries, str]:
    """Return what `request-input` writes, and the id of the request.

    Args:
        key: the Idempotency-Key, or empty: then a repeat asks the user again.

    Raises:
        RequestError: 422, a wrong member.
    """
    prompt = body.members.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise invalid_request("prompt must be a string that is not empty")
    name = str(
        uuid.uuid5(INPUTS, f"{body.operation} {key} {body.digest()}") if key else uuid.uuid4()
    )
    entry = message_entry(type="input_request", requestId=name, prompt=prompt)
    return Entries([entry], "", now_ms(), name=name), name


def status_told(body: FeedBody) -> Entries:
    """Return what `update-status` writes.

    Raises:
        RequestError: 422, an unknown status.
    """
    status, summary = body.members.get("status"), body.members.get("summary", "")
    if status not in (*RUNNING, *ENDS):
        raise invalid_request(f"status must be one of {', '.join((*RUNNING, *ENDS))}")
    if not isinstance(summary, str):
        raise invalid_request("summary must be a string")
    if status in RUNNING:
        entry = message_entry(type="status_change", status=status)
        return Entries([entry], "", now_ms(), status)
    if status == "completed":
        message = message_entry(type="session_complete", summary=summary)
    else:
        message = message_entry(type="status_change", status=status)
    end = encode_entry(end_entry(status, summary))
    return Entries([message, end], ENDS[status][0], now_ms(), status)


def read_name(where: str, value: Any) -> str:
    """Return the name of a tool call or a request.

    Raises:
        RequestError: 422, it is none.
    """
    is_name = isinstance(value, str) and 0 < len(value) <= NAME_CHARACTERS_MAX
    if not is_name or not value.isprintable():
        raise invalid_request(f"{where} must be 1 to {NAME_CHARACTERS_MAX} printable characters")
    return str(value)


def read_wait_s(members: Mapping[str, Any]) -> float:
    """Return for how long a feeder waits for a reply, s.

    Raises:
        RequestError: 422, `timeout` is no number, or out of its bounds.
    """
    timeout = members.get("timeout", 1000 * WAIT_S)
    if not isinstance(timeout, int | float) or isinstance(timeout, bool):
        raise invalid_request("timeout must be a number, of milliseconds")
    if not 0 < timeout <= 1000 * WAIT_S_MAX:
        most = f"{1000 * WAIT_S_MAX:.0f}"
        raise invalid_request(f"timeout must be above 0 and at most {most} milliseconds")
    return timeout / 1000


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class _Timed(msgspec.Struct):
    timestamp: Any = None


def _time_of(raw: bytes) -> float:
    at_ms = msgspec.json.decode(raw, type=_Timed).timestamp
    is_number = isinstance(at_ms, int | float) and not isinstance(at_ms, bool)
    return at_ms if is_number else now_ms()
