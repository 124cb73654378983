"""Finds the refusal of a model in an event of the log.

A server streams a refusal as `delta.refusal`. The log keeps members that have no event of their own
under `extra`: beside the text of a token, which is then the refusal, or in an event `extra`. Pure.
Source: docs/protocol.md, "Responses".
"""

from __future__ import annotations

import msgspec


class _Delta(msgspec.Struct):
    refusal: str | None = None


class _Extra(msgspec.Struct):
    delta: _Delta | None = None


class _Event(msgspec.Struct):
    delta: _Delta | None = None  # of an event `extra`
    extra: _Extra | None = None


_decode = msgspec.json.Decoder(_Event).decode


def refusal_of(raw: bytes) -> str:
    """Return the piece of a refusal in an event; empty: none."""
    if b'"refusal"' not in raw:
        return ""
    try:
        event = _decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""
    delta = event.delta or (event.extra and event.extra.delta)
    return (delta and delta.refusal) or ""
