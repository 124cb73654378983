"""A client over gRPC, and a reading that attaches again at the other node until it has the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any

import grpc
import grpc.aio
from google.protobuf import json_format

from api.dialects.grpc.generated import tailrace_pb2 as pb

PATH = "/tailrace.v1.Tailrace/"
STREAMS = ("Generate", "Attach")
ANSWERS = {"Generate": pb.Event, "Attach": pb.Event, "Session": pb.SessionResponse}
CALL_S = 30.0
PAUSE_S = 0.05  # before a broken stream is attached again


def generate_request(body: dict[str, Any]) -> pb.GenerateRequest:
    """Return the request for a native body."""
    return json_format.ParseDict(body, pb.GenerateRequest())  # type: ignore[no-any-return]


class GrpcClient:
    """One channel.

    Args:
        target: `host:port`.
        key: sent with each call.
    """

    def __init__(self, target: str, key: str = "", **options: int) -> None:
        self.key = key
        rows = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        rows += [(f"grpc.{name}", value) for name, value in options.items()]
        self.channel = grpc.aio.insecure_channel(target, rows)
        self._calls: list[Any] = []

    async def __aenter__(self) -> GrpcClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        # grpcio reports the end of a call from a thread of its own. After the loop of this test is
        # closed, the report would be an error in the loop of another test.
        for call in self._calls:
            call.cancel()
        async with asyncio.timeout(CALL_S):
            for call in self._calls:
                await call.code()
        await self.channel.close(None)

    def adopt(self, call: Any) -> Any:
        """Wait for the end of a call of `channel` before the channel closes; return the call."""
        self._calls.append(call)
        return call

    def call(self, method: str, request: Any, timeout_s: float = CALL_S, **metadata: str) -> Any:
        """Begin a call of a method of tailrace.v1; underscores in metadata become dashes."""
        make = self.channel.unary_stream if method in STREAMS else self.channel.unary_unary
        answer = ANSWERS.get(method, pb.Generation)
        multi = make(
            PATH + method,
            request_serializer=lambda message: (
                message if isinstance(message, bytes) else message.SerializeToString()
            ),
            response_deserializer=answer.FromString,
        )
        sent = [(name.replace("_", "-"), value) for name, value in metadata.items()]
        if self.key:
            sent.append(("authorization", f"Bearer {self.key}"))
        return self.adopt(multi(request, timeout=timeout_s, metadata=sent))

    async def start(self, body: dict[str, Any], **metadata: str) -> str:
        """Start a generation; return its id."""
        answer = await self.call("Start", generate_request(body), **metadata)
        return str(answer.id)


class Reading:
    """Reads one generation over gRPC and goes on at the next target after each break.

    Attributes:
        events: all events with an id, heartbeats and `opened` left out.
        breaks: the statuses with which streams were broken off.
    """

    def __init__(self, targets: Sequence[str], generation_id: str) -> None:
        self._targets = list(targets)
        self._generation_id = generation_id
        self.events: list[pb.Event] = []
        self.breaks: list[grpc.StatusCode] = []
        self.grown = asyncio.Event()

    @property
    def text(self) -> str:
        return "".join(event.token.text for event in self.events)

    @property
    def has_ended(self) -> bool:
        return bool(self.events) and self.events[-1].WhichOneof("kind") == "end"

    async def run(self) -> None:
        """Read until `end`."""
        number = 0
        while not self.has_ended:
            async with GrpcClient(self._targets[number % len(self._targets)]) as client:
                cursor = self.events[-1].id if self.events else ""
                request = pb.AttachRequest(id=self._generation_id, cursor=cursor)
                try:
                    async for event in events_of(client.call("Attach", request)):
                        self.events.append(event)
                        self.grown.set()
                except grpc.aio.AioRpcError as exc:
                    self.breaks.append(exc.code())
                    await asyncio.sleep(PAUSE_S)
            number += 1

    async def has(self, count: int) -> None:
        """Return once `count` events have come."""
        while len(self.events) < count:
            self.grown.clear()
            await self.grown.wait()


async def events_of(call: Any) -> AsyncIterator[pb.Event]:
    """Yield the events of a stream that have an id."""
    async for event in call:
        if event.id:
            yield event


def check_order(events: Sequence[pb.Event]) -> None:
    """Check that each event came once, in order, and `end` last."""
    places = [tuple(map(int, event.id.split("-"))) for event in events]
    assert places == sorted(set(places))
    assert [event.WhichOneof("kind") for event in events].count("end") == 1
    assert events[-1].WhichOneof("kind") == "end"
