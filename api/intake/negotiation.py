"""Chooses the form of an answer by the headers `Accept` and `Accept-Encoding` (RFC 9110, 12.5).

Pure: takes a header, returns a form or raises a `RequestError`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from api.errors import request_error

AnswerForm = Literal["json", "sse", "ndjson"]

MEDIA_TYPES: dict[str, AnswerForm] = {
    "application/json": "json",
    "text/event-stream": "sse",
    "application/x-ndjson": "ndjson",
}
_QUALITY = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)", re.ASCII)


def choose_form(accept: str | None, default: AnswerForm) -> AnswerForm:
    """Return the form with the highest quality; `default` if the header is absent or empty.

    Of forms with equal quality, a form that the header names wins over a form that only a wildcard
    covers; of several named forms the first one wins.

    Raises:
        RequestError: 406, no form is acceptable.
    """
    if accept is None or not accept.strip():
        return default
    if accept in MEDIA_TYPES:  # the usual case: one plain media type
        return MEDIA_TYPES[accept]
    # The default stands first, because the first of equals wins.
    offers = sorted(MEDIA_TYPES, key=lambda name: MEDIA_TYPES[name] != default)
    return MEDIA_TYPES[choose_media_type(accept, offers)]


def choose_media_type(accept: str | None, offers: Sequence[str]) -> str:
    """Return the media type with the highest quality, by the rules of `choose_form`.

    Args:
        offers: the first one if the header is absent or empty.

    Raises:
        RequestError: 406, none of `offers` is acceptable.
    """
    if accept is None or not accept.strip():
        return offers[0]
    ranges = [_read_range(part) for part in accept.split(",")]
    ranked = [_rank(media_type, ranges) for media_type in offers]
    # max() keeps the first of equals.
    best, media_type = max(zip(ranked, offers, strict=True), key=lambda pair: pair[0])
    if best[0] <= 0:
        raise request_error("not_acceptable", f"Accept one of: {', '.join(offers)}")
    return media_type


def choose_encodings(accept: str | None, offers: Iterable[str]) -> list[str]:
    """Return the acceptable encodings of a body, the best one first.

    Of encodings with equal quality the order of `offers` decides. An encoding with a lower quality
    than `identity` is left out. Without the header there is none. Source: RFC 9110, 12.5.3.
    """
    if not accept:
        return []
    named = dict(_read_range(part) for part in accept.split(","))
    if "x-gzip" in named:  # the same encoding: RFC 9110, 8.4.1.3
        named.setdefault("gzip", named["x-gzip"])
    rest = named.get("*", 0.0)
    least = named.get("identity", 0.0)  # unnamed identity is acceptable, but not asked for
    ranked = {offer: named.get(offer, rest) for offer in offers}
    best = sorted(ranked, key=ranked.__getitem__, reverse=True)  # keeps the order of equals
    return [offer for offer in best if ranked[offer] > 0 and ranked[offer] >= least]


def names_event_stream(accept: str) -> bool:
    """Return whether the header names `text/event-stream`; a wildcard does not count."""
    ranges = [_read_range(part) for part in accept.split(",")]
    return any(name == "text/event-stream" and quality > 0 for name, quality in ranges)


def _rank(media_type: str, ranges: list[tuple[str, float]]) -> tuple[float, int, int]:
    """Return the sort key of a media type: quality, specificity of the media range, its place."""
    patterns = ("*/*", media_type.partition("/")[0] + "/*", media_type)
    rank = (0.0, 0, 0)
    specificity = -1
    for place, (name, quality) in enumerate(ranges):
        if name in patterns and patterns.index(name) > specificity:
            specificity = patterns.index(name)
            rank = (quality, specificity, -place if specificity else 0)
    return rank


def _read_range(part: str) -> tuple[str, float]:
    name, *parameters = (piece.strip() for piece in part.split(";"))
    quality = 1.0
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "q":
            # A malformed quality counts as 1: the client did name the media type.
            quality = float(value.strip()) if _QUALITY.fullmatch(value.strip()) else 1.0
    return name.lower(), quality
