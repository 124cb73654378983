"""Compressed streams: the decoder of each reader gives exactly the bytes of a plain reader.

Each compressed reader has a twin without an encoding, to which the same things happen. The twins'
bodies are compared after each step, so the comparison also shows that no event waits anywhere.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from api.dialects.native.fold import NDJSON, SSE
from api.hub.relay import Relay
from api.readers.http_stream import Beginning, stream
from api.transport.wire import Backpressure
from shared.log.events import Progress, Start
from shared.log.ids import START, EventId
from tests.support.decoders import DECODERS, decode
from tests.support.hub_harness import END, GENERATION, Client, HubHarness, make_scope, settle

ENCODINGS = ("gzip", "zstd", "br")
WORDS = (" the", " answer", " 流", "式", " x", "\n", "0", " Hello", " wörld", "你好")
HEARTBEAT_S = 0.5


class FakeWire(Backpressure):
    """A connection below `send` that takes all bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.got: list[bytes] = []
        self.write = self.got.append

    def body(self) -> bytes:
        """Return the content of the chunks."""
        rest, parts = b"".join(self.got), []
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            count = int(size, 16)
            assert count, "an empty chunk would end the body"
            assert rest[count : count + 2] == b"\r\n"
            parts.append(rest[:count])
            rest = rest[count + 2 :]
        return b"".join(parts)


class Reading:
    """One stream of one reader."""

    def __init__(
        self, harness: HubHarness, accept: str, *, cursor: EventId = START, **more: Any
    ) -> None:
        self.client = Client()
        self.wire = FakeWire() if more.get("has_wire", True) else None
        prefix = more.get("prefix", b"")
        scope = make_scope(self.client)
        scope["headers"] = [*scope.get("headers", []), (b"accept-encoding", accept.encode())]
        if self.wire is not None:
            scope["extensions"]["tailrace.wire"] = self.wire

        async def begin(relay: Relay) -> Beginning:
            return Beginning(cursor=cursor, prefix=prefix, head=more.get("head", b""))

        self.task = asyncio.ensure_future(
            stream(
                harness.hub, scope, self.client.receive, self.client.send,  # type: ignore[arg-type]
                meta=harness.log.known[GENERATION], dialect=more.get("dialect", SSE), begin=begin,
            )
        )  # fmt: skip

    @property
    def body(self) -> bytes:
        return self.client.body + (b"" if self.wire is None else self.wire.body())

    @property
    def headers(self) -> dict[bytes, bytes]:
        return self.client.headers


class Twins:
    """A compressed reader, and a plain one to which the same happens."""

    def __init__(self, harness: HubHarness, encoding: str, **more: Any) -> None:
        self.encoding = encoding
        self.packed = Reading(harness, encoding, **more)
        self.plain = Reading(harness, "identity", **more)
        self.is_paused = False

    def both(self, act: Callable[[Reading], None]) -> None:
        act(self.packed)
        act(self.plain)

    def pause(self) -> None:
        if self.packed.wire is not None and not self.packed.task.done():
            self.is_paused = not self.is_paused
            name = "pause" if self.is_paused else "resume"
            self.both(lambda reading: getattr(reading.wire, name)())

    def leave(self) -> None:
        self.both(lambda reading: reading.client.leave())

    def check(self) -> None:
        if self.is_paused:
            return
        decoder = DECODERS[self.encoding]()
        assert decoder.feed(self.packed.body) == self.plain.body
        assert decoder.is_complete == self.packed.client.is_finished
        assert self.packed.client.is_finished == self.plain.client.is_finished

    def check_cuts(self, rng: random.Random) -> None:
        """A body that is cut off looks cut off, and begins as the whole one does."""
        body, plain = self.packed.body, self.plain.body
        for _ in range(5):
            if not body:
                return
            decoder = DECODERS[self.encoding]()
            at = rng.randrange(len(body))
            assert plain.startswith(decoder.feed(body[:at]))
            assert not decoder.is_complete


class Run:
    """A hub, one log, and twins, driven by a list of steps."""

    def __init__(self, harness: HubHarness, seed: int) -> None:
        self.harness = harness
        self.rng = random.Random(seed)
        self.twins: list[Twins] = []

    async def step(self, kind: str) -> None:
        await getattr(self, kind)()
        await settle()
        for twins in self.twins:
            twins.check()

    async def token(self) -> None:
        self.harness.log.tokens(self.rng.choice(WORDS))

    async def tokens(self) -> None:
        for _ in range(self.rng.randint(1, 60)):
            self.harness.log.tokens(*self.rng.choices(WORDS, k=self.rng.randint(1, 4)))
            if self.rng.random() < 0.5:
                await settle(5)

    async def large(self) -> None:
        self.harness.log.tokens(" ".join(self.rng.choices(WORDS, k=80_000)))

    async def join(self) -> None:
        log = self.harness.log.logs[GENERATION]
        place = self.rng.choice([0, 0, len(log), self.rng.randint(0, len(log))])
        self.twins.append(
            Twins(
                self.harness,
                self.rng.choice(ENCODINGS),
                cursor=log[place - 1][0] if place else START,
                has_wire=self.rng.random() < 0.8,
                prefix=self.rng.choice([b"", b"retry: 900\n"]),
                head=self.rng.choice([b"", b": opening\n\n"]),
            )
        )

    async def joins(self) -> None:
        for _ in range(4):
            await self.join()

    async def leave(self) -> None:
        if self.twins:
            self.twins.pop(self.rng.randrange(len(self.twins))).leave()

    async def pause(self) -> None:
        for twins in self.rng.sample(self.twins, min(2, len(self.twins))):
            twins.pause()

    async def silence(self) -> None:
        await self.harness.pass_time(HEARTBEAT_S * 2)

    async def trim(self) -> None:
        if (relay := self.harness.hub.relays.get(GENERATION)) is not None:
            relay.trim()

    async def roll_back(self) -> None:
        """Redis loses the tail of the log, and another attempt writes another one."""
        log = self.harness.log
        log.roll_back(min(3, len(log.logs[GENERATION])))
        log.append(Start(log.attempt, "demo"))
        log.tokens("other", " words")

    async def end(self) -> None:
        for twins in self.twins:
            if twins.is_paused:
                twins.pause()
        self.harness.log.append(END)
        await settle(400)


STEPS = [name for name in vars(Run) if not name.startswith("_") and name not in ("step", "end")]


async def run_steps(seed: int, steps: list[str]) -> None:
    async with HubHarness(
        stream_encodings="gzip,zstd,br", heartbeat_s=HEARTBEAT_S, connection_age_s=1e6
    ) as harness:
        harness.log.create(lease_ms=2**50)  # its worker lives
        harness.log.append(Start(1, "demo"))
        run = Run(harness, seed)
        for kind in [*steps, "end"]:
            await run.step(kind)
        for twins in run.twins:
            assert twins.plain.client.is_finished
            twins.check_cuts(run.rng)
        await settle()
        assert not harness.hub.encodings.private
        relay = harness.hub.relays.get(GENERATION)
        assert relay is None or relay._encoded.compressed_bytes == 0


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.sampled_from(STEPS), min_size=3, max_size=12))
@example(1, ["joins", "tokens", "silence", "token", "joins", "tokens", "pause", "tokens", "pause"])
@example(2, ["tokens", "joins", "token", "join", "token", "leave", "join", "large", "token"])
@example(3, ["joins", "tokens", "roll_back", "tokens", "join", "trim", "tokens", "joins", "token"])
def test_every_reader_decodes_exactly_the_plain_bytes(seed: int, steps: list[str]) -> None:
    asyncio.run(run_steps(seed, steps))


@pytest.fixture
async def harness() -> AsyncIterator[HubHarness]:
    async with HubHarness(stream_encodings="gzip,zstd", heartbeat_s=HEARTBEAT_S) as harness:
        harness.log.create()
        harness.log.append(Start(1, "demo"))
        yield harness


async def test_all_readers_of_a_log_are_written_the_same_object(harness: HubHarness) -> None:
    encoding = "gzip"
    first = [Reading(harness, encoding) for _ in range(3)]
    await settle()
    harness.log.tokens(*WORDS)
    await settle()
    late = [Reading(harness, encoding) for _ in range(3)]  # they have to wait for a key frame
    for word in [*WORDS] * 5:
        harness.log.tokens(word)
        await settle(5)
    harness.log.tokens("last")
    await settle()

    assert len({id(reading.wire.got[-1]) for reading in [*first, *late] if reading.wire}) == 1
    plain = SSE.new_fold(None).add(EventId(1, 62), b'{"type":"token","text":"last"}')  # type: ignore[arg-type]
    assert first[0].wire is not None and len(first[0].wire.got[-1]) < len(plain) * 0.6
    harness.log.append(END)
    await settle()
    assert len({decode(encoding, reading.body) for reading in [*first, *late]}) == 1


async def test_readers_at_one_place_that_wait_for_a_key_frame_share_their_pieces(
    harness: HubHarness,
) -> None:
    Reading(harness, "gzip")
    await settle()
    harness.log.tokens("one")
    await settle()
    late = [Reading(harness, "gzip", cursor=EventId(1, 2)) for _ in range(2)]
    await settle()
    harness.log.tokens("two")
    await settle()

    relay = harness.hub.relays[GENERATION]
    assert all(reader.row is None for reader in relay.individual_readers)  # type: ignore[attr-defined]
    assert len(relay.individual_readers) == 2
    log = relay.compressed_log(SSE, harness.hub.encodings.by_name["gzip"])  # type: ignore[arg-type]
    pieces = [log.fresh(chunk) for chunk in (relay.encoded_log(SSE).slice(2)[0],) * 2]
    assert pieces[0] is pieces[1]
    assert late[0].body == late[1].body


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("gzip", b"gzip"),
        ("br, gzip;q=0.8, zstd;q=0.9", b"zstd"),
        ("gzip, zstd", b"gzip"),
        ("*", b"gzip"),
        ("br", None),
        ("identity", None),
        ("gzip;q=0", None),
        ("gzip;q=0.5, identity", None),
        ("", None),
    ],
)
async def test_the_client_chooses_among_the_configured_encodings(
    harness: HubHarness, accept: str, chosen: bytes | None
) -> None:
    for dialect in (SSE, NDJSON):
        reading = Reading(harness, accept, dialect=dialect)
        await settle()
        assert reading.headers.get(b"content-encoding") == chosen
        assert reading.headers[b"vary"] == b"Accept-Encoding"
        assert reading.headers[b"cache-control"] == b"no-store, no-transform"


async def test_readers_whose_heads_wait_count_for_the_bound_of_private_compressors(
    harness: HubHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.compression.encodings.PRIVATE_CONTEXTS_MAX", 1)
    readings = [Reading(harness, "zstd") for _ in range(2)]
    for reading in readings:
        reading.client.block()
    await settle()
    for reading in readings:
        reading.client.unblock()
    await settle()

    chosen = [reading.headers.get(b"content-encoding") for reading in readings]
    assert chosen == [b"zstd", None]


async def test_without_the_setting_no_stream_is_compressed() -> None:
    async with HubHarness() as harness:
        harness.log.create()
        reading = Reading(harness, "gzip, br, zstd")
        await settle()
        assert {b"content-encoding", b"vary"}.isdisjoint(reading.headers)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
async def test_a_stream_that_is_broken_off_is_not_complete(
    harness: HubHarness, encoding: str
) -> None:
    readings = [Reading(harness, encoding, has_wire=has_wire) for has_wire in (True, False)]
    await settle()
    harness.log.tokens("one", "two")
    await settle()
    await harness.hub.drain(0)
    await settle()
    for reading in readings:
        decoder = DECODERS[encoding]()
        assert decoder.feed(reading.body).endswith(b'{"text":"two"}\n\n')
        assert not decoder.is_complete and not reading.client.is_finished
        reading.client.leave()


async def test_two_key_frames_are_some_entries_apart(harness: HubHarness) -> None:
    sizes = []
    for n in range(12):
        Reading(harness, "gzip", cursor=EventId(1, n + 1) if n else START)
        await settle()
        sizes.append(len(harness.hub.relays[GENERATION].individual_readers))
        harness.log.append(Progress("silent", n, 2, 50.0))
        await settle()
    assert sizes == list(range(12)), "until then each late reader reads by itself"
