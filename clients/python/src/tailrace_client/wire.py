"""The protocol's bytes and JSON: paths, refusals, lines, frames. Without I/O."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from tailrace_client.errors import ForeignAnswer, TailraceError, broken, usage
from tailrace_client.events import START_CURSOR, Event, is_event_id, read_event

ACCEPT = {"sse": "text/event-stream", "ndjson": "application/x-ndjson"}
JSON_TYPE = "application/json"
BYTES_TYPE = "application/octet-stream"
PARTIAL_STATUS = 206  # the answer to a request for the rest of a file
LINE_BYTES_MAX = 32 * 1024 * 1024  # an answer may hold a picture, and a proxy may send nonsense
RETRYABLE_STATUSES = frozenset({408, 429})
BODY_BYTES_MAX = 2 * LINE_BYTES_MAX  # of an answer in one piece
OUR_FAULT_CLOSES = frozenset({1002, 1003, 1007, 1009})
SUBPROTOCOL = "tailrace.v1"


def base_of(url: str) -> str:
    """Return the server's address without `/v1` and without a slash at its end.

    Raises:
        TailraceError: `usage`, it is no address of HTTP.
    """
    if not re.match(r"https?://[^/]", url):
        raise usage(f"url must begin with http:// or https://, got {url!r}")
    try:
        _ = urlsplit(url).port  # raises for brackets and ports that are none
    except ValueError as exc:
        raise usage(f"url is no address: {exc}, got {url!r}") from None
    return url.rstrip("/").removesuffix("/v1")


def socket_url(base: str) -> str:
    return "ws" + base.removeprefix("http") + "/v1/ws"


def generation_path(generation_id: str) -> str:
    return f"/v1/generations/{quote(generation_id, safe='')}"


def new_key() -> str:
    """Return a random idempotency key."""
    return secrets.token_urlsafe(24)


def check_cursor(cursor: str | None) -> str:
    """Return a cursor; the start for None.

    Raises:
        TailraceError: `cursor_invalid`.
    """
    if cursor and not is_event_id(cursor):
        message = f"a cursor is an event id, for example 1-42; got {cursor!r}"
        raise TailraceError("cursor_invalid", message, retryable=False)
    return cursor or START_CURSOR


def start_body(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of a start: members that are None are left out."""
    return {key: value for key, value in members.items() if value is not None}


def cursor_headers(cursor: str) -> dict[str, str]:
    return {} if cursor == START_CURSOR else {"last-event-id": cursor}


def foreign(content_type: str, wanted: str) -> TailraceError:
    """Return the error for an answer with a status of success that no node gave."""
    return ForeignAnswer(f"the answer is {content_type!r}, not {wanted}")


def refusal(status: int, body: bytes | bytearray, retry_after: str | None) -> TailraceError:
    """Return the error of an answer that is no success.

    An answer that no node gave (HTML of a proxy) says nothing about the request: it is retryable.
    """
    try:
        retry_after_s = max(0.0, float(retry_after or 0))
    except ValueError:
        retry_after_s = 0.0
    try:
        error = json.loads(body)["error"]
        code, retryable = error["code"], error.get("retryable")
        if retryable is None and isinstance(error.get("type"), str):
            # On the paths of OpenAI's API errors have OpenAI's form: there the status says it.
            retryable = status in RETRYABLE_STATUSES or status >= 500
        if isinstance(code, str) and isinstance(retryable, bool):
            return TailraceError(
                code,
                str(error.get("message")),
                retryable=retryable,
                status=status,
                retry_after_s=retry_after_s,
                members=error,
            )
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return ForeignAnswer(f"status {status}", status=status, retry_after_s=retry_after_s)


def parse_json(text: str | bytes | bytearray) -> Any:
    """Return the value of a JSON text.

    Raises:
        TailraceError: retryable; the text broke off.
    """
    try:
        return json.loads(text)
    except ValueError:
        raise broken("the answer broke off: it is not complete JSON") from None


def resource(found: Any) -> dict[str, Any]:
    """Return an object of the API, which has an id.

    Raises:
        TailraceError: retryable; no node gave this answer.
    """
    if not isinstance(found, dict) or not isinstance(found.get("id"), str):
        raise ForeignAnswer("the answer has no id")
    return found


class Body:
    """Collects an answer in one piece, up to `BODY_BYTES_MAX`."""

    def __init__(self) -> None:
        self.data = bytearray()

    def feed(self, data: bytes) -> None:
        self.data += data
        if len(self.data) > BODY_BYTES_MAX:
            raise broken("the answer is too long")


class Lines:
    """Splits a body at LF. An unfinished line is kept, and void when the body breaks off."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        first, *lines = data.split(b"\n")
        # Only what is new is searched: a long line comes in many pieces.
        self._rest += first
        if len(self._rest) > LINE_BYTES_MAX:
            raise broken("a line of the stream is too long")
        if not lines:
            return []
        whole = [bytes(self._rest), *lines]
        self._rest = bytearray(whole.pop())
        return [line.removesuffix(b"\r") for line in whole]


class NdjsonEvents:
    """Turns the bytes of NDJSON into events. An empty line is the heartbeat."""

    def __init__(self) -> None:
        self._lines = Lines()

    def feed(self, data: bytes) -> Iterator[Event]:
        for line in self._lines.feed(data):
            if line:
                members = parse_json(line)
                event = read_event(
                    members, members.get("id") if isinstance(members, dict) else None
                )
                if event is not None:
                    yield event


class SseEvents:
    """Turns the bytes of server-sent events into events. A block without its blank line is void."""

    def __init__(self) -> None:
        self._lines = Lines()
        self._fields: dict[bytes, bytes] = {}

    def feed(self, data: bytes) -> Iterator[Event]:
        for line in self._lines.feed(data):
            if line:
                self._field(line)
            elif (event := self._block()) is not None:
                yield event

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data" and name in self._fields:
            value = self._fields[name] + b"\n" + value
        if name:  # a line that begins with a colon is a comment: the heartbeat
            self._fields[name] = value

    def _block(self) -> Event | None:
        fields, self._fields = self._fields, {}
        if b"data" not in fields or b"event" not in fields:
            return None
        members = parse_json(fields[b"data"])
        if not isinstance(members, dict):
            return None
        members = {"type": fields[b"event"].decode(errors="replace"), **members}
        return read_event(members, fields.get(b"id", b"").decode(errors="replace"))


def read_poll(polled: Any) -> tuple[list[Event], str, bool]:
    """Return the events of a long poll, its cursor, and whether nothing follows.

    Raises:
        TailraceError: retryable; no node gave this answer.
    """
    if not isinstance(polled, dict) or not isinstance(polled.get("events"), list):
        raise ForeignAnswer("the answer is not a poll")
    cursor = polled.get("last_event_id")
    if not is_event_id(cursor):
        raise ForeignAnswer("the answer is not a poll")
    events = [
        event
        for each in polled["events"]
        if isinstance(each, dict) and (event := read_event(each, each.get("id"))) is not None
    ]
    return events, str(cursor), polled.get("done") is True


def parse_frame(text: str | bytes) -> dict[str, Any]:
    """Return a frame of a socket.

    Raises:
        TailraceError: retryable; it is no frame.
    """
    frame = parse_json(text)
    if not isinstance(frame, dict):
        raise ForeignAnswer("a frame is not an object")
    return frame


def subscribe_frame(generation_id: str, cursor: str) -> str:
    frame = {"type": "subscribe", "id": generation_id}
    if cursor != START_CURSOR:
        frame["last_event_id"] = cursor
    return json.dumps(frame)


def frame_event(frame: Mapping[str, Any]) -> Event | None:
    """Return the event in a frame: there `id` is the generation, and `event_id` the event's id."""
    members = {key: value for key, value in frame.items() if key not in ("id", "event_id")}
    return read_event(members, frame.get("event_id"))


def frame_error(frame: Mapping[str, Any]) -> TailraceError:
    retryable, after = frame.get("retryable") is True, frame.get("retry_after_s")
    return TailraceError(
        str(frame.get("code")),
        str(frame.get("message")),
        retryable=retryable,
        retry_after_s=float(after) if isinstance(after, int | float) else 0.0,
    )


def close_error(code: int | None) -> TailraceError:
    """Return the error of a socket that was closed with `code`. None: broken off."""
    message = f"the socket was closed with {code}"
    if code is not None and 4500 <= code < 5000:
        name = "unauthorized" if code == 4501 else "forbidden"
        return TailraceError(name, message, retryable=False)
    if code in OUR_FAULT_CLOSES:
        return TailraceError("connection", message, retryable=False)
    return broken(message)


def is_at_end(snapshot: Any, cursor: str) -> bool:
    """Return whether a generation has ended, and `cursor` is its last event."""
    if not isinstance(snapshot, dict) or snapshot.get("status") in ("queued", "running"):
        return False
    return snapshot.get("last_event_id") == cursor
