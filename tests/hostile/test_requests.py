"""Requests that two HTTP parsers could read differently: a node refuses them and acts on no part.

Each carries a second request, hidden where a sloppy reader would find it: a prompt for a session of
its own. If that session has a generation afterwards, the request was smuggled in. Then floods: of
headers, of trailers, of requests, of bodies that are too large or too deep.
"""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from tests.support.raw_client import RawClient
from tests.support.raw_wire import exchange, raw_connection

BODY_BYTES_MAX = 33_554_432  # the default
PROMPT = b'{"prompt":"x","session":"%b","params":{"demo":{"tokens":0}}}'


def hidden(api: RawClient, session: bytes) -> bytes:
    """A prompt that would be accepted, with the credentials that it needs."""
    body = PROMPT % session
    lines = [
        b"POST /v1/generations HTTP/1.1",
        b"Host: localhost",
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
        *api.credential_lines,
        b"",
    ]
    return b"\r\n".join(lines) + b"\r\n" + body


def outer(
    *headers: bytes, line: bytes = b"POST /v1/generations/gen_nothing/cancel HTTP/1.1"
) -> bytes:
    return b"\r\n".join([line, b"Host: localhost", *headers, b"", b""])


GET = b"GET /livez HTTP/1.1"
# What stands before the hidden request; SIZE is its length, HEX the same as a chunk has it.
SHAPES = {
    "two lengths": outer(b"Content-Length: SIZE", b"Content-Length: 0"),
    "two lengths, the other way": outer(b"Content-Length: 0", b"Content-Length: SIZE"),
    "a list of lengths": outer(b"Content-Length: SIZE, 0"),
    "chunked and a length": outer(b"Content-Length: SIZE", b"Transfer-Encoding: chunked")
    + b"0\r\n\r\n",
    "a length and chunked": outer(b"Transfer-Encoding: chunked", b"Content-Length: SIZE")
    + b"0\r\n\r\n",
    "nearly chunked": outer(b"Transfer-Encoding: xchunked", b"Content-Length: SIZE"),
    "chunked, and then something": outer(b"Transfer-Encoding: chunked, identity") + b"0\r\n\r\n",
    "two encodings": outer(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity")
    + b"0\r\n\r\n",
    "an odd space": outer(b"Transfer-Encoding:\x0bchunked", b"Content-Length: SIZE"),
    "a space before the colon": outer(b"Content-Length : SIZE"),
    "a folded header": outer(b"X: y\r\n Content-Length: SIZE"),
    "a bare line feed": outer(b"X: y\nContent-Length: SIZE"),
    "a bare carriage return": outer(b"X: y\rContent-Length: SIZE"),
    "a NUL": outer(b"X: \0y", b"Content-Length: SIZE"),
    "a signed length": outer(b"Content-Length: +SIZE"),
    "a length below zero": outer(b"Content-Length: -1"),
    "a length in hex": outer(b"Content-Length: 0xHEX"),
    "a length beyond 64 bits": outer(b"Content-Length: 18446744073709551616"),
    "a length that wraps around": outer(b"Content-Length: 1844674407370955SIZE"),
    "an empty length": outer(b"Content-Length:"),
    "an absurd chunk": outer(b"Transfer-Encoding: chunked") + b"FFFFFFFFFFFFFFFFF\r\n",
    "a chunk below zero": outer(b"Transfer-Encoding: chunked") + b"-HEX\r\n",
    "a chunk with a prefix": outer(b"Transfer-Encoding: chunked") + b"0xHEX\r\n",
    "a chunk without its end": outer(b"Transfer-Encoding: chunked") + b"1\r\nx0\r\n\r\n",
    "a GET with a body": outer(b"Content-Length: SIZE", line=GET),
    "a GET with a chunk": outer(b"Transfer-Encoding: chunked", line=GET) + b"HEX\r\n",
    "a HEAD with a body": outer(b"Content-Length: SIZE", line=b"HEAD /livez HTTP/1.1"),
    "chunked in HTTP/1.0": outer(b"Transfer-Encoding: chunked", line=GET[:-1] + b"0") + b"HEX\r\n",
    "after the last answer": outer(b"Connection: close", line=GET),
    "after a handshake": outer(
        b"Connection: Upgrade", b"Upgrade: websocket", b"Content-Length: SIZE", line=GET
    ),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "after a CONNECT": outer(line=b"CONNECT x:80 HTTP/1.1"),
}


async def test_a_hidden_request_is_not_served(api: RawClient) -> None:
    """All shapes at once, because each waits for a silence.

    The sessions are read one after the other: a node keeps one connection to Redis for each of the
    requests that it once answered at the same time, and the fixture `node` bounds their number.
    """
    async with asyncio.TaskGroup() as group:
        for shape in SHAPES:
            group.create_task(smuggle(api, shape))

    for shape in SHAPES:
        page = (await api.get(f"/v1/sessions/smuggled%20{shape.replace(' ', '%20')}")).json()
        assert page["generations"] == [], shape


async def smuggle(api: RawClient, shape: str) -> None:
    second = hidden(api, f"smuggled {shape}".encode())
    first = SHAPES[shape].replace(b"SIZE", b"%d" % len(second)).replace(b"HEX", b"%x" % len(second))

    received = await exchange(api.url, first + second + b"\r\n0\r\n\r\n", within_s=0.5)

    assert b"HTTP/1.1 5" not in received, shape
    assert b"HTTP/1.1 202" not in received, shape


async def test_a_pipelined_second_request_is_served(api: RawClient) -> None:
    """So that the tests above look for something that can be found."""
    await exchange(api.url, outer(line=GET) + hidden(api, b"in its own right"), within_s=0.5)

    page = (await api.get("/v1/sessions/in%20its%20own%20right")).json()
    assert len(page["generations"]) == 1


UPLOAD = (
    b'--b\r\nContent-Disposition: form-data; name="purpose"\r\nupgrade: h2c\r\n\r\nbatch\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\nupgrade: h2c\r\n\r\n'
    b"\r\nupgrade: h2c\r\n\r\n--b--\r\n"
)
KEPT = b"\r\nupgrade: h2c\r\n"


@pytest.mark.parametrize("asks", [(), (b"Connection: Upgrade", b"Upgrade: h2c")])
@pytest.mark.parametrize("cut", [0, 2], ids=["at once", "in two"])
async def test_a_body_that_reads_like_a_header_is_kept(
    api: RawClient, asks: tuple[bytes, ...], cut: int
) -> None:
    said = outer(
        b"Content-Type: multipart/form-data; boundary=b",
        b"Content-Length: %d" % len(UPLOAD),
        *asks,
        *api.credential_lines,
        line=b"POST /v1/files HTTP/1.1",
    )
    split = len(said) - cut
    async with asyncio.timeout(5), raw_connection(api.url) as (reader, writer):
        # A pipelined one, too: it comes in the same read.
        writer.write(said[:split])
        await writer.drain()
        if cut:
            await asyncio.sleep(0.1)  # that the body comes with the end of the head is tested
        writer.write(said[split:] + UPLOAD + said + UPLOAD)
        for _ in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 "), head
            found = re.search(rb"content-length: (\d+)", head.lower())
            assert found is not None
            file = json.loads(await reader.readexactly(int(found[1])))
            content = await api.get(f"/v1/files/{file['id']}/content")
            assert content.body == KEPT
            await api.call("DELETE", f"/v1/files/{file['id']}")


BODIES = {
    "deep": (b"[" * 500_000 + b"]" * 500_000, 400),
    "deep and never closed": (b'{"a":' * 150_000, 400),
    "deep within": (b'{"prompt":"x","metadata":' + b'{"a":' * 130 + b"1" + b"}" * 131, 400),
    "wide": (b'{"prompt":"x","messages":[' + b"{}," * 300_000 + b"{}]}", 400),
    "less wide": (b'{"messages":[' + b"{}," * 20_000 + b"{}]}", 422),
    "many names": (
        json.dumps({"prompt": "x", "params": {f"p{n}": n for n in range(24_000)}}).encode(),
        202,
    ),
    "too many names": (
        json.dumps({"prompt": "x", "params": {f"p{n}": n for n in range(50_000)}}).encode(),
        400,
    ),
    "one name again and again": (b"{" + b'"prompt":"x",' * 24_000 + b'"prompt":"y"}', 202),
    "one name too often": (b"{" + b'"prompt":"x",' * 60_000 + b'"prompt":"y"}', 400),
    "a long number": (b'{"prompt":"x","params":{"a":' + b"9" * 1_000_000 + b"}}", 400),
    "a long fraction": (b'{"prompt":"x","params":{"a":0.' + b"9" * 40_000 + b"}}", 202),
    "too long a fraction": (b'{"prompt":"x","params":{"a":0.' + b"9" * 1_000_000 + b"}}", 400),
    "escapes": (b'{"prompt":"' + b"\\u0041" * 170_000 + b'"}', 202),
    "halves of pairs": (b'{"prompt":"' + b"\\ud800" * 19_000 + b'"}', 422),
    "too many halves of pairs": (b'{"prompt":"' + b"\\ud800" * 170_000 + b'"}', 400),
    "backslashes": (b'{"prompt":"' + b"\\" * 1_000_001, 400),
    "spaces": (b" " * 1_040_000 + b'{"prompt":"x"}', 202),
    "a byte too much": (b'{"prompt":"' + b"x" * (BODY_BYTES_MAX - 12) + b'"}', 413),
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_hostile_body_gets_an_answer(api: RawClient, name: str) -> None:
    raw, status = BODIES[name]

    answer = await api.post(raw=raw, headers={"Content-Type": "application/json"})

    assert answer.status == status, answer.body[:200]
    if status == 202:
        await api.ended(answer.json()["id"])


async def test_announced_bodies_without_end_are_refused_at_once(api: RawClient) -> None:
    head = outer(
        b"Content-Type: application/json",
        b"Content-Length: 999999999999999",
        b"Connection: close",
        *api.credential_lines,
        line=b"POST /v1/generations HTTP/1.1",
    )

    received = await exchange(api.url, head + b"{", within_s=5)

    assert received.startswith(b"HTTP/1.1 413 ")
