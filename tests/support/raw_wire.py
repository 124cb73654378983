"""Requests byte by byte, which no well-behaved client library would send.

WebSocket handshakes with a wrong header, frames that are unmasked or have reserved bits, half a
request head. Does not import the system under test.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlsplit

ANSWER_S = 15.0


async def exchange(url: str, data: bytes, *, within_s: float = ANSWER_S) -> bytes:
    """Send raw bytes and return all that comes back until the server closes or falls silent."""
    async with raw_connection(url) as (reader, writer):
        writer.write(data)
        received = bytearray()
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            async with asyncio.timeout(within_s):
                while piece := await reader.read(65_536):
                    received += piece
        return bytes(received)


async def first_line(url: str, data: bytes, *, within_s: float = ANSWER_S) -> bytes:
    """Send raw bytes and return the first line of the answer; the connection may stay open."""
    async with asyncio.timeout(within_s), raw_connection(url) as (reader, writer):
        writer.write(data)
        return await reader.readline()


@contextlib.asynccontextmanager
async def raw_connection(
    url: str,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare TCP connection to the node at `url`."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def stopped_socket() -> socket.socket:
    """A socket, not yet connected, whose kernel takes little."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    # Small segments: else the sender's kernel takes megabytes on its own, and nobody is slow.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    sock.setblocking(False)
    return sock


@contextlib.asynccontextmanager
async def stopped_connection(
    url: str,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection whose kernel takes little and whose program reads only when asked to."""
    sock = stopped_socket()
    parts = urlsplit(url)
    await asyncio.get_running_loop().sock_connect(sock, (parts.hostname, parts.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=2048)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def handshake(
    url: str,
    changes: Mapping[str, str | None] | None = None,
    method: str = "GET",
    path: str = "/v1/ws",
) -> bytes:
    """A WebSocket upgrade request; `changes` replaces headers, None leaves one out."""
    headers: dict[str, str | None] = {
        "Host": urlsplit(url).netloc,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Protocol": "tailrace.v1",
        **(changes or {}),
    }
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode()


def frame(
    payload: bytes, *, opcode: int = 1, reserved: int = 0, is_masked: bool = True, fin: bool = True
) -> bytes:
    """One WebSocket frame as a client sends it, or as it must not."""
    first = bytes([(0x80 if fin else 0) | reserved << 4 | opcode])
    mask_bit = 0x80 if is_masked else 0
    if len(payload) < 126:
        length = bytes([mask_bit | len(payload)])
    elif len(payload) < 65_536:
        length = bytes([mask_bit | 126]) + struct.pack("!H", len(payload))
    else:
        length = bytes([mask_bit | 127]) + struct.pack("!Q", len(payload))
    if not is_masked:
        return first + length + payload
    mask = os.urandom(4)
    return first + length + mask + _masked(payload, mask)


def _masked(payload: bytes, mask: bytes) -> bytes:
    """Mask a payload at once: byte by byte, a frame of a megabyte takes 0.1 s."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def large_frame(
    payload: bytes, *, opcode: int = 1, fin: bool = True, announced: int | None = None
) -> bytes:
    """A frame with a mask of zeros, built at once however long it is.

    Args:
        announced: the length in its head, if it is not the length of the payload.
    """
    first = bytes([(0x80 if fin else 0) | opcode, 0xFF])
    length = struct.pack("!Q", len(payload) if announced is None else announced)
    return first + length + bytes(4) + payload


async def raw_socket_close_code(
    url: str, sent: bytes, headers: Mapping[str, str], path: str = "/v1/ws"
) -> int:
    """Open a socket by hand, send `sent`, return the code of the server's close frame; 0: none."""
    async with raw_connection(url) as (reader, writer):
        writer.write(handshake(url, dict(headers), path=path))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), ANSWER_S)
        assert b" 101 " in head.split(b"\r\n")[0], head
        writer.write(sent)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionResetError):
            async with asyncio.timeout(ANSWER_S):
                while True:
                    opcode, payload = await read_frame(reader)
                    if opcode == 8:
                        return int(struct.unpack("!H", payload[:2])[0]) if payload else 1005
        return 0


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read one frame of the server's: its opcode and payload."""
    first, length = await reader.readexactly(2)
    assert not length & 0x80, "a server must not mask"
    if length == 126:
        length = struct.unpack("!H", await reader.readexactly(2))[0]
    elif length == 127:
        length = struct.unpack("!Q", await reader.readexactly(8))[0]
    return first & 0x0F, await reader.readexactly(length)


def dechunk(received: bytes) -> tuple[bytes, bool]:
    """Take a chunked answer apart: its body so far, and whether it was finished."""
    body, rest = b"", received.partition(b"\r\n\r\n")[2]
    while b"\r\n" in rest:
        size_text, _, rest = rest.partition(b"\r\n")
        size = int(size_text, 16)
        if size == 0:
            return body, True
        body += rest[:size]
        if len(rest) < size + 2:
            break
        rest = rest[size + 2 :]
    return body, False
