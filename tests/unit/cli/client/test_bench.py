"""`tailrace bench`: which answers are good, and what is printed."""

from __future__ import annotations

import argparse
import json
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from cli.client.bench import BenchClient, Measurement, _bench, lines_of, quantiles_ms, summary
from cli.client.client import RequestRefused
from tests.support.event_stream import EVENT_STREAM, block

START = {"id": "1-1", "type": "start"}
END = {"type": "end", "status": "completed"}


def read(*events: dict[str, Any]) -> Measurement:
    reading = Measurement(asked_s=10.0)
    for n, event in enumerate(events):
        reading.take(event, 10.1 + n / 10)
    return reading


def token(event_id: str, text: str = "x") -> dict[str, Any]:
    return {"id": event_id, "type": "token", "text": text}


def test_a_complete_answer_is_not_wrong() -> None:
    reading = read(START, token("1-2", "é"), token("1-5"), {**END, "id": "1-6"})

    assert (reading.wrong, reading.pieces, reading.bytes) == ("", 2, 3)
    assert reading.first_s == pytest.approx(10.2)
    assert reading.gaps_s == [pytest.approx(0.1)]
    assert reading.ended_s == pytest.approx(10.4)


@pytest.mark.parametrize(
    ("events", "wrong"),
    [
        ([START, {"id": "1-3", "type": "usage"}], "event 1-3 after seq 1"),
        ([START, token("1-2"), token("1-2")], "event 1-2 after seq 2"),
        ([START, {"id": "1-2", "type": "end", "status": "cancelled"}], "cancelled: "),
        (
            [START, {"id": "0-0", "type": "end", "status": "failed", "error": {"code": "lost"}}],
            "failed: lost",
        ),
    ],
)
def test_missing_repeated_and_failed_events_are_wrong(events: list[Any], wrong: str) -> None:
    assert read(*events).wrong == wrong


def test_after_a_reset_the_log_starts_again() -> None:
    reset = {"id": "0-0", "type": "reset"}

    assert read(START, token("1-2"), reset, START, token("1-2"), {**END, "id": "1-3"}).wrong == ""


def test_quantiles() -> None:
    assert quantiles_ms([]) == {}
    assert quantiles_ms([0.002]) == {"p50": 2.0, "p95": 2.0, "p99": 2.0, "max": 2.0}
    assert quantiles_ms([n / 1000 for n in range(1, 101)])["p95"] == 96.0


def test_the_summary_has_good_answers_only() -> None:
    good, bad = read(START, token("1-2"), {**END, "id": "1-3"}), read(START)
    bad.wrong = "503: busy"

    figures = summary([good, bad], 2.0)

    assert (figures["answers"], figures["wrong"], figures["answers_per_s"]) == (1, 1, 0.5)
    assert figures["first_token_ms"]["p50"] == pytest.approx(200)
    assert lines_of(figures)[0] == ("answers         1 complete, 1 wrong, 0 connections resumed")


# With a fake server


def stream_of(*events: dict[str, Any], is_cut: bool = False) -> web.Response:
    body = b"".join(json.dumps(event).encode() + b"\n" for event in events)
    return web.Response(
        body=body[:-3] if is_cut else body, headers={"x-generation-id": "gen_12345678"}
    )


async def run(handler: Any, **args: Any) -> tuple[int, list[str]]:
    paths: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        paths.append(f"{request.method} {request.headers.get('Last-Event-ID', '')}".strip())
        found: web.StreamResponse = handler(request)
        return found

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    options = argparse.Namespace(prompts=3, at_once=1, json=False, **args)
    async with (
        TestServer(app) as server,
        BenchClient(str(server.make_url("/")), random=lambda: 0.0) as client,
    ):
        return await _bench(client, options, {"prompt": "x"}), paths


async def test_prompts_are_sent_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    code, paths = await run(lambda _: stream_of(START, token("1-2"), {**END, "id": "1-3"}))

    assert (code, paths) == (0, ["POST", "POST", "POST"])
    assert "3 complete, 0 wrong" in capsys.readouterr().out


async def test_a_broken_stream_is_resumed_at_its_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    def answer(request: web.Request) -> web.Response:
        if request.method == "POST":
            return stream_of(START, token("1-2"), {**END, "id": "1-3"}, is_cut=True)
        if request.path == "/v1/ws":
            return web.Response(status=404)
        end = block({**END, "id": "1-3"})
        return web.Response(body=end, content_type=EVENT_STREAM)

    code, paths = await run(answer)

    # Once the client finds out that this node has no WebSocket.
    assert (code, paths) == (0, ["POST", "GET", "GET 1-2", *["POST", "GET 1-2"] * 2])
    assert "3 complete, 0 wrong, 3 connections" in capsys.readouterr().out


async def test_a_refusal_of_the_first_prompt_ends_the_bench() -> None:
    error = {"error": {"code": "model_not_found", "message": "no model", "retryable": False}}

    with pytest.raises(RequestRefused, match="no model"):
        await run(lambda _: web.json_response(error, status=404))


async def test_a_failure_in_the_middle_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    answers = iter(
        [
            stream_of(START, {**END, "id": "1-2"}),
            web.json_response({}, status=503),
            stream_of(START, {**END, "id": "1-2"}),
        ]
    )

    code, _ = await run(lambda _: next(answers))

    captured = capsys.readouterr()
    assert code == 1 and "2 complete, 1 wrong" in captured.out
    assert captured.err.startswith("wrong: 503: ")
