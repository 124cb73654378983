"""Signed or encrypted thoughts that a vendor needs in the next turn, as clients return them.

Some vendors refuse a conversation whose tool calls have lost the thoughts before them. A reader
puts each such block into `extra.delta.reasoning_details`, as OpenRouter does, and a client sends
the list back in its assistant message. A request gets the blocks of its own vendor only:

    {"type":"reasoning.text","text":…,"signature":…,"format":…,"after":{"characters":3,"calls":1}}
    {"type":"reasoning.encrypted","data":…,"format":…}

`after` is the place of a block that is not the first in the answer: so many characters of the text
and so many tool calls come before it. Pure. Source: docs/protocol.md, "Thoughts that go back".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from shared.log.extra import REASONING_DETAILS

ANTHROPIC, GEMINI, RESPONSES = "anthropic-claude-v1", "google-gemini-v1", "openai-responses-v1"
SIGNED, ENCRYPTED = "reasoning.text", "reasoning.encrypted"


class Place(NamedTuple):
    """The place of a block in its answer: characters and tool calls before the block."""

    characters: int = 0
    calls: int = 0


class Kept(NamedTuple):
    """One block, and its place."""

    place: Place
    detail: Mapping[str, Any]


def detail(form: str, place: Place, **members: Any) -> dict[str, Any]:
    """Return the members of a delta that keep one block."""
    found = {**members, "format": form}
    if any(place):
        found["after"] = place._asdict()
    return {REASONING_DETAILS: [found]}


def kept_of(message: Mapping[str, Any], form: str) -> list[Kept]:
    """Return the blocks of one vendor in an assistant message, in their order.

    Members of another form than a reader has written are no blocks: clients may change them.
    """
    details = message.get(REASONING_DETAILS)
    return [
        Kept(_place_of(entry.get("after")), entry)
        for entry in (details if isinstance(details, list) else ())
        if isinstance(entry, dict) and entry.get("format") == form
    ]


def interleave(
    text: str, calls: list[dict[str, Any]], kept: list[Kept]
) -> Iterator[str | dict[str, Any] | Kept]:
    """Yield the pieces of an answer in the order in which the model gave them.

    Pieces of the text are strings, calls are objects. A place beyond the end is the end.
    """
    said = called = 0
    for block in kept:
        characters, before = block.place
        if characters > said and said < len(text):
            yield text[said:characters]
            said = min(characters, len(text))
        yield from calls[called:before]
        called = max(called, min(before, len(calls)))
        yield block
    if said < len(text):
        yield text[said:]
    yield from calls[called:]


def _place_of(after: Any) -> Place:
    if not isinstance(after, dict):
        return Place()
    counts = [after.get(name) for name in Place._fields]
    return Place(*(count if type(count) is int and count >= 0 else 0 for count in counts))
