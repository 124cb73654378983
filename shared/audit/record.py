"""The record of one ended generation, as JSON. Pure.

The record is made of meta and the log alone, so it says the same whichever process makes it, and
however often.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from shared.log.events import AnyEvent, End, Reasoning, Reset, Start, Token, decode_known
from shared.log.records import Entry, Meta
from shared.log.request import decode_request

VERSION = 1


def record_of(meta: Meta, log: Iterable[Entry]) -> bytes:
    """Return the record.

    Args:
        meta: with the request.
        log: all entries.
    """
    events = _joined(log)
    end = events[-1][1] if events and isinstance(events[-1][1], End) else decode_known(meta.end)
    record: dict[str, Any] = {
        "version": VERSION,
        "id": meta.generation_id,
        "owner": meta.owner,
        "session": meta.session or None,
        "model": meta.model,
        "priority": meta.priority,
        "created_at_ms": meta.created_at_ms,
        "ended_at_ms": meta.ended_at_ms,
        "held_ms": meta.held_ms,
        "status": meta.status,
        "finish_reason": end.finish_reason if isinstance(end, End) else None,
        "usage": end.usage if isinstance(end, End) else None,
        "error": end.error if isinstance(end, End) else None,
        "attempts": sum(isinstance(event, Start) for _, event in events),
        "request": _request(meta),
        "metadata": msgspec.Raw(meta.metadata or b"{}"),
        "text": _answer(event for _, event in events),
        "events": [
            {"id": str(event_id), **msgspec.to_builtins(event)} for event_id, event in events
        ],
    }
    return msgspec.json.encode(record)


def _request(meta: Meta) -> Any:
    """Return what the client has asked; None: a newer version has written it."""
    try:
        request = decode_request(meta.request)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return {"messages": request.messages, "params": request.params}


def _joined(log: Iterable[Entry]) -> list[tuple[Any, AnyEvent]]:
    """Return the events; consecutive pieces of a text are one, under the id of the last."""
    found: list[tuple[Any, AnyEvent]] = []
    pieces: list[str] = []  # of the last event of `found`

    def close() -> None:
        if len(pieces) > 1:
            event_id, event = found[-1]
            found[-1] = event_id, msgspec.structs.replace(event, text="".join(pieces))
        pieces.clear()

    for event_id, raw in log:
        event = decode_known(raw)
        if event is None:
            continue
        if isinstance(event, Token | Reasoning) and event.extra is None:
            last = found[-1][1] if found else None
            if type(last) is type(event) and pieces and _agent(last) == event.agent:
                found[-1] = event_id, found[-1][1]
                pieces.append(event.text)
                continue
            close()
            pieces.append(event.text)
        else:
            close()
        found.append((event_id, event))
    close()
    return found


def _agent(event: AnyEvent) -> str:
    return event.agent if isinstance(event, Token | Reasoning) else ""


def _answer(events: Iterable[AnyEvent]) -> str:
    text: list[str] = []
    for event in events:
        if isinstance(event, Reset):
            text.clear()
        elif isinstance(event, Token):
            text.append(event.text)
    return "".join(text)
