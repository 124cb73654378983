"""Takes the text of an answer out of the further members of its events. Pure.

A model server repeats text in members that Tailrace does not interpret: log probabilities have
every token, a refusal is sent twice, audio has a transcript. A filter that leaves them would mask a
word and show it beside the mask. So whole entries stay, for example pictures and citations, unless
they have a match; pieces of a text, and log probabilities, are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Hits = Callable[[str], bool]
OPAQUE = ("data", "url", "signature", "image_url", "b64_json", "id", "type", "format")


def without_text(extra: dict[str, Any], hits: Hits) -> dict[str, Any] | None:
    """Return `extra` without the text of the answer; None: nothing is left."""
    left: dict[str, Any] = {}
    for place, members in extra.items():
        if place == "delta" and isinstance(members, dict):
            kept = {name: _entries(value, hits) for name, value in members.items()}
            kept = {name: value for name, value in kept.items() if value}
        elif isinstance(members, dict):
            kept = {name: value for name, value in members.items() if name != "logprobs"}
            kept = {name: v for name, v in kept.items() if not any(map(hits, _texts(v)))}
        else:
            continue
        if kept:
            left[place] = kept
    return left or None


def _entries(value: Any, hits: Hits) -> list[Any]:
    """Return the whole entries without a match. Streams of text, and objects, are no entries."""
    if not isinstance(value, list):
        return []
    return [entry for entry in value if not any(map(hits, _texts(entry)))]


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts inside a value that are meant for readers."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for entry in value:
            yield from _texts(entry)
    elif isinstance(value, dict):
        for name, entry in value.items():
            if name not in OPAQUE:
                yield from _texts(entry)
