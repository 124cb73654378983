"""Any log becomes events in a legal order, and exactly its valid text and whole calls."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from api.dialects.ag_ui import builder
from api.dialects.ag_ui.builder import EventBuilder
from api.dialects.ag_ui.protobuf import after_frame, frame
from api.dialects.ag_ui.run import RUN, STATE, THREAD
from shared.log.events import (
    Data,
    End,
    Event,
    Extra,
    Failure,
    File,
    Progress,
    Reasoning,
    Reset,
    Start,
    Token,
    ToolCall,
    Usage,
)
from shared.log.request import Request
from tests.support.ag_ui_events import Client
from tests.support.recorded import recorded_meta

AGENTS = st.sampled_from(["", "", "reader", "writer"])
TEXTS = st.sampled_from(["", "a", "b c", '"é"\n'])
PATCH = [{"op": "add", "path": "/a", "value": 1}]
EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(Token, TEXTS, agent=AGENTS),
    st.builds(Reasoning, TEXTS, agent=AGENTS),
    st.builds(
        ToolCall, st.integers(0, 2), name=st.just("f"), arguments=st.sampled_from(["", "{", "}"]),
        agent=AGENTS,
    ),
    st.builds(
        Progress, st.sampled_from(["s", "t"]), st.integers(0, 2), st.just(2), st.just(0.0),
        agent=AGENTS,
    ),
    st.builds(
        Data, st.sampled_from(["state", "state_delta", "x"]), st.sampled_from([1, PATCH, [1]]),
        agent=AGENTS,
    ),
    st.just(File("f", "text/plain", data="AA")),
    st.just(Usage(1, 2, 3)),
    st.just(Extra({"delta": {"reasoning_details": [{"type": "reasoning.text", "text": "t"}]}})),
    st.just(Start(2, "demo")),
    st.just(Reset("takeover")),
)  # fmt: skip
ENDS = st.sampled_from(
    [
        End("completed", "stop"),
        End("cancelled", "cancelled"),
        End("failed", "error", error=Failure("upstream_error", "it broke", True)),
    ]
)
DIALECT: dict[str, Any] = {THREAD: "t", RUN: "r"}


def meta_of(**dialect: Any) -> Any:
    request = Request(messages=[{"role": "user", "content": "x"}], dialect=DIALECT | dialect)
    return recorded_meta(request)


def events_of(log: list[Event], **dialect: Any) -> list[dict[str, Any]]:
    built = EventBuilder(meta_of(**dialect))
    events = built.opening()
    for entry in log:
        events += built.add(entry)
        if built.is_over:
            break
    return events


def valid(log: list[Event]) -> list[Event]:
    """Return the events after the last reset."""
    resets = [number for number, event in enumerate(log) if isinstance(event, Reset)]
    return log[resets[-1] + 1 :] if resets else log


@given(st.lists(EVENTS, max_size=25), ENDS, st.booleans())
def test_every_log_is_legal_and_shown_as_it_is(
    log: list[Event], end: End, keeps_state: bool
) -> None:
    events = events_of([*log, end], **({STATE: {"n": 0}} if keeps_state else {}))
    client = Client().read(events)

    assert client.last in ("RUN_FINISHED", "RUN_ERROR")
    if events[-1].get("code") == "stream_reset":
        assert not keeps_state and not client.texts
        return
    shown = valid(log)
    for agent in ("", "reader", "writer"):
        own = [event for event in shown if isinstance(event, Token) and event.agent == agent]
        pieces = "".join(event.text for event in own)
        authored = "".join(client.texts[id] for id in client.texts if owner(events, id) == agent)
        assert authored == pieces
    calls: dict[tuple[str, int], str] = {}
    for event in shown:
        if isinstance(event, ToolCall):
            place = (event.agent, event.index)
            calls[place] = calls.get(place, "") + event.arguments
    is_whole = end.status == "completed"
    assert sorted(client.calls.values()) == (sorted(calls.values()) if is_whole else [])


def owner(events: list[dict[str, Any]], message: str) -> str:
    """Return the agent of a message of text."""
    names = {e["subagentRunId"]: e["name"] for e in events if e["type"] == "SUBAGENT_STARTED"}
    begun = next(
        e for e in events if e["type"] == "TEXT_MESSAGE_START" and e["messageId"] == message
    )
    name: str = names.get(begun.get("subagentRunId"), "")
    return name


@given(st.lists(EVENTS, max_size=10), ENDS)
def test_every_event_has_a_binary_form(log: list[Event], end: End) -> None:
    events = events_of([*log, end])
    framed = b"".join(map(frame, events))
    count = 0
    while framed:
        framed, count = after_frame(framed), count + 1

    assert count == len(events)


def test_thoughts_that_go_back_are_kept_until_the_end() -> None:
    detail = {"type": "reasoning.encrypted", "data": "x"}
    log = [
        Reasoning("Hm."), Extra({"delta": {"reasoning_details": [detail], "audio": 1}}),
        Token("a"), End("completed", "stop"),
    ]  # fmt: skip
    events = events_of(log)

    (kept,) = [event for event in events if event["type"] == "REASONING_ENCRYPTED_VALUE"]
    thought = next(event for event in events if event["type"] == "REASONING_START")
    assert kept["entityId"] == thought["messageId"]
    assert msgspec.json.decode(kept["encryptedValue"]) == [detail]
    (raw,) = [event for event in events if event["type"] == "RAW"]
    assert raw["event"] == {"delta": {"audio": 1}}


def test_a_reset_gives_the_state_of_the_request_back() -> None:
    log = [Data("state", {"n": 1}), Reset("takeover"), End("completed", "stop")]
    states = [
        event["snapshot"]
        for event in events_of(log, **{STATE: {"n": 0}})
        if event["type"] == "STATE_SNAPSHOT"
    ]

    assert states == [{"n": 1}, {"n": 0}]


def test_no_event_is_larger_than_a_client_takes() -> None:
    huge = "x" * (2 * builder.DELTA_CHARACTERS_MAX + 1)
    log = [
        Token(huge), ToolCall(0, "c", "f", huge),
        File("f", "text/plain", data="A" * (builder.FILE_CHARACTERS_MAX + 1)),
        End("completed", "stop"),
    ]  # fmt: skip
    events = events_of(log)

    assert max(len(msgspec.json.encode(event)) for event in events) < 1_001_000
    client = Client().read(events)
    assert ["".join(client.texts.values()), *client.calls.values()] == [huge, huge]
