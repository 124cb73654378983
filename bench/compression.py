"""Measures compressed streams: bytes per token, CPU per token and reader, memory per reader.

The same answers, in English and in Chinese, go to the same numbers of readers in each encoding, and
from a node with a compressor for each reader. Each token is appended alone, at a steady pace, so
each is flushed alone. Readers are sockets of another process. After a run the body of every reader
is decoded, and must have the exact text.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
import zlib
from dataclasses import dataclass

import brotli
import zstandard

from bench.support.cpu import cpu_s, rss_bytes
from bench.support.load import ENDS, InexactText
from bench.support.load_process import ReaderRequest
from bench.support.prose import ANSWERS
from bench.support.setup import Setup, address
from bench.support.table import US, Comparison, Row
from bench.support.writer import Writer
from tests.support.generation import Holder
from tests.support.processes import Role

PLAIN = "not compressed"
EACH = ", a compressor for each reader"
# The encoding that readers ask for, and the program of the node.
SHARED, PRIVATE = "cli.main", "bench.support.private_node"
SYSTEMS = {
    PLAIN: ("identity", SHARED),
    "gzip": ("gzip", SHARED),
    f"gzip{EACH}": ("gzip", PRIVATE),
    f"zstd{EACH}": ("zstd", PRIVATE),
    f"br{EACH}": ("br", PRIVATE),
}
KB = 1_000


@dataclass(frozen=True, slots=True)
class Size:
    """The sizes of a run.

    Attributes:
        settle_s: for the last token to reach all readers.
    """

    readers: tuple[int, ...]
    tokens: int
    per_s: float
    settle_s: float


FULL = Size((1_000, 100, 1), 60, 10.0, 0.2)  # so many readers and tokens a second are not joined
QUICK = Size((3, 1), 10, 200.0, 0.02)


class _Tables:
    """The rows of one number of readers."""

    def __init__(self, size: Size, readers: int) -> None:
        self.size, self.readers = size, readers
        work = f"1 answer at {size.per_s:g} tokens/s, {readers} readers over SSE"
        cpu = "CPU of the node per token and reader"
        self.bytes = {
            n: Comparison(f"{work}, {n}: body per token", "bytes", PLAIN) for n in ANSWERS
        }
        self.cpu = {n: Comparison(f"{work}, {n}: {cpu}", "µs", PLAIN) for n in ANSWERS}
        self.memory = Comparison(f"{work}: memory of the node per reader", "kB", PLAIN)

    def rows(self) -> list[Row]:
        """Return the rows of all measurements."""
        tables = [*self.bytes.values(), *self.cpu.values()]
        tables += [self.memory] if self.memory.seen else []
        return [row for table in tables for row in table.rows()]


async def run(setup: Setup) -> list[Row]:
    """Run the benchmark; return its rows."""
    size = QUICK if setup.is_quick else FULL
    tables = [_Tables(size, readers) for readers in size.readers]
    async with Writer(setup.system.redis_url) as writer:
        for _ in setup.rounds():
            for program, systems in _nodes(setup.is_quick):
                node = setup.system.node(program=program, stream_encodings="gzip,zstd,br")
                async with node as role:
                    for (who, encoding), table in itertools.product(systems.items(), tables):
                        await _measure(setup, role, writer, table, who=who, encoding=encoding)
    return [row for table in tables for row in table.rows()]


def _nodes(is_quick: bool) -> list[tuple[str, dict[str, str]]]:
    """Return the program of each node, and its systems with their encodings.

    Each system has a fresh node, whose memory is measured; in a quick run each program has one.
    """
    if not is_quick:
        return [(program, {who: encoding}) for who, (encoding, program) in SYSTEMS.items()]
    return [
        (program, {who: encoding for who, (encoding, of) in SYSTEMS.items() if of == program})
        for program in (SHARED, PRIVATE)
    ]


async def _measure(
    setup: Setup, node: Role, writer: Writer, table: _Tables, *, who: str, encoding: str
) -> None:
    """Measure one system.

    Memory is that of the first answer, which has the most readers: later ones use it again.
    """
    await setup.quiet()
    is_fresh = table.readers == max(table.size.readers)
    if is_fresh:
        await _read(setup, node, writer, 2, encoding, ["warm", "up"])
    for name, pieces in ANSWERS.items():
        tokens = pieces()[: table.size.tokens]
        run = await _read(
            setup, node, writer, table.readers, encoding, tokens,
            per_s=table.size.per_s, settle_s=table.size.settle_s,
        )  # fmt: skip
        table.bytes[name].add(who, run.body_bytes / len(tokens))
        table.cpu[name].add(who, US * run.cpu_s / (len(tokens) * table.readers))
        if is_fresh and name == next(iter(ANSWERS)):
            table.memory.add(who, run.memory_bytes / table.readers / KB)


@dataclass(frozen=True, slots=True)
class _Run:
    """One answer, read: the mean body of a reader, and what the node spent on all readers."""

    body_bytes: float
    cpu_s: float
    memory_bytes: int


async def _read(
    setup: Setup,
    node: Role,
    writer: Writer,
    readers: int,
    encoding: str,
    tokens: list[str],
    *,
    per_s: float = 1_000.0,
    settle_s: float = 0.0,
) -> _Run:
    before = rss_bytes(node.pid)
    holder = await writer.begin()
    await setup.load.open(address(node), [_request(holder, encoding)] * readers, end=ENDS["sse"])
    await setup.load.opened()
    began, cpu = time.monotonic(), cpu_s(node.pid)
    for n, token in enumerate(tokens):
        await asyncio.sleep(began + n / per_s - time.monotonic())
        await writer.say(holder, [token], tokens_before=n)
    await asyncio.sleep(settle_s)
    spent, after = cpu_s(node.pid) - cpu, rss_bytes(node.pid)
    await writer.end(holder, tokens_before=len(tokens))
    await setup.load.over()
    bodies = [_body(data, encoding) for data in await setup.load.received()]
    for _, plain in bodies:
        _check(plain, tokens)
    return _Run(sum(size for size, _ in bodies) / readers, spent, max(0, after - before))


def _request(holder: Holder, encoding: str) -> ReaderRequest:
    head = (
        f"GET /v1/generations/{holder.generation_id}/events HTTP/1.1\r\nhost: localhost\r\n"
        f"accept: text/event-stream\r\naccept-encoding: {encoding}\r\n\r\n"
    )
    return ReaderRequest(head.encode())


def _body(data: bytes, encoding: str) -> tuple[int, bytes]:
    """Return the size of a body with the frames of its chunks, and its decoded content."""
    head, _, rest = data.partition(b"\r\n\r\n")
    coded = b"content-encoding" in head.lower()
    if coded != (encoding != "identity"):
        raise InexactText(f"a reader that asks for {encoding} got {head!r}")
    size, parts = len(rest), []
    while rest:
        length, _, rest = rest.partition(b"\r\n")
        parts.append(rest[: int(length, 16)])
        rest = rest[int(length, 16) + 2 :]
    body = b"".join(parts)
    if encoding == "gzip":
        body = zlib.decompress(body, 31)
    elif encoding == "br":
        body = brotli.decompress(body)
    elif encoding == "zstd":
        body = zstandard.ZstdDecompressor().decompressobj().decompress(body)
    return size, body


def _check(plain: bytes, tokens: list[str]) -> None:
    """Compare the text of a stream with its tokens.

    Raises:
        InexactText: they differ.
    """
    blocks = [block for block in plain.decode().split("\n\n") if "event: token" in block]
    text = "".join(json.loads(block.partition("data: ")[2])["text"] for block in blocks)
    if text != "".join(tokens):
        raise InexactText(f"a reader has {text[-200:]!r}")
