"""Where credentials stand in a request, and which place counts."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from api.identity.carriers import read_presented

PLACES = [
    {"headers": {"authorization": "Bearer one"}},
    {"headers": {"api-key": "one"}},
    {"headers": {"x-api-key": "one"}},
    {"query": {"access_token": "one"}},
    {"subprotocols": ["tailrace.v1", "bearer.one"]},
]


def credential(*places: dict[str, object]) -> bytes:
    headers, query, subprotocols = {}, {}, []
    for place in places:
        headers |= place.get("headers", {})
        query |= place.get("query", {})
        subprotocols += place.get("subprotocols", [])
    return read_presented(Headers(headers), query, subprotocols).credential


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_each_place_is_read(place: dict[str, object]) -> None:
    assert credential(place) == b"one"


@pytest.mark.parametrize("number", range(len(PLACES) - 1))
def test_the_first_place_counts_also_when_its_credentials_are_wrong(number: int) -> None:
    other = {"headers": {"authorization": "Basic one"}}
    later = [dict(place) for place in PLACES[number + 1 :]]

    assert credential(PLACES[number], *later) == b"one"
    assert credential(other, *later) == b""


@pytest.mark.parametrize(
    ("place", "is_silent"),
    [
        ({}, True),
        ({"subprotocols": ["tailrace.v1"]}, True),
        ({"headers": {"authorization": ""}}, False),
        ({"headers": {"x-api-key": ""}}, False),
        ({"query": {"access_token": ""}}, False),
        ({"subprotocols": ["bearer."]}, False),
    ],
    ids=str,
)
def test_an_empty_place_is_wrong_credentials_and_no_place_is_none(
    place: dict[str, object], is_silent: bool
) -> None:
    found = read_presented(
        Headers(place.get("headers", {})), place.get("query", {}), place.get("subprotocols", [])
    )

    assert found == (b"", is_silent)
