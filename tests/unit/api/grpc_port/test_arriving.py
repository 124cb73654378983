"""Messages that arrive slowly: they need places, and are bounded in time."""

from __future__ import annotations

import asyncio

import grpc.aio
import pytest

from api.grpc_port import arriving
from api.grpc_port.arriving import SLOW_AT_ONCE, SlowMessages, read_message
from shared.errors import RequestError
from tests.support.wait import until

pytestmark = pytest.mark.usefixtures("one_loop")


class Call:
    """A call whose message comes when the test says so."""

    def __init__(self) -> None:
        self.message: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    async def read(self) -> object:
        return await self.message


async def error_of(call: Call, slow: SlowMessages) -> str:
    with pytest.raises(RequestError) as caught:
        await read_message(call, slow)
    return caught.value.code


async def test_a_message_that_is_there_needs_no_place() -> None:
    slow, call = SlowMessages(), Call()
    slow.number = SLOW_AT_ONCE
    call.message.set_result(b"x")

    assert await read_message(call, slow) == b"x"
    assert slow.number == SLOW_AT_ONCE


async def test_a_call_without_a_message_is_refused() -> None:
    call = Call()
    call.message.set_result(grpc.aio.EOF)

    assert await error_of(call, SlowMessages()) == "invalid_protobuf"


async def test_a_slow_message_takes_a_place_and_gives_it_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arriving, "QUICK_S", 0.0)
    slow, call = SlowMessages(), Call()
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(read_message(call, slow))
        await until(lambda: slow.number == 1, 5, "a place")
        call.message.set_result(b"late")

    assert reading.result() == b"late"
    assert slow.number == 0


async def test_one_slow_message_too_many_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arriving, "QUICK_S", 0.0)
    slow = SlowMessages()
    slow.number = SLOW_AT_ONCE

    assert await error_of(Call(), slow) == "bodies_full"
    assert slow.number == SLOW_AT_ONCE


async def test_a_message_that_never_comes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arriving, "QUICK_S", 0.0)
    monkeypatch.setattr(arriving, "PATIENCE_S", 0.01)
    slow = SlowMessages()

    assert await error_of(Call(), slow) == "request_timeout"
    assert slow.number == 0


async def test_a_client_that_leaves_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arriving, "QUICK_S", 0.0)
    slow, call = SlowMessages(), Call()
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(read_message(call, slow))
        await until(lambda: slow.number == 1, 5, "a place")
        reading.cancel()

    assert slow.number == 0
