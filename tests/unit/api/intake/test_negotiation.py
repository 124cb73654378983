"""The choice of a form by the header `Accept`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.intake.negotiation import MEDIA_TYPES, AnswerForm, choose_encodings, choose_form
from shared.errors import RequestError


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, "json"),
        ("", "json"),
        ("*/*", "json"),
        ("application/*", "json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "json"),
        ("text/event-stream", "sse"),
        ("TEXT/Event-Stream; charset=utf-8", "sse"),
        ("text/*", "sse"),
        ("application/x-ndjson", "ndjson"),
        ("text/event-stream, */*;q=0.1", "sse"),
        ("text/event-stream, */*", "sse"),
        ("application/json, text/event-stream", "json"),
        ("text/event-stream, application/json", "sse"),
        ("application/json;q=0.5, application/x-ndjson;q=0.9", "ndjson"),
        ("application/json;q=0, */*", "sse"),
        ("text/event-stream;q=oops", "sse"),
        ("text/event-stream;q=0.3, application/json;q=0.2", "sse"),
    ],
)
def test_the_form_with_the_highest_quality_is_chosen(accept: str | None, form: AnswerForm) -> None:
    assert choose_form(accept, "json") == form


@pytest.mark.parametrize("accept", ["text/html", "image/*", "application/json;q=0", "*/*;q=0", "x"])
def test_a_header_without_an_acceptable_form_is_406(accept: str) -> None:
    with pytest.raises(RequestError) as caught:
        choose_form(accept, "json")

    assert caught.value.status == 406


NAMES = st.sampled_from([*MEDIA_TYPES, "*/*", "text/*", "application/*", "text/html", ""])
QUALITIES = st.sampled_from(["", ";q=0", ";q=0.5", ";q=1", ";q=2", "; q = 0.1", ";;=", ";a=b"])


@given(st.lists(st.tuples(NAMES, QUALITIES).map("".join)).map(",".join) | st.text())
def test_any_header_gives_a_form_or_406(accept: str) -> None:
    try:
        assert choose_form(accept, "sse") in MEDIA_TYPES.values()
    except RequestError as exc:
        assert exc.status == 406


@pytest.mark.parametrize(
    ("accept", "ranked"),
    [
        (None, []),
        ("", []),
        ("gzip", ["gzip"]),
        ("x-gzip", ["gzip"]),
        ("GZIP;Q=0.5", ["gzip"]),
        ("gzip, deflate, br, zstd", ["zstd", "gzip", "br"]),
        ("gzip;q=1.0, zstd;q=0.5", ["gzip", "zstd"]),
        ("*", ["zstd", "gzip", "br"]),
        ("*;q=0.1, zstd;q=0", ["gzip", "br"]),
        ("gzip;q=0, *;q=0", []),
        ("identity", []),
        ("identity;q=0.5, gzip;q=0.4, br;q=0.5", ["br"]),
        ("identity;q=0", []),
        ("deflate", []),
    ],
)
def test_encodings_are_ranked_by_quality_and_then_by_the_offer(
    accept: str | None, ranked: list[str]
) -> None:
    assert choose_encodings(accept, ("zstd", "gzip", "br")) == ranked
