"""How GET /v1/generations/{id}/events reads its request and finds the generation."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from starlette.datastructures import Headers

from api.dialects.native.events import choose_transport, respond_with_events
from api.readers.lookup import read_cursor, read_query
from shared.errors import CursorInvalid, NotFound, RequestError
from shared.log.ids import START, EventId
from shared.log.records import Meta
from tests.support.hub_harness import END, GENERATION, Client, HubHarness, make_scope


@pytest.fixture
async def hub_harness() -> AsyncIterator[HubHarness]:
    async with HubHarness() as hub_harness:
        yield hub_harness


@pytest.mark.parametrize(
    ("accept", "query", "transport"),
    [
        ("", {}, ("sse", 0)),
        ("*/*", {}, ("sse", 0)),
        ("text/*", {}, ("sse", 0)),
        ("text/event-stream", {}, ("sse", 0)),
        ("application/x-ndjson", {}, ("ndjson", 0)),
        ("application/json", {}, ("long_poll", 0)),
        ("application/json;q=0.5, text/event-stream;q=0.9", {}, ("sse", 0)),
        ("text/event-stream;q=0, */*", {}, ("long_poll", 0)),
        ("text/event-stream", {"wait": "3"}, ("long_poll", 3)),
        ("", {"wait": "0"}, ("long_poll", 0)),
    ],
)
def test_the_transport_follows_accept_and_wait(
    accept: str, query: dict[str, str], transport: tuple[str, float]
) -> None:
    assert choose_transport(accept, query) == transport


@pytest.mark.parametrize("accept", ["text/html", "image/*", "*/*;q=0"])
def test_an_accept_header_that_cannot_be_served_is_406(accept: str) -> None:
    with pytest.raises(RequestError) as caught:
        choose_transport(accept, {})
    assert caught.value.status == 406


def test_the_header_precedes_the_query_and_an_empty_cursor_is_the_start() -> None:
    query = {"last_event_id": "1-2"}
    assert read_cursor(Headers({"Last-Event-ID": "3-4"}), query) == EventId(3, 4)
    assert read_cursor(Headers({"Last-Event-ID": ""}), query) == START
    assert read_cursor(Headers(), query) == EventId(1, 2)
    assert read_cursor(Headers(), {}) == START
    assert read_cursor(Headers(), {"last_event_id": "0-0"}) == START


@pytest.mark.parametrize("text", ["x", "1", "1:2", "1-", "0-1", "1-0", "01-1", "-1-1", "1-2\n"])
def test_a_malformed_cursor_is_refused(text: str) -> None:
    with pytest.raises(CursorInvalid):
        read_cursor(Headers(), {"last_event_id": text})
    with pytest.raises(CursorInvalid):
        read_cursor(Headers({"Last-Event-ID": "3-4"}), {"last_event_id": text})


def test_any_bytes_can_be_read_as_a_query() -> None:
    scope = {"query_string": b"last_event_id=%ff%00&wait=1&wait=2&\xff=\xfe&=&a"}
    assert read_query(scope)["wait"] == "2"


async def ask(
    hub_harness: HubHarness,
    *,
    owner: str = "anonymous",
    generation_id: str = GENERATION,
    **scope: object,
) -> Client:
    client = Client()
    await respond_with_events(
        make_scope(client, **scope),  # type: ignore[arg-type]
        client.receive,
        client.send,  # type: ignore[arg-type]
        hub=hub_harness.hub,
        store=hub_harness.log,  # type: ignore[arg-type]
        viewer=owner,
        generation_id=generation_id,
    )
    return client


async def test_an_unknown_generation_and_one_of_another_owner_are_404(
    hub_harness: HubHarness,
) -> None:
    with pytest.raises(NotFound):
        await ask(hub_harness)
    hub_harness.log.create()
    with pytest.raises(NotFound):
        await ask(hub_harness, owner="bob")


async def test_a_reader_with_a_cursor_waits_for_a_generation_that_redis_has_lost(
    hub_harness: HubHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker is about to restore it. After a 404 the reader would not come back."""
    looks = 0
    meta = hub_harness.log.meta

    async def comes_back(generation_id: str) -> Meta | None:
        nonlocal looks
        looks += 1
        if looks == 3:
            hub_harness.log.create()
            hub_harness.log.append(END)
        return await meta(generation_id)

    monkeypatch.setattr(hub_harness.log, "meta", comes_back)
    monkeypatch.setattr("api.readers.lookup.REREAD_INTERVAL_S", 0.0)
    client = await ask(hub_harness, query="last_event_id=1-1&wait=0")

    assert looks == 3
    assert client.body.endswith(b'"done":true}')


async def test_a_reader_with_a_cursor_gets_404_after_the_waiting_time(
    hub_harness: HubHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.readers.lookup.RESTORE_WAIT_S", 0.0)
    with pytest.raises(NotFound):
        await ask(hub_harness, query="last_event_id=1-1&wait=0")


async def test_while_redis_is_away_other_owners_cannot_detect_a_generation(
    hub_harness: HubHarness,
) -> None:
    """An unknown generation is answered 503, so one of another owner is answered 503 too."""
    meta = hub_harness.log.create()
    async with hub_harness.hub.reading(meta):
        hub_harness.log.is_away = True
        answers = []
        for generation_id in (GENERATION, "gen_nobody0000"):
            with pytest.raises(RequestError) as refused:
                await ask(hub_harness, owner="bob", generation_id=generation_id)
            answers.append((refused.value.status, refused.value.message))
        assert answers[0] == answers[1] and answers[0][0] == 503


async def test_accept_json_is_a_long_poll_that_does_not_wait(hub_harness: HubHarness) -> None:
    hub_harness.log.create()
    hub_harness.log.append(END)
    client = await ask(hub_harness, headers={"Accept": "application/json"})
    assert client.headers[b"content-type"] == b"application/json"
    assert client.headers[b"content-length"] == b"%d" % len(client.body)
    assert client.body.endswith(b'"last_event_id":"1-1","done":true}')


async def test_a_head_of_a_long_poll_has_no_body(hub_harness: HubHarness) -> None:
    hub_harness.log.create()
    hub_harness.log.append(END)
    client = await ask(hub_harness, method="HEAD", query="wait=0")
    assert (client.status, client.body) == (200, b"")


@pytest.mark.parametrize("name", ["last_event_id", "lastEventId", "Last-Event-ID", "last-event-id"])
def test_a_cursor_in_the_query_has_the_names_of_the_polyfills(name: str) -> None:
    assert read_cursor(Headers(), {name: "1-2"}) == EventId(1, 2)
    with pytest.raises(CursorInvalid):
        read_cursor(Headers(), {name: "x"})
