"""What a node writes for the POSTs of LobeHub's server, and in which order."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from api.dialects.lobe_gateway.feed_body import pushed, read_feed, status_told
from api.dialects.lobe_gateway.feed_order import FeedOrder, Outcome, Post, in_order
from api.dialects.lobe_gateway.messages import event_entries, read_message
from shared.errors import RequestError, Unavailable
from shared.log.events import Data, End, Reasoning, Token, decode
from shared.log.feeding import Fed
from shared.log.ids import EventId
from shared.log.producing import Appended

OPERATION = "op_1"


def event_of(kind: str, data: Any, operation: str | None = OPERATION) -> bytes:
    event = {"type": kind, "operationId": operation, "data": data}
    return json.dumps(event, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ({"chunkType": "text", "content": "a"}, Token),
        ({"chunkType": "reasoning", "reasoning": "a"}, Reasoning),
        ({"chunkType": "text", "content": ""}, Data),
        ({"chunkType": "text", "content": None}, Data),
        ({"chunkType": "text", "content": "all", "snapshotMode": "replace"}, Data),
        ({"chunkType": ["text"], "content": "a"}, Data),
        ({"chunkType": "tools_calling", "toolsCalling": []}, Data),
        (None, Data),
        ("text", Data),
    ],
)
def test_text_is_an_event_of_the_log_and_the_rest_is_data(data: Any, kind: type) -> None:
    raw = event_of("stream_chunk", data)
    (entry,), end = event_entries(OPERATION, raw)
    assert (type(decode(entry)), end) == (kind, "")
    found = read_message(entry, (OPERATION,))
    assert found is not None and found.message.body == raw


@pytest.mark.parametrize("operation", [OPERATION, "", None])
def test_the_own_end_ends_the_log(operation: str | None) -> None:
    entries, end = event_entries(OPERATION, event_of("agent_runtime_end", {}, operation))
    assert (len(entries), end) == (2, "completed")
    assert isinstance(decode(entries[1]), End)


def test_the_text_and_the_end_of_a_member_are_data() -> None:
    for raw in (
        event_of("stream_chunk", {"chunkType": "text", "content": "a"}, "op_member"),
        event_of("agent_runtime_end", {"reason": "error"}, "op_member"),
    ):
        (entry,), end = event_entries(OPERATION, raw)
        assert (type(decode(entry)), end) == (Data, "")


def test_an_error_has_a_message_of_a_bounded_length() -> None:
    for detail, told in (("x" * 9_000, "x" * 600), (None, ""), ([], "")):
        raw = event_of("agent_runtime_end", {"reason": "error", "reasonDetail": detail})
        end = decode(event_entries(OPERATION, raw)[0][1])
        assert end.error.message.startswith(told) and 0 < len(end.error.message) <= 600


def test_a_half_of_a_surrogate_pair_becomes_a_replacement_character() -> None:
    body = b'{"operationId":"op_1","event":{"type":"x","data":"a\\ud83d"}}'
    (entry,) = pushed(read_feed(body)).entries
    assert decode(entry).value["event"]["data"] == "a\ufffd"


def test_a_status_without_an_end_is_noted() -> None:
    told = status_told(read_feed(b'{"operationId":"op_1","status":"waiting_confirmation"}'))
    assert (told.end, told.status) == ("", "waiting_confirmation")
    with pytest.raises(RequestError):
        status_told(read_feed(b'{"operationId":"op_1","status":["completed"]}'))


def test_posts_are_in_the_order_of_their_times_and_an_end_comes_last() -> None:
    fed = Fed("gen_1", [b"x"])
    end = Fed("gen_1", [b"x"], "completed")
    posts = [Post(end, 5, 0), Post(fed, 5, 2), Post(fed, 5, 1), Post(fed, 1, 3)]
    assert in_order(posts) == [posts[3], posts[2], posts[1], posts[0]]


class Log:
    """Takes what is written; the first calls fail."""

    def __init__(self, failures: int = 0) -> None:
        self.calls: list[list[str]] = []
        self.failures = failures
        self.gate = asyncio.Event()
        self.gate.set()

    async def write(self, appends: list[Fed]) -> list[Outcome]:
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise Unavailable("away")
        self.calls.append([each.repeat_key for each in appends])
        return [Appended("running", EventId(1, 1), 0, 0) for _ in appends]


async def put(order: FeedOrder, name: str, at_ms: float) -> Outcome:
    return await order.put(Fed("gen_1", [b"x"], repeat_key=name), at_ms, order.ticket())


async def test_posts_that_come_together_are_one_write_in_order() -> None:
    log = Log()
    order = FeedOrder(log.write)
    await asyncio.gather(put(order, "c", 3), put(order, "a", 1), put(order, "b", 1))
    assert log.calls == [["a", "b", "c"]]
    assert order._lines == {}


async def test_the_posts_of_a_cancelled_writer_are_written_by_the_next() -> None:
    log = Log()
    log.gate.clear()
    order = FeedOrder(log.write)
    first = asyncio.create_task(put(order, "a", 1))
    second = asyncio.create_task(put(order, "b", 2))
    await asyncio.sleep(0)
    await asyncio.wait({first}, timeout=0.05)
    first.cancel()
    log.gate.set()
    assert isinstance(await second, Appended)
    assert log.calls == [["b"]]
    assert order._lines == {}


async def test_a_failed_write_fails_one_post_and_the_others_try_again() -> None:
    log = Log(failures=1)
    order = FeedOrder(log.write)
    found = await asyncio.gather(put(order, "a", 1), put(order, "b", 2), return_exceptions=True)
    assert [type(each) for each in found] == [Unavailable, Appended]
    assert log.calls == [["b"]]  # the writer of the first one tries again itself
