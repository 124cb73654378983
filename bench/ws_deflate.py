"""Measures permessage-deflate on WebSockets: bytes, CPU and memory, in English and Chinese.

Two parts. The first compresses the frames of `/v1/ws` in this process: what a frame costs in each
way, also in the usual way of one compressor for each reader. The second is a node with readers that
follow one answer, with the setting off and on. Its readers read bytes and inflate nothing; one
reader more is a real client, which checks the text.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from websockets.asyncio.client import connect
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from api.compression.deflated_messages import FrameChain, lone_frame, text_frame
from api.dialects.native.fold import NativeFrameFold
from bench.support.cpu import cpu_s, rss_bytes
from bench.support.setup import Setup, address
from bench.support.table import US, Comparison, Row
from bench.support.writer import Writer
from shared.log.events import Token, encode
from shared.log.ids import EventId, new_generation_id
from shared.log.records import Meta
from tests.support.processes import Role
from tests.support.raw_wire import handshake
from tests.support.wait import until

ENGLISH = (
    "The log of a generation is the only truth, so every reader can come back to the place where "
    "it was. A model writes a few letters at a time; the worker gives each piece a number, and the "
    "nodes pass the pieces on to everybody who reads. When a connection breaks, the client names "
    "the last number that it has seen, and nothing is lost or repeated. "
)
CHINESE = (
    "一次生成的日志是唯一的依据，所以每个读者都可以回到原来的位置继续阅读。模型每次写出几个字，"
    "工作进程给每一段编号，节点再把它们转发给所有正在阅读的人。如果连接中断，客户端只要说出它看到"
    "的最后一个编号，就不会丢失或重复任何内容。压缩可以减少传输的字节，但是也要占用处理器和内存。"
)
LANGUAGES = {"English": (ENGLISH, 5), "Chinese": (CHINESE, 2)}  # the text, letters of a token
OFFER = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
OFF, SHARED, NAIVE = "off", "deflate, shared", "deflate, one compressor for each reader"
ALONE = "deflate, each frame alone"


@dataclass(frozen=True, slots=True)
class Size:
    """The sizes of a run."""

    frames: int
    readers: tuple[int, ...]
    tokens: int
    per_s: int
    compressors: int  # whose memory is measured
    quiet_s: float  # before the first token


FULL = Size(4_000, (1, 100, 1_000), 120, 10, 1_000, 0.5)
QUICK = Size(100, (3,), 10, 100, 10, 0.02)


async def run(setup: Setup) -> list[Row]:
    """Run the benchmark; return its rows."""
    size = QUICK if setup.is_quick else FULL
    comparisons: dict[str, Comparison] = {}

    def add(work: str, unit: str, who: str, value: float) -> None:
        comparison = comparisons.setdefault(work, Comparison(work, unit, OFF))
        comparison.add(who, value)

    memory = comparisons["memory"] = Comparison("memory of a compressor in use", "kB")
    for _ in setup.rounds():
        for language, tokens_of_frame in itertools.product(LANGUAGES, (1, 4, 16)):
            frames = frames_of(language, size.frames, tokens_of_frame)
            work = f"{language}, {tokens_of_frame} tokens in an event"
            for who, compress in WAYS.items():
                began_s = time.process_time()
                sent = sum(map(len, compress(frames)))
                spent_s = time.process_time() - began_s
                add(f"{work}: bytes of a frame", "B", who, sent / len(frames))
                add(f"{work}: CPU of a frame", "µs", who, US * spent_s / len(frames))
        for who, kept in (("a chain", _chain), ("a compressor of uvicorn", _extension)):
            kept_bytes = _memory(kept, size.compressors)
            memory.add(who, kept_bytes / 1_000)
        for readers, language in itertools.product(size.readers, LANGUAGES):
            for who, setting in ((OFF, "off"), (SHARED, "on")):
                await setup.quiet()
                async with setup.node(is_fresh=True, ws_deflate=setting) as node:
                    found = await _follow(setup, node, language, size, readers)
                work = f"{language}, {readers} readers"
                add(f"{work}: bytes of a token and reader", "B", who, found.wire_bytes)
                add(f"{work}: CPU of the node per token and reader", "µs", who, found.cpu_us)
                add(f"{work}: memory of an idle reader", "kB", who, found.idle_kb)
                add(f"{work}: memory of a reader in mid-answer", "kB", who, found.reading_kb)
    return [row for comparison in comparisons.values() for row in comparison.rows()]


def pieces_of(language: str) -> Iterator[str]:
    """Yield the tokens of an endless text."""
    text, letters = LANGUAGES[language]
    sizes = itertools.cycle((letters, letters - 1, letters + 1, letters))
    at = 0
    for size in sizes:
        yield (text + text)[at : at + size]
        at = (at + size * 7 + 3) % len(text)  # jumps, so that the text does not simply repeat


def frames_of(language: str, count: int, tokens_of_frame: int) -> list[bytes]:
    """Return the payloads of the frames of `/v1/ws`."""
    fold = NativeFrameFold(_meta())
    pieces = pieces_of(language)
    texts = ("".join(itertools.islice(pieces, tokens_of_frame)) for _ in range(count))
    return [fold.add(EventId(1, n), encode(Token(text)))[0] for n, text in enumerate(texts, 1)]


def _meta() -> Meta:
    return Meta(
        generation_id=new_generation_id(), status="running", owner="", session="", model="",
        priority="interactive", created_at_ms=0, attempt=1, lease_ms=0, waiting_since_ms=0,
        failures=0, grace_s=None, metadata=b"{}", request=b"", end=b"", ended_at_ms=0,
    )  # fmt: skip


def _extension() -> PerMessageDeflate:
    """The extension of one socket as uvicorn and websockets have it by default."""
    return PerMessageDeflate(False, False, 12, 12, {"memLevel": 5})


def _naive(frames: Sequence[bytes]) -> Iterator[bytes]:
    extension = _extension()
    for payload in frames:
        yield Frame(Opcode.TEXT, payload).serialize(mask=False, extensions=[extension])


def _chained(frames: Sequence[bytes]) -> Iterator[bytes]:
    return map(FrameChain().add, frames)


def _alone(frames: Sequence[bytes]) -> Iterator[bytes]:
    for payload in frames:
        compressor = zlib.compressobj(6, zlib.DEFLATED, -12, 5)
        data = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
        yield text_frame(data[:-4], is_compressed=True)


WAYS: dict[str, Callable[[Sequence[bytes]], Iterator[bytes]]] = {
    OFF: lambda frames: map(text_frame, frames),
    SHARED: _chained,
    NAIVE: _naive,
    ALONE: _alone,
    "plain below 512 bytes, else alone": lambda frames: map(lone_frame, frames),
}


def _chain() -> FrameChain:
    chain = FrameChain()
    chain.add(b"x" * 90)
    return chain


def _memory(make: Callable[[], object], count: int) -> float:
    """Return the growth of this process for one of `count` objects, bytes."""
    before = rss_bytes(os.getpid())
    kept = [make() for _ in range(count)]
    for each in kept:
        if isinstance(each, PerMessageDeflate):
            Frame(Opcode.TEXT, b"x" * 90).serialize(mask=False, extensions=[each])
    return (rss_bytes(os.getpid()) - before) / len(kept)


# A node with readers


@dataclass(frozen=True, slots=True)
class Found:
    """What one run has measured, for one reader."""

    wire_bytes: float
    cpu_us: float
    idle_kb: float
    reading_kb: float


async def _follow(setup: Setup, node: Role, language: str, size: Size, readers: int) -> Found:
    pieces = list(itertools.islice(pieces_of(language), size.tokens))
    async with Writer(setup.system.server.url) as writer, asyncio.TaskGroup() as group:
        holder = await writer.begin()
        name = holder.generation_id
        before = rss_bytes(node.pid)
        counts = [0] * readers
        sockets = await asyncio.gather(*(_open(node) for _ in range(readers)))
        idle = rss_bytes(node.pid)
        tasks = [
            group.create_task(_count(reader, counts, n)) for n, (reader, _) in enumerate(sockets)
        ]
        subscribe = _masked(json.dumps({"type": "subscribe", "id": name}).encode())
        for _, stream in sockets:
            stream.write(subscribe)
        await until(lambda: all(counts), 30, "every reader has its start")
        oracle = group.create_task(_oracle(node, name))
        await asyncio.sleep(size.quiet_s)
        at_start, cpu = sum(counts), cpu_s(node.pid)
        begun_s = time.monotonic()
        for n, piece in enumerate(pieces):
            await asyncio.sleep(max(0.0, begun_s + n / size.per_s - time.monotonic()))
            await writer.say(holder, [piece], tokens_before=n)
        await until(lambda: _is_settled(counts), 30, "every reader has all tokens")
        spent_s, received = cpu_s(node.pid) - cpu, sum(counts) - at_start
        reading = rss_bytes(node.pid)
        await writer.end(holder, tokens_before=len(pieces))
        assert await oracle == "".join(pieces)
        for task in tasks:
            task.cancel()
        for _, stream in sockets:
            stream.close()
    deliveries = len(pieces) * readers
    return Found(
        received / deliveries,
        US * spent_s / deliveries,
        (idle - before) / readers / 1_000,
        (reading - before) / readers / 1_000,
    )


_seen: list[int] = []


def _is_settled(counts: list[int]) -> bool:
    """Whether nothing has come since the last call."""
    _seen.append(sum(counts))
    return len(_seen) > 9 and len(set(_seen[-9:])) == 1


async def _open(node: Role) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(*address(node))
    writer.write(handshake(node.url, OFFER))
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 101 " in head, head
    return reader, writer


def _masked(payload: bytes) -> bytes:
    assert len(payload) < 126
    return bytes([0x81, 0x80 | len(payload)]) + bytes(4) + payload


async def _count(reader: asyncio.StreamReader, counts: list[int], index: int) -> None:
    while data := await reader.read(65_536):
        counts[index] += len(data)


async def _oracle(node: Role, name: str) -> str:
    """Read the answer as a real client; return its text."""
    text = ""
    async with connect(node.url.replace("http", "ws") + "/v1/ws", proxy=None) as socket:
        await socket.send(json.dumps({"type": "subscribe", "id": name}))
        async for message in socket:
            event = json.loads(message)
            if event["type"] == "end":
                break
            text += event.get("text", "")
    return text
