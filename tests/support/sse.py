"""A strict reader of server-sent events, written from protocol.md alone.

It accepts what the protocol promises and notes every departure in `faults`: a lenient parser
would hide what breaks somebody else's client (CRLF, a block with only `retry:`, a blank line
after a ping, events without id). Pure: bytes in, blocks out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tests.support.deliveries import Delivery


@dataclass(slots=True)
class Block:
    """The fields of one event block, each at most once."""

    event_id: str = ""
    event: str = ""
    data: str = ""
    retry: str = ""

    def delivery(self, at: float = 0.0) -> Delivery:
        fields: dict[str, Any] = json.loads(self.data)
        return Delivery(self.event_id, self.event, fields, at)


@dataclass(slots=True)
class SseParser:
    """Feed it the body as it comes.

    Attributes:
        pings: heartbeats seen.
        faults: departures from the protocol, in words.
        retry_ms: what the first block said, 0 if it did not.
    """

    pings: int = 0
    faults: list[str] = field(default_factory=list)
    retry_ms: int = 0
    blocks: int = 0
    _rest: bytes = b""
    _fields: dict[str, str] = field(default_factory=dict)

    def feed(self, data: bytes) -> list[Block]:
        """Return the blocks that `data` completes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [block for line in lines if (block := self._line(line)) is not None]

    def _line(self, line: bytes) -> Block | None:
        if b"\r" in line:
            self.faults.append(f"carriage return in {line!r}")
            line = line.replace(b"\r", b"")
        text = line.decode("utf-8")  # invalid UTF-8 raises: no client could go on either
        if not text:
            return self._finish()
        if text.startswith(":"):
            self._comment(text)
            return None
        name, colon, value = text.partition(": ")
        if not colon or name not in ("id", "event", "data", "retry"):
            self.faults.append(f"line {text[:60]!r} is none of id, event, data, retry")
        elif name in self._fields:
            self.faults.append(f"two {name} lines in one block")
        self._fields[name] = value
        return None

    def _comment(self, text: str) -> None:
        if text != ": ping":
            self.faults.append(f"comment {text[:60]!r}")
        if self._fields:
            self.faults.append("a ping inside a block")
        self.pings += 1

    def _finish(self) -> Block | None:
        """A blank line: it must end a block with id, event and data."""
        fields, self._fields = self._fields, {}
        if not fields:
            self.faults.append("a blank line that ends no block")
            return None
        self.blocks += 1
        self._check(fields)
        if "data" not in fields:
            return None
        return Block(
            fields.get("id", ""),
            fields.get("event", ""),
            fields["data"],
            fields.get("retry", ""),
        )

    def _check(self, fields: dict[str, str]) -> None:
        if missing := {"id", "event", "data"} - set(fields):
            self.faults.append(f"a block without {', '.join(sorted(missing))}")
        if "retry" in fields:
            if self.blocks > 1:
                self.faults.append("retry in a block that is not the first")
            if fields["retry"].isdigit():
                self.retry_ms = int(fields["retry"])
            else:
                self.faults.append(f"retry {fields['retry']!r}")
