"""WebSocket messages, nearly right or quite wrong, for hypothesis; and a client that sends them.

Frames are built byte by byte. Does not import the system under test.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.support.raw_wire import frame, handshake, raw_connection, read_frame

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
ENDED = "@ended"
ANSWER_S = 20.0

Answer = dict[str, Any]


@dataclass(frozen=True)
class SentMessage:
    """A message to send: bytes as they are, or a text, in fragments with a ping between any two.

    Attributes:
        text: `ENDED` in it stands for the id of a generation that is there.
        cuts: where the text is cut.
    """

    raw: bytes = b""
    text: str = ""
    cuts: tuple[int, ...] = ()

    def wire(self, ended: str = "") -> bytes:
        if not self.text:
            return self.raw
        payload = self.text.replace(ENDED, ended).encode("utf-8", "replace")
        places = [0, *sorted({min(cut, len(payload)) for cut in self.cuts}), len(payload)]
        parts = [payload[a:b] for a, b in itertools.pairwise(places)]
        frames = [
            frame(part, opcode=0 if n else TEXT, fin=n == len(parts) - 1)
            for n, part in enumerate(parts)
        ]
        return frame(b"between", opcode=PING).join(frames)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


TEXTS = st.one_of(
    st.text(max_size=30),
    st.integers(1, 3_000).map(lambda depth: '{"type":' + "[" * depth),
    st.integers(1, 3_000).map(lambda depth: "[" * depth + "]" * depth),
    st.sampled_from(
        [
            '{"type":"ping","type":"nothing"}',
            '{"type":"nothing","type":"ping"}',
            '{"type":"subscribe","id":"a","id":"bbbbbbbbb"}',
            '{"type":"start","prompt":"x","params":{"a":1e999}}',
            '{"type":"start","prompt":"x","params":{"a":' + "9" * 5_000 + "}}",
            '{"type":"start","prompt":"x","params":{"demo":{"tokens":-1}}}',
            '{"type":"subscribe","id":"\\ud800\\udc00xxxxxxxx"}',
            '{"type":"subscribe","id":"\\ud800xxxxxxxxx"}',
            '{"type":"subscribe","id":"\\u0000xxxxxxxxx"}',
            '{"type":"start","prompt":"\\u0000"}',
            "﻿{}",
            '{"type":"ping"}garbage',
            '{"type":"ping"',
            '"' + "\\" * 1_001 + '"',
        ]
    ),
)


PLACE = st.integers(0, 60)
CONTROL = st.binary(max_size=125)


def harmless(commands: st.SearchStrategy[str]) -> st.SearchStrategy[SentMessage]:
    """What breaks no rule of RFC 6455: any text, whole or in fragments, pings and pongs."""
    texts = TEXTS | commands
    return st.one_of(
        st.builds(SentMessage, text=texts),
        st.builds(SentMessage, text=texts, cuts=st.tuples(PLACE, PLACE, PLACE)),
        CONTROL.map(lambda data: SentMessage(frame(data, opcode=PING))),
        CONTROL.map(lambda data: SentMessage(frame(data, opcode=PONG))),
    )


async def converse(
    url: str,
    said: Sequence[bytes],
    is_over: Callable[[list[Answer]], bool],
    path: str = "/v1/ws",
    headers: Mapping[str, str] | None = None,
) -> tuple[list[Answer], int]:
    """Say it all on a new socket.

    Args:
        headers: of the handshake, for example credentials.

    Returns:
        The answers until they are over, or until a close frame; and its code, 0 where none came.
    """
    answers: list[Answer] = []
    async with asyncio.timeout(ANSWER_S), raw_connection(url) as (reader, writer):
        writer.write(handshake(url, headers, path=path))
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"".join(said))
        while True:
            opcode, payload = await read_frame(reader)
            if opcode == CLOSE:
                writer.write(frame(payload, opcode=CLOSE))  # what a client owes it
                with contextlib.suppress(ConnectionResetError):  # unless it had said it before
                    assert await reader.read() == b"", "something came after the close frame"
                return answers, int(struct.unpack("!H", payload[:2])[0]) if payload else 1005
            if opcode == TEXT:
                answer = json.loads(payload)
                assert isinstance(answer, dict)
                answers.append(answer)
                if is_over(answers):
                    return answers, 0
            else:
                assert opcode == PONG, opcode
