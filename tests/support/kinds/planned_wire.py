"""The common part of the scripted servers of vendors: a plan in, frames of one wire out. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from tests.support.kinds.plan import Broken, Done, Part, Text, Thought, ToolUse, parts
from tests.support.upstream_script import Cut, Pause, Script, Step

HUGE = b"data: " + b"x" * 2**21
CACHED = 2  # tokens of each prompt that a vendor's cache held


class ReadRequest(NamedTuple):
    """The parts of a request that a plan needs, in the same form for every wire.

    Attributes:
        prompt: the last text of the user.
        prefix: the partial answer behind it.
        has_result: the results of tools come behind the prompt.
        is_refused: the vendor refuses the request: a thought or its signature is missing.
    """

    prompt: str
    prefix: str = ""
    has_result: bool = False
    is_refused: bool = False


class PlannedWire:
    """A `ServerWire` (tests/support/upstream.py) over the plan of a script."""

    content_type = "text/event-stream"
    path = ""

    def read(self, body: dict[str, Any]) -> ReadRequest:
        raise NotImplementedError

    def limit(self, body: dict[str, Any]) -> int | None:
        raise NotImplementedError

    def frames(self, body: dict[str, Any], plan: Iterator[Part]) -> Iterator[Step]:
        raise NotImplementedError

    def error(self, message: str, kind: str = "server_error") -> bytes:
        raise NotImplementedError

    def is_answer(self, line: str) -> bool:
        return self.path in line.partition(" HTTP/")[0]

    def prompt_of(self, body: dict[str, Any]) -> str:
        return self.read(body).prompt

    def prefix_of(self, body: dict[str, Any]) -> str:
        return self.read(body).prefix

    def script_of(self, body: dict[str, Any]) -> Script:
        said = self.read(body)
        if said.is_refused:
            return Script(fault="status", fault_requests=0, status=400)
        told = msgspec.json.decode(said.prompt) if said.prompt.startswith("{") else {}
        script = msgspec.convert(told, Script)
        if said.has_result:  # the tools have answered: now the model does
            script = msgspec.structs.replace(script, tool_call=False, reasoning=0)
        return script

    def steps(
        self, body: dict[str, Any], script: Script, start: int, *, is_faulty: bool
    ) -> Iterator[Step]:
        plan = parts(
            script,
            self.read(body).prompt,
            start=start,
            max_tokens=self.limit(body),
            is_faulty=is_faulty,
        )
        yield from self.frames(body, plan)


def signature_of(text: str) -> str:
    """Return the signature of a thought, which a server checks when the thought comes back."""
    return f"c2ln{zlib.crc32(text.encode()):08x}"


def frame(data: Any, name: str = "") -> bytes:
    """Return a server-sent event."""
    head = f"event: {name}\n".encode() if name else b""
    return b"%bdata: %b\n\n" % (head, msgspec.json.encode(data))


__all__ = [
    "CACHED", "HUGE", "Broken", "Cut", "Done", "Part", "Pause", "PlannedWire", "ReadRequest",
    "Step", "Text", "Thought", "ToolUse", "frame", "signature_of",
]  # fmt: skip
