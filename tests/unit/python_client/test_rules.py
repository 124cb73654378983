"""The rules of the Python client without I/O: cursor, repeats, pauses, transports, bytes."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest

from tailrace_client import wire
from tailrace_client.credentials import Credentials
from tailrace_client.errors import ForeignAnswer, TailraceError
from tailrace_client.events import EndEvent, TokenEvent, order, read_event
from tailrace_client.options import FULL_S, client_options, shared_options
from tailrace_client.pace import AUTO, LEFT_FOR_S, BackOff, Heartbeat, Picker
from tailrace_client.reading import Reading
from tailrace_client.wire import (
    Body,
    NdjsonEvents,
    SseEvents,
    base_of,
    close_error,
    frame_event,
    is_at_end,
    parse_frame,
    read_poll,
    refusal,
)


def event(event_id: str, kind: str = "token", **members: Any) -> Any:
    found = read_event({"type": kind, **members}, event_id)
    assert found is not None
    return found


def test_ids_are_ordered_as_pairs_of_integers() -> None:
    assert order("1-9") < order("1-10") < order("2-1")


def test_an_event_that_comes_again_changes_nothing() -> None:
    reading = Reading()
    assert reading.accept(event("1-2", text="a"))
    assert not reading.accept(event("1-2", text="a"))
    assert not reading.accept(event("1-1", text="z"))
    assert reading.accept(event("2-3", text="b"))
    assert "".join(reading.text) == "ab"


def test_after_a_reset_with_the_id_0_0_the_ids_begin_again() -> None:
    reading = Reading("1-40")
    assert reading.accept(event("0-0", "reset", reason="log_rewritten"))
    assert reading.is_whole
    assert reading.accept(event("1-2", text="a"))


def test_the_end_with_the_id_0_0_of_a_lost_generation_is_an_end() -> None:
    reading = Reading()
    reading.accept(event("1-2", text="a"))
    assert reading.accept(event("0-0", "end", status="failed", finish_reason="error"))
    assert reading.is_done
    result = reading.result("gen_a")
    assert result is not None and (result.status, result.text) == ("failed", "a")


def test_an_attach_at_a_cursor_has_no_whole_text_of_its_own() -> None:
    reading = Reading("1-2")
    reading.accept(event("1-3", "end", status="completed"))
    assert reading.is_done and reading.result("gen_a") is None


def test_pieces_of_parallel_tool_calls_are_joined_by_id_and_index() -> None:
    reading = Reading()
    for n, members in enumerate(
        [
            {"index": 0, "call_id": "a", "name": "f", "arguments": "{"},
            {"index": 1, "call_id": "b", "name": "g", "arguments": "["},
            {"index": 0, "arguments": "}"},
            {"index": 1, "arguments": "]"},
        ],
        1,
    ):
        reading.accept(event(f"1-{n}", "tool_call", **members))
    reading.accept(event("1-9", "end", status="completed"))
    result = reading.result("gen_a")
    assert result is not None
    assert [call["arguments"] for call in result.tool_calls] == ["{}", "[]"]


def test_the_ceiling_of_the_pauses_falls_back_only_after_an_event() -> None:
    back_off = BackOff(lambda: 1.0)
    assert [back_off.next(0) for _ in range(4)] == [0.75, 1.5, 3.0, 5.0]
    back_off.alive()
    assert back_off.next(0) == 5.0
    back_off.progress()
    assert back_off.next(0) == 0.75


def test_an_outage_of_four_seconds_sees_two_to_twenty_tries() -> None:
    source = random.Random(1)
    for _ in range(500):
        back_off, now, tries = BackOff(source.random), 0.0, 0
        while now < 4:
            now += back_off.next(now)
            tries += 1
        assert 2 <= tries <= 20
        assert now <= 12


def test_the_pause_that_the_server_asks_for_is_limited() -> None:
    back_off = BackOff(lambda: 0.0)
    assert [back_off.next(0, 3), back_off.next(0, 1e9)] == [3.0, 60.0]


@pytest.mark.parametrize("faulty", ["", "soon", "0", "-1", "nan", None])
def test_a_heartbeat_that_makes_no_sense_is_ignored(faulty: object) -> None:
    heartbeat = Heartbeat()
    heartbeat.announced(faulty)
    assert heartbeat.seconds == 15
    heartbeat.announced("2")
    assert heartbeat.silence_max_s == 5


def test_a_blocked_transport_is_left_and_tried_again_when_all_have_failed() -> None:
    picker = Picker(AUTO)
    seen = []
    for now in range(4):
        seen.append(picker.pick(now))
        picker.leave(seen[-1], now)
    assert seen == ["websocket", "sse", "poll", "websocket"]
    assert picker.pick(3 + LEFT_FOR_S) == "websocket"


@pytest.mark.parametrize("size", [1, 2, 7, 1_000])
def test_streams_are_read_in_pieces_of_any_size(size: int) -> None:
    sse = (
        'retry: 9\nid: 1-1\nevent: token\ndata: {"text":"é\\u2028"}\n\n: ping\n'
        "id: 1-2\nevent: token\r\ndata: {}\r\n\r\n"
    )
    ndjson = (
        '{"id":"1-1","type":"token","text":"é\\u2028"}\n\n{"id":"1-2","type":"token"}\n{"id":"1-'
    )
    for parser, body in ((SseEvents(), sse.encode()), (NdjsonEvents(), ndjson.encode())):
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        found = [each for piece in pieces for each in parser.feed(piece)]
        assert [(each.id, each.text) for each in found if isinstance(each, TokenEvent)] == [
            ("1-1", "é\u2028"),
            ("1-2", ""),
        ]


def test_a_line_that_is_not_json_breaks_the_connection() -> None:
    with pytest.raises(TailraceError) as caught:
        list(NdjsonEvents().feed(b"<html>\n"))
    assert caught.value.retryable


def test_a_refusal_of_a_node_says_whether_to_retry_and_html_is_retryable() -> None:
    said = {"error": {"code": "model_not_found", "message": "no", "retryable": False}}
    known = refusal(404, json.dumps(said).encode(), None)
    assert (known.code, known.retryable, known.status) == ("model_not_found", False, 404)
    for body in (b"<html>", b"{}", b"[]", b'{"error": "no"}', b""):
        html = refusal(404, body, "soon")
        assert (html.code, html.retryable, html.retry_after_s) == ("connection", True, 0)
        assert isinstance(html, ForeignAnswer)


def test_a_node_that_quotes_the_words_of_a_foreign_answer_is_a_node() -> None:
    said = {
        "code": "upstream_error",
        "message": str(ForeignAnswer("status 404")),
        "retryable": False,
    }
    assert not isinstance(refusal(404, json.dumps({"error": said}).encode(), None), ForeignAnswer)


@pytest.mark.parametrize(
    "polled", [None, [], {}, {"events": []}, {"events": {}, "last_event_id": "1-1"}]
)
def test_an_answer_that_is_no_poll_breaks_the_connection(polled: object) -> None:
    with pytest.raises(TailraceError) as caught:
        read_poll(polled)
    assert caught.value.retryable


@pytest.mark.parametrize(
    "code, retryable",
    [(1006, True), (None, True), (1012, True), (4000, True), (4008, True), (4501, False),
     (4503, False), (1009, False)],
)  # fmt: skip
def test_close_codes_are_decided_by_range(code: int | None, retryable: bool) -> None:
    assert close_error(code).retryable is retryable


def test_a_frame_has_the_generation_as_id_and_the_event_as_event_id() -> None:
    found = frame_event({"type": "token", "id": "gen_a", "event_id": "1-2", "text": "a"})
    assert found is not None and found.id == "1-2"
    assert frame_event({"type": "pong"}) is None


def test_only_an_ended_generation_with_this_last_event_is_at_its_end() -> None:
    ended = {"status": "completed", "last_event_id": "1-9"}
    assert is_at_end(ended, "1-9")
    assert not is_at_end(ended, "1-8")
    assert not is_at_end({**ended, "status": "running"}, "1-9")


def test_a_token_function_is_asked_again_once() -> None:
    tokens = iter(["old", "new"])
    credentials = Credentials(lambda: next(tokens))
    assert credentials.token() == credentials.token() == "old"
    assert credentials.refused("old")
    assert credentials.token() == "new"
    assert credentials.refused("old"), "another request has asked already"
    assert not credentials.refused("new")


@pytest.mark.parametrize(
    ("code", "status", "full_s", "limit_s"),
    [
        ("owner_full", 429, FULL_S, FULL_S),
        ("queue_full", 503, FULL_S, FULL_S),
        ("unavailable", 503, FULL_S, 600.0),
        ("owner_full", 429, math.inf, 600.0),
    ],
)
def test_a_full_server_is_asked_for_a_short_time_only(
    code: str, status: int, full_s: float, limit_s: float
) -> None:
    now, told = [0.0], []
    shared = shared_options("http://node", "auto", clock=lambda: now[0], on_retry=told.append)
    error, back_off = TailraceError(code, "", retryable=True, status=status), BackOff(lambda: 0.5)
    while now[0] <= limit_s:
        shared.pause_s(back_off, error, full_s)
        now[0] += 10
    with pytest.raises(TailraceError):
        shared.pause_s(back_off, error, full_s)

    assert len(told) == limit_s // 10 + 1


def test_an_hour_of_sleep_is_no_outage_of_an_hour() -> None:
    back_off = BackOff(lambda: 0.5)
    assert [back_off.outage_s(now) for now in (0.0, 5.0, 3_605.0, 10.0, 15.0)] == [
        0, 5, 5, 5, 10,
    ]  # fmt: skip
    back_off.alive()
    assert back_off.outage_s(20.0) == 0


def test_what_on_retry_raises_ends_the_call() -> None:
    def stop(error: TailraceError) -> None:
        raise KeyError(error.code)

    shared = shared_options("http://node", "auto", on_retry=stop)
    for rule in (shared.pause_s, shared.reconnect_s):
        with pytest.raises(KeyError):
            rule(BackOff(lambda: 0.5), TailraceError("connection", "", retryable=True))


@pytest.mark.parametrize(
    ("status", "retryable"), [(404, False), (400, False), (429, True), (503, True)]
)
def test_an_error_in_the_form_of_openai_is_decided_by_its_status(
    status: int, retryable: bool
) -> None:
    """The paths of files and batches answer in this form, which has no member `retryable`."""
    error = {"message": "no", "type": "invalid_request_error", "param": None, "code": "not_found"}
    known = refusal(status, json.dumps({"error": error}).encode(), None)

    assert (known.code, known.retryable, known.status) == ("not_found", retryable, status)


@pytest.mark.parametrize(
    ("url", "is_expected"),
    [
        ("http://127.0.0.1:8000", True),
        ("http://[::1]:8000", True),
        ("http://localhost", True),
        ("http://node.localhost:1", True),
        ("http://10.0.0.1", False),
        ("https://localhost.example", False),
    ],
)
def test_no_proxy_of_the_environment_leads_to_a_server_on_this_machine(
    url: str, is_expected: bool
) -> None:
    shared = shared_options(url, "auto")

    assert (shared.is_near, client_options(shared)["trust_env"]) == (is_expected, not is_expected)


@pytest.mark.parametrize("frame", ["[]", "1", "null", "<html>", ""])
def test_a_frame_that_is_no_object_breaks_the_connection(frame: str) -> None:
    with pytest.raises(TailraceError) as caught:
        parse_frame(frame)
    assert caught.value.retryable


def test_an_event_whose_text_is_no_text_is_none() -> None:
    assert read_event({"type": "token", "text": 5}, "1-2") is None
    null = read_event({"type": "end", "status": "completed", "finish_reason": None}, "1-2")
    assert isinstance(null, EndEvent) and null.finish_reason == ""


def test_an_answer_without_an_end_is_not_collected_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire, "BODY_BYTES_MAX", 10)
    body = Body()
    body.feed(b"x" * 10)
    with pytest.raises(TailraceError):
        body.feed(b"x")


def test_addresses_are_read_with_and_without_v1() -> None:
    assert base_of("http://node:8000/v1/") == base_of("http://node:8000") == "http://node:8000"
    with pytest.raises(TailraceError):
        base_of("node:8000")
    for url in ("http://[::", "http://node:port", "http://node:99999"):
        with pytest.raises(TailraceError, match="no address"):
            base_of(url)
    with pytest.raises(TailraceError):
        shared_options("http://node", "pigeon")
