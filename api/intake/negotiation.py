"""What a client wants to be answered in: `Accept`, weighed as RFC 9110 section 12.5.1 says.

Pure: a header in, a form or a `RequestError` out.
"""

from __future__ import annotations

import re
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
    """Return the form that the client likes best; `default` where it does not say.

    Of forms that it likes equally, one that it names wins over one that a wildcard covers, and the
    one named first over the others.

    Raises:
        RequestError: 406, none of them is acceptable.
    """
    if accept is None or not accept.strip():
        return default
    if accept in MEDIA_TYPES:  # as nearly always
        return MEDIA_TYPES[accept]
    ranges = [_read_range(part) for part in accept.split(",")]
    order = [default, *(form for form in MEDIA_TYPES.values() if form != default)]
    ranked = [_rank(form, ranges) for form in order]
    # max() keeps the first of equals, and the default stands first.
    best, form = max(zip(ranked, order, strict=True), key=lambda pair: pair[0])
    if best[0] <= 0:
        raise request_error("not_acceptable", f"Accept one of: {', '.join(MEDIA_TYPES)}")
    return form


def names_event_stream(accept: str) -> bool:
    """Whether the client names server-sent events; a wildcard does not."""
    ranges = [_read_range(part) for part in accept.split(",")]
    return any(name == "text/event-stream" and quality > 0 for name, quality in ranges)


def _rank(form: AnswerForm, ranges: list[tuple[str, float]]) -> tuple[float, int, int]:
    """How well `form` is liked: quality, specificity of the range that says so, its place."""
    media_type = next(name for name, value in MEDIA_TYPES.items() if value == form)
    patterns = ("*/*", media_type.partition("/")[0] + "/*", media_type)
    found = (0.0, 0, 0)
    specificity = -1
    for place, (name, quality) in enumerate(ranges):
        if name in patterns and patterns.index(name) > specificity:
            specificity = patterns.index(name)
            found = (quality, specificity, -place if specificity else 0)
    return found


def _read_range(part: str) -> tuple[str, float]:
    name, *parameters = (piece.strip() for piece in part.split(";"))
    quality = 1.0
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "q":
            # A quality that is none is taken as the best: the client did name the type.
            quality = float(value.strip()) if _QUALITY.fullmatch(value.strip()) else 1.0
    return name.lower(), quality
