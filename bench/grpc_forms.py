"""Compares gRPC, gRPC-Web and Connect with SSE: CPU of the node per token, and the first token.

The same answer goes to the same number of readers, one form after the other at one node. Readers
over HTTP are sockets that read to the last frame; those over gRPC are grpcio's client, which costs
more than the node. Readers share the bench's process, and only the node is measured.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

from api.dialects.grpc.generated import tailrace_pb2 as pb
from api.dialects.grpc.status import connect_end, trailer_frame
from api.dialects.grpc.wire import frame
from bench.support.answer import Answer, new_answers
from bench.support.cpu import cpu_s
from bench.support.load import ENDS, get, post
from bench.support.setup import Setup, address
from bench.support.table import MS, US, Comparison, Row, percentile
from tests.support.grpc_client import GrpcClient, generate_request
from tests.support.processes import Role
from tests.support.redis_server import free_port

PATH = "/tailrace.v1.Tailrace/"
SSE, GRPC = "SSE", "gRPC"
# Over HTTP: the content type, and the bytes that end an answer.
OVER_HTTP = {
    "gRPC-Web": ("application/grpc-web+proto", trailer_frame()),
    "Connect": ("application/connect+proto", connect_end()),
}
READERS_OF_CHANNEL = 25


@dataclass(frozen=True, slots=True)
class Size:
    """The sizes of a run; `requests` is the number of first tokens that are measured."""

    readers: int
    per_s: int
    tokens: int
    first_s: float
    requests: int


FULL = Size(100, 20, 160, 2.0, 200)
QUICK = Size(4, 50, 5, 0.3, 3)


async def run(setup: Setup) -> list[Row]:
    """Run the benchmark; return its rows."""
    size = QUICK if setup.is_quick else FULL
    work = f"1 generation at {size.per_s} tokens/s, {size.readers} readers of each form"
    cpu = Comparison(f"{work}: CPU of the node per token and reader", "µs", SSE)
    first = Comparison("first token of a call that streams: p50", "ms", SSE)
    for _ in setup.rounds():
        async with setup.node(is_fresh=True, grpc_port=str(free_port())) as node:
            for who in (SSE, *OVER_HTTP, GRPC):
                await setup.quiet()
                cpu.add(who, await _cpu_us(setup, node, who, size))
                first.add(who, percentile(await _first_ms(setup, node, who, size), 0.5))
    return [*cpu.rows(), *first.rows()]


async def _cpu_us(setup: Setup, node: Role, who: str, size: Size) -> float:
    """Return µs of CPU of the node per token and reader, the opening of the readers left out."""
    (answer,) = new_answers(1, tokens=size.tokens, per_s=size.per_s, first_s=size.first_s)
    begun_s = time.monotonic()
    (generation_id,) = await setup.system.start(node, [answer])
    reading = asyncio.gather(*_readers(node, who, generation_id, answer, size.readers))
    await asyncio.sleep(max(0.0, begun_s + size.first_s * 0.9 - time.monotonic()))
    before_s = cpu_s(node.pid)
    await reading
    spent_s = cpu_s(node.pid) - before_s
    await setup.upstream.times([answer])
    return US * spent_s / (size.tokens * size.readers)


def _readers(
    node: Role, who: str, generation_id: str, answer: Answer, count: int
) -> list[Awaitable[object]]:
    if who == GRPC:
        channels = -(-count // READERS_OF_CHANNEL)
        shares = [count // channels + (n < count % channels) for n in range(channels)]
        return [_read_channel(node, generation_id, answer, share) for share in shares]
    raw, end = _request(who, pb.AttachRequest(id=generation_id), "Attach")
    if who == SSE:
        raw, end = get(f"/v1/generations/{generation_id}/events").first, ENDS["sse"]
    return [_read_socket(node, raw, end, answer) for _ in range(count)]


async def _read_channel(node: Role, generation_id: str, answer: Answer, count: int) -> None:
    async with GrpcClient(node.grpc_target) as client:
        request = pb.AttachRequest(id=generation_id)
        await asyncio.gather(
            *(_check_stream(client.call("Attach", request), answer) for _ in range(count))
        )


async def _check_stream(call: Any, answer: Answer) -> float:
    """Read a stream; return when its first token came, s of the monotonic clock."""
    text, at_s = "", 0.0
    async for event in call:
        text += event.token.text
        at_s = at_s or (time.monotonic() if text else 0.0)
    assert text == "".join(answer.pieces()), text
    return at_s


async def _read_socket(node: Role, raw: bytes, end: bytes, answer: Answer) -> float:
    """Send a request and read to `end`; return when the first token came."""
    reader, writer = await asyncio.open_connection(*address(node))
    try:
        writer.write(raw)
        got, at_s, first = bytearray(), 0.0, answer.token(0).encode()
        while end not in got[-len(end) - 64 :]:
            data = await reader.read(65_536)
            assert data, bytes(got[-200:])
            got += data
            if not at_s and first in got:
                at_s = time.monotonic()
        places = [got.find(piece.encode()) for piece in answer.pieces()]
        assert min(places) > 0 and places == sorted(places)
        return at_s
    finally:
        writer.close()
        await writer.wait_closed()


async def _first_ms(setup: Setup, node: Role, who: str, size: Size) -> list[float]:
    """Return the ms to the first token of calls one after the other, each with all its bytes."""
    found = []
    async with GrpcClient(node.grpc_target) as client:
        for answer in new_answers(size.requests, tokens=2):
            began_s = time.monotonic()
            found.append((await _ask(who, node, client, answer) - began_s) * MS)
            await setup.upstream.times([answer])
    return found


async def _ask(who: str, node: Role, client: GrpcClient, answer: Answer) -> float:
    request = generate_request(answer.body())
    if who == GRPC:
        return await _check_stream(client.call("Generate", request), answer)
    raw, end = _request(who, request, "Generate")
    if who == SSE:
        raw, end = post("/v1/generations", answer.body()).first, ENDS["sse"]
    return await _read_socket(node, raw, end, answer)


def _request(who: str, message: Any, method: str) -> tuple[bytes, bytes]:
    """Return the bytes of a request, and those that end its answer."""
    if who not in OVER_HTTP:
        return b"", b""
    content_type, end = OVER_HTTP[who]
    body = frame(message.SerializeToString())
    head = (
        f"POST {PATH}{method} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body, end
