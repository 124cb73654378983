"""Recorded logs, one for each thing that can happen to an answer, and a dialect's bytes for them.

tests/golden/<dialect>.<log>.txt pins those bytes: whoever changes one changes what clients get.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from api.hub.encoded import EncodedLog
from api.hub.feed import Feed
from api.hub.frame import LiveFrame
from shared.errors import Refusal
from shared.log.event_bytes import LOST, RESET
from shared.log.events import (
    Counts,
    Data,
    End,
    Event,
    Failure,
    File,
    Progress,
    Reasoning,
    Reset,
    Start,
    Token,
    ToolCall,
    Usage,
    encode,
)
from shared.log.fold import Dialect, FrameFold
from shared.log.ids import EventId
from shared.log.records import Meta
from shared.log.request import Request, encode_request
from tests.support.hub_harness import make_meta

CREATED_AT_MS = 1_735_689_600_123
STOP = End("completed", "stop", usage=Counts(5, 3, 8))
CANCELLED = End("cancelled", "cancelled")
REFUSAL = Refusal(
    "This model's maximum context length is 8192 tokens.",
    status=400,
    code="context_length_exceeded",
    type="invalid_request_error",
    param="messages",
)


@dataclass(frozen=True)
class Log:
    """One log as it was appended: (attempt, event), and what was said outside it."""

    entries: list[tuple[int, Event]]
    aside: list[bytes] = field(default_factory=list)

    @property
    def feed(self) -> Feed:
        feed = Feed()
        for seq, (attempt, event) in enumerate(self.entries, 1):
            entry = (EventId(attempt, seq), encode(event))
            feed.offer_frame(LiveFrame(feed.top, (entry,), 0))
        return feed


def attempt(number: int, *events: Event) -> list[tuple[int, Event]]:
    return [(number, Start(number, "demo")), *((number, event) for event in events)]


LOGS = {
    "normal": Log(
        attempt(1, Token("Grüße"), Token(' "you"'), Token(" 👩\u200d🚀\n"), Usage(5, 3, 8), STOP)
    ),
    "tools": Log(
        attempt(
            1,
            Reasoning("Hm, "),
            Reasoning("weather."),
            Token("Let me see."),
            ToolCall(0, "call_a", "weather"),
            ToolCall(0, arguments='{"city":'),
            ToolCall(0, arguments='"Köln"}'),
            ToolCall(1, "call_b", "time", "{}"),
            End("completed", "tool_calls"),
        )
    ),
    "extras": Log(
        attempt(
            1,
            Progress("pdf_parsing", 3, 50, 6.0),
            Data("steps", {"n": [1]}),
            File("plot.png", "image/png", data="iVBORw0K"),
            File("paper.pdf", "application/pdf", url="https://example.org/paper.pdf"),
            Token("See the plot."),
            End("completed", "length"),
        )
    ),
    "agents": Log(
        attempt(
            1,
            Progress("reading", 1, 2, 50.0, agent="reader"),
            Progress("reading", 2, 2, 100.0, agent="checker"),
            Reasoning("Hm.", agent="writer"),
            Token("All ", agent="writer"),
            Token("is "),
            Token("well.", agent="reviewer"),
            Data("row", 1, agent="writer"),
            STOP,
        )
    ),
    "takeover": Log(
        [
            *attempt(1, Token("One, "), Token("two, ")),
            *attempt(2, Token("three."), Usage(5, 3, 8), STOP),
        ]
    ),
    # A stage speaks before a backend of the route is asked; then two backends write one attempt.
    "second_start": Log(
        [
            *attempt(1, Progress("pdf_parsing", 1, 1, 100.0)),
            (1, Start(1, "demo", "a")),
            (1, Reasoning("Hm.")),
            (1, Token("One, ")),
            (1, Token("two, ")),
            (1, Start(1, "demo", "b")),
            (1, Token("three.")),
            (1, Usage(5, 3, 8)),
            (1, STOP),
        ]
    ),
    # A producer outside of the workers, whose second program takes over.
    "produced": Log(
        [
            (1, Start(1, "report")),
            (1, Progress("reading", 3, 50, 6.0, agent="reader")),
            (1, Token("All ", agent="writer")),
            (1, Data("row", {"n": [1]}, agent="reader")),
            (2, Start(2, "report")),
            (2, Reasoning("Hm.", agent="checker")),
            (2, Token("is well.", agent="checker")),
            (2, End("completed", "stop")),
        ]
    ),
    "reset": Log(
        [
            *attempt(1, Token("One, "), Token("two, ")),
            (2, Start(2, "demo")),
            (2, Reset("takeover")),
            (2, Token("Uno, due, ")),
            (2, Token("tre.")),
            (2, End("completed", "stop")),
        ]
    ),
    # Nothing that a client was shown is taken back.
    "reset_early": Log(
        [
            *attempt(1),
            (2, Start(2, "demo")),
            (2, Reset("takeover")),
            (2, Token("Uno.")),
            (2, End("completed", "stop")),
        ]
    ),
    "cancelled": Log(attempt(1, Token("One, "), CANCELLED)),
    "cancelled_in_queue": Log([(1, CANCELLED)]),
    "failed": Log(
        attempt(
            1,
            Token("One, "),
            End("failed", "error", error=Failure("upstream_error", "the upstream broke", True)),
        )
    ),
    "refused": Log(
        attempt(
            1,
            End("failed", "error", error=Failure("upstream_refused", "400", False, REFUSAL)),
        )
    ),
    "empty": Log(attempt(1, End("completed", "stop"))),
    "lost": Log(attempt(1, Token("One, ")), [LOST]),
    "rewritten": Log(attempt(1, Token("One, ")), [RESET]),
}

# Of one dialect only: what no other dialect shows.
AG_UI_LOGS = {
    "state": Log(
        [
            *attempt(
                1,
                Progress("search", 1, 2, 50.0),
                Data("state", {"n": 1, "items": []}),
                Data("state_delta", [{"op": "add", "path": "/items/-", "value": "a"}]),
                Data("state_delta", [{"op": "grow"}]),
                Reasoning("Hm."),
                Token("One, "),
                ToolCall(0, "call_a", "weather", "{"),
            ),
            (2, Start(2, "demo")),
            (2, Reset("takeover")),
            (2, Data("state", {"n": 2})),
            (2, Token("Uno.")),
            (2, End("completed", "stop")),
        ]
    ),
    "cancelled_call": Log(attempt(1, Token("One, "), ToolCall(0, "c", "weather", "{"), CANCELLED)),
}


def fed(kind: str, data: object, operation: str = "op1") -> Event:
    """Return an event that LobeHub's server has fed, as it stands in the log."""
    event = {"type": kind, "operationId": operation, "stepIndex": 0, "timestamp": 7, "data": data}
    value = {"type": "agent_event", "event": event}
    if isinstance(data, dict) and data.get("chunkType") == "text" and operation == "op1":
        return Token(data["content"], {"lobehub": value})
    return Data("lobehub", value)


CALLED = {"toolCallId": "t1", "apiName": "readFile", "arguments": "{}"}
# Of operations that LobeHub's server feeds.
FED_LOGS = {
    "steps": Log(
        attempt(
            1,
            fed("agent_runtime_init", {"maxSteps": 2, "cost": 0.5}),
            fed("stream_chunk", {"chunkType": "text", "content": "One, "}),
            fed("stream_chunk", {"chunkType": "text", "content": "of a member"}, "op_member"),
            fed("agent_runtime_end", {"reason": "error"}, "op_member"),
            Data("lobehub.executor", {"client": "tab", "isThere": True}),
            fed("tool_execute", CALLED),
            Data("lobehub.reply", {"type": "tool_result", "toolCallId": "t1", "success": True}),
            Data("lobehub.executor", {"client": "tab", "isThere": False}),
            fed("tool_execute", {**CALLED, "toolCallId": "t2"}),
            Data("lobehub", {"type": "status_change", "status": "waiting_input"}),
            Data("lobehub", {"type": "input_request", "requestId": "r1", "prompt": "name?"}),
            Data("lobehub", "of a newer version"),
            fed("agent_runtime_end", {"reason": "done"}),
            End("completed", "stop"),
        )
    ),
    "completed": Log(
        attempt(
            1,
            Data("lobehub", {"type": "session_complete", "summary": "s"}),
            End("completed", "stop"),
        )
    ),
    "interrupted": Log(
        attempt(
            1,
            Data("lobehub", {"type": "status_change", "status": "interrupted"}),
            CANCELLED,
        )
    ),
    "cancelled": Log(attempt(1, fed("step_start", {}), CANCELLED)),
    "silent": Log(
        attempt(1, End("failed", "error", error=Failure("producer_lost", "was silent", True)))
    ),
    "lost": Log(attempt(1, fed("step_start", {})), [LOST]),
}


def recorded_meta(request: Request | None = None) -> Meta:
    request = request or Request(messages=[{"role": "user", "content": "Hi"}])
    return make_meta(created_at_ms=CREATED_AT_MS, request=encode_request(request))


def bytes_of(dialect: Dialect, log: Log, meta: Meta) -> bytes:
    """What a reader from the start is sent, until it is finished or the log has no more."""
    encoded = EncodedLog(log.feed, dialect, meta)
    sent, seq = encoded.opening, 0
    while True:
        chunk, last = encoded.slice(seq)
        if last == seq:
            break
        sent, seq = sent + chunk, last
    if not encoded.is_finished:
        sent += b"".join(encoded.fold.aside(raw) or b"(broken off)\n" for raw in log.aside)
    return sent


def frames_of(new_fold: Callable[[Meta], FrameFold], log: Log, meta: Meta) -> bytes:
    """The same of a socket, one frame a line, nothing joined."""
    fold, feed, lines = new_fold(meta), log.feed, []
    for seq, raw in enumerate(feed.raws, 1):
        lines += fold.add(feed.ids.at(seq), raw)
        if fold.is_over:
            break
    else:
        for raw in log.aside:
            said = fold.aside(raw)
            lines += fold.expired() if said is None else said
    return b"".join(line + b"\n" for line in lines)
