"""Whatever a peer sends as compressed messages is answered, or closes the socket with its code.

A bomb takes the memory of one message and the time of one, and the node serves others meanwhile.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import zlib
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.footprint import rss_bytes
from tests.support.frames import CLOSE, PING, PONG, TEXT, converse
from tests.support.processes import Role
from tests.support.raw_client import RawClient
from tests.support.raw_wire import frame, handshake, large_frame, raw_connection, read_frame

OFFER = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
RSV1 = 4
MARK = "mark-of-the-end"
BODY_BYTES_MAX = 33_554_432  # the default
VIOLATIONS = {1002, 1007, 1009}
MAY_FIND = settings(
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def deflated(payload: bytes, level: int = 6) -> bytes:
    compressor = zlib.compressobj(level, zlib.DEFLATED, -15)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def cut(data: bytes, places: Sequence[int]) -> bytes:
    """A compressed message in fragments, with a ping between any two."""
    ends = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    parts = [data[a:b] for a, b in itertools.pairwise(ends)]
    return frame(b"between", opcode=PING).join(
        frame(part, opcode=0 if n else TEXT, fin=n == len(parts) - 1, reserved=0 if n else RSV1)
        for n, part in enumerate(parts)
    )


async def talk(api: RawClient, *said: bytes) -> tuple[list[dict[str, Any]], int]:
    """Say it all, then the mark, compressed; return the answers and the close code, 0: alive."""
    mark = deflated(json.dumps({"type": "subscribe", "id": MARK}).encode())
    wire = [*said, frame(mark, reserved=RSV1)]
    return await converse(
        api.url, wire, lambda answers: answers[-1].get("id") == MARK,
        headers={**api.credentials, **OFFER},
    )  # fmt: skip


PLACES = st.lists(st.integers(0, 2_000), max_size=6)


@MAY_FIND
@given(said=st.lists(st.tuples(st.text(max_size=300), st.integers(0, 9), PLACES), max_size=6))
async def test_compressed_messages_in_any_fragments_are_answered(
    api: RawClient, said: list[tuple[str, int, list[int]]]
) -> None:
    wire = [
        cut(deflated(json.dumps({"type": text}).encode(), level), places)
        for text, level, places in said
    ]
    answers, code = await talk(api, *wire)

    assert code == 0, (code, answers)
    assert len(answers) == len(said) + 1


# Whole frames, because a node waits for the rest of half a frame, and takes the mark for it.
AFTER = st.builds(
    frame,
    st.binary(max_size=60),
    opcode=st.sampled_from([0, TEXT, 2, 3, 7, PING, PONG, 11, 15]),
    reserved=st.integers(0, 7),
    is_masked=st.booleans(),
    fin=st.booleans(),
)


@MAY_FIND
@given(st.binary(max_size=300), PLACES, AFTER)
async def test_any_compressed_bytes_are_answered_or_close_the_socket(
    api: RawClient, data: bytes, places: list[int], after: bytes
) -> None:
    _, code = await talk(api, cut(data, places), after)

    assert code in VIOLATIONS | {0, 1000, 1003, 1005}, code


@MAY_FIND
@given(st.integers(0, 10**6), st.integers(0, 3), PLACES)
async def test_flipped_and_missing_bits_are_answered_or_close_the_socket(
    api: RawClient, seed: int, missing: int, places: list[int]
) -> None:
    chance = random.Random(seed)
    data = bytearray(deflated(json.dumps({"type": "ping", "pad": "words " * 40}).encode()))
    for _ in range(3):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    _, code = await talk(api, cut(bytes(data[: len(data) - missing]), places))

    assert code in VIOLATIONS | {0}, code


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (frame(deflated(b"{}"), reserved=2), 1002),
        (frame(deflated(b"{}"), reserved=5), 1002),
        (frame(b"x", opcode=PING, reserved=RSV1), 1002),
        (frame(b"\x03\xe8", opcode=CLOSE, reserved=RSV1), 1002),
        (frame(deflated(b"{}"), opcode=0, reserved=RSV1), 1002),
        (frame(b"", fin=False, reserved=RSV1) + frame(b"x", opcode=0, reserved=RSV1), 1002),
        (frame(deflated(b"{}")[:1], reserved=RSV1), 1007),
        (frame(deflated(b"\xff"), reserved=RSV1), 1007),
        (frame(b"\x03\x00" * 1_000, reserved=RSV1), 1007),
        (b"\xc1" + large_frame(b"", announced=8 * BODY_BYTES_MAX + 1)[1:], 1009),
    ],
    ids=[
        *("RSV2", "RSV1 and RSV3", "ping", "close", "continuation", "second fragment"),
        *("cut off", "no UTF-8", "final blocks", "too long"),
    ],
)
async def test_broken_compression_closes_the_socket_with_its_code(
    api: RawClient, broken: bytes, code: int
) -> None:
    assert (await talk(api, broken))[1] == code


async def test_a_bomb_is_dropped_at_the_bound_and_the_node_serves_others(
    api: RawClient, node: Role | None
) -> None:
    """A quarter of a megabyte stands for 256 of them, as one text; the socket lives."""
    zeros = bytes(1_048_576)
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join(compressor.compress(zeros) for _ in range(256))
    bomb += compressor.flush(zlib.Z_SYNC_FLUSH)[:-4]
    largest = before = rss_bytes(node.pid) if node else 0
    talking = asyncio.create_task(talk(api, b"\xc1" + large_frame(bomb)[1:]))
    served = 0
    while not talking.done():
        assert (await api.get("/v1/models")).status == 200
        served += 1
        largest = max(largest, rss_bytes(node.pid) if node else 0)
    answers, code = await talking

    assert [answer["code"] for answer in answers] == ["body_too_large", "not_found"]
    assert code == 0
    assert served > 1
    assert largest - before < 3 * BODY_BYTES_MAX


async def test_sockets_that_leave_in_the_middle_of_a_bomb_leave_no_memory(
    api: RawClient, node: Role | None
) -> None:
    """Each has 31 MiB of one text at the node, which its client never completes."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = compressor.compress(bytes(BODY_BYTES_MAX - 1_048_576))
    bomb += compressor.flush(zlib.Z_SYNC_FLUSH)
    unfinished = b"\x41" + large_frame(bomb)[1:]  # no FIN: more fragments would follow
    before = rss_bytes(node.pid) if node else 0
    for _ in range(8):
        async with raw_connection(api.url) as (reader, writer):
            writer.write(handshake(api.url, {**api.credentials, **OFFER}))
            assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
            writer.write(unfinished + frame(b"between", opcode=PING))
            assert (await read_frame(reader))[0] == PONG  # so the bomb was inflated
            writer.transport.abort()

    assert (await api.get("/v1/models")).status == 200
    assert not node or rss_bytes(node.pid) - before < 3 * BODY_BYTES_MAX
