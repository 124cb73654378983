"""Complete request heads of every kind: each gets a status line before its connection ends.

docs/protocol.md promises it, and a balancer that sees a connection end without an answer takes the
node for broken. A request may be refused, and the connection may be closed behind the answer.

Most of these ask a node itself: a balancer reads requests by rules of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.processes import Role
from tests.support.raw_client import RawClient
from tests.support.raw_wire import exchange, handshake, raw_connection

ANSWER_S = 8.0
AT_ONCE = 50
STATUS = re.compile(rb"HTTP/1\.1 [1-5]\d\d ")

SOCKETS = ("/v1/ws", "/v1/responses", "/lobe/ws", "/ai-sdk/ws", "/deep-chat/ws")
PATHS = (
    *SOCKETS,
    "/livez",
    "/v1/generations",
    "/nothing",
    "/",
    "*",
    "http://x/v1/ws",
    "/%ff",
    "//",
)
METHODS = (
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "PRI",
    "X",
)
BODIES: dict[str, tuple[dict[str, str | None], bytes]] = {
    "none": ({}, b""),
    "empty": ({"Content-Length": "0"}, b""),
    "zeros": ({"Content-Length": "000"}, b""),
    "length": ({"Content-Length": "5"}, b"hello"),
    "length that stops": ({"Content-Length": "50"}, b"hello"),
    "length that never comes": ({"Content-Length": "50"}, b""),
    "chunks": ({"Transfer-Encoding": "chunked"}, b"5\r\nhello\r\n0\r\n\r\n"),
    "chunks that stop": ({"Transfer-Encoding": "chunked"}, b"5\r\nhe"),
    "chunks and a trailer": ({"Transfer-Encoding": "chunked"}, b"0\r\nx: y\r\n\r\n"),
    "bad chunks": ({"Transfer-Encoding": "chunked"}, b"zz\r\n"),
    "gzip": ({"Transfer-Encoding": "gzip"}, b"hello"),
    "both": ({"Transfer-Encoding": "chunked", "Content-Length": "5"}, b"0\r\n\r\n"),
    "expected": ({"Content-Length": "5", "Expect": "100-continue"}, b"hello"),
    "expected, and never sent": ({"Content-Length": "5", "Expect": "100-continue"}, b""),
    "expected otherwise": ({"Content-Length": "5", "Expect": "tea"}, b"hello"),
}
CHANGES: dict[str, dict[str, str | None]] = {
    "right": {},
    "no key": {"Sec-WebSocket-Key": None},
    "short key": {"Sec-WebSocket-Key": "short"},
    "no ASCII key": {"Sec-WebSocket-Key": "\xff\xfe"},
    "no version": {"Sec-WebSocket-Version": None},
    "version 8": {"Sec-WebSocket-Version": "8"},
    "version of text": {"Sec-WebSocket-Version": "thirteen"},
    "bad protocol": {"Sec-WebSocket-Protocol": ",;= \x80"},
    "bad extensions": {"Sec-WebSocket-Extensions": "=;=,permessage-deflate; ="},
    "deflate": {"Sec-WebSocket-Extensions": "permessage-deflate"},
    "no host": {"Host": None},
    "odd host": {"Host": "[::"},
    "no upgrade": {"Upgrade": None},
    "no connection": {"Connection": None},
    "upgrade of nothing": {"Upgrade": ""},
    "h2c": {"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": "AAMA"},
    "TLS": {"Upgrade": "TLS/1.0"},
    "both protocols": {"Upgrade": "websocket, h2c"},
    "two upgrades": {"Upgrade": "h2c", "upgrade": "websocket"},
    "two upgrades, the other way": {"Upgrade": "websocket", "upgrade": "h2c"},
    "two connections": {"Connection": "upgrade", "connection": "keep-alive"},
    "closes, too": {"Connection": "close, upgrade"},
    "foreign origin": {"Origin": "http://example.org"},
    "odd origin": {"Origin": "\xff://["},
    "bad key": {"Authorization": "Bearer nobody's"},
    "long header": {"X": "y" * 20_000},
    "obsolete text": {"X": "\x80\xff"},
    "a tab": {"X": "a\tb"},
    "odd name": {"!#$%&'*+-.^_`|~": "x"},
}


def head(
    changes: dict[str, str | None], *, line: str = "GET /v1/ws HTTP/1.1", more: int = 0
) -> bytes:
    """A handshake whose first line is `line`; as latin-1, so that each character is a byte."""
    lines = handshake("http://x", {"Connection": "upgrade", **changes}).decode().split("\r\n")
    lines[1:1] = ["x: y"] * more
    return "\r\n".join([line, *lines[1:]]).encode("latin-1")


async def answered(url: str, data: bytes, *, within_s: float = ANSWER_S) -> bytes:
    """Return the first line of the answer; empty where the connection ends without one."""
    try:
        async with asyncio.timeout(within_s), raw_connection(url) as (reader, writer):
            writer.write(data)
            return await reader.readline()
    except (ConnectionError, TimeoutError) as exc:
        return repr(exc).encode()


async def all_answered(url: str, requests: dict[str, bytes]) -> None:
    silent: dict[str, bytes] = {}
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(name: str, data: bytes) -> None:
        async with turn:
            line = await answered(url, data)
        if not STATUS.match(line):
            silent[name] = line

    async with asyncio.TaskGroup() as group:
        for name, data in requests.items():
            group.create_task(one(name, data))
    assert silent == {}


async def test_every_body_behind_every_upgrade_gets_an_answer(node: Role) -> None:
    requests = {
        f"{how}, body {body}": head(changes | headers) + sent
        for how, changes in CHANGES.items()
        for body, (headers, sent) in BODIES.items()
    }

    await all_answered(node.url, requests)


async def test_every_method_at_every_path_gets_an_answer(node: Role) -> None:
    requests = {
        f"{method} {path} HTTP/{version} {how} body {body}": head(
            CHANGES[how] | BODIES[body][0], line=f"{method} {path} HTTP/{version}"
        )
        + BODIES[body][1]
        for method in METHODS
        for path in PATHS
        for version in ("1.1", "1.0")
        for how in ("right", "no upgrade", "h2c")
        for body in ("none", "length")
    }

    await all_answered(node.url, requests)


LINES = {
    "del": "GET /v1/ws\x7f HTTP/1.1",
    "no ASCII": "GET /v1/ws?\xff HTTP/1.1",
    "long": "GET /" + "w" * 20_000 + " HTTP/1.1",
    "too long": "GET /" + "w" * 70_000 + " HTTP/1.1",
    "percent": "GET /%zz%ff%00?%zz HTTP/1.1",
    "fragment": "GET /v1/ws#x HTTP/1.1",
    "another version": "GET / HTTP/2.0",
    "version 0.9": "GET /",
    "authority": "CONNECT x:80 HTTP/1.1",
    "a path to connect to": "CONNECT /v1/ws HTTP/1.1",
    "http 3": "PRI * HTTP/2.0",
}


@pytest.mark.parametrize("how", ["right", "no upgrade", "h2c"])
async def test_odd_lines_and_too_many_headers_get_an_answer(node: Role, how: str) -> None:
    requests = {name: head(CHANGES[how], line=line) for name, line in LINES.items()}
    requests["101 headers"] = head(CHANGES[how], more=101)
    requests["a header without a name"] = b"GET / HTTP/1.1\r\n: x\r\n\r\n"
    requests["no header at all"] = b"GET / HTTP/1.1\r\n\r\n"

    await all_answered(node.url, requests)


async def test_a_refused_handshake_says_why_in_json(node: Role) -> None:
    headers, body = BODIES["length"]

    received = await exchange(node.url, head(headers) + body, within_s=ANSWER_S)

    said, _, rest = received.partition(b"\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in said
    assert json.loads(rest)["error"]["code"] == "invalid_http"


@pytest.mark.parametrize("body", ["length", "chunks"])
async def test_handshakes_with_a_body_do_not_affect_other_requests(
    api: RawClient, body: str
) -> None:
    """At a deployment, the balancer must not take its nodes for broken."""
    headers, sent = BODIES[body]
    for _ in range(30):
        assert (await answered(api.url, head(headers) + sent)).startswith(b"HTTP/1.1 400 ")
        assert (await api.get("/livez")).status == 200


GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def test_requests_before_a_refused_request_are_answered_first(node: Role) -> None:
    wrong = {}
    for (how, changes), body in itertools.product(
        CHANGES.items(), ("none", "length", "bad chunks")
    ):
        headers, sent = BODIES[body]
        # A handshake is refused here, whatever it is: others wait before it.
        lines = await status_lines(node.url, GET * 3 + head(changes | headers) + sent, 4)
        if lines[:3] != [b"200"] * 3 or len(lines) < 4:
            wrong[f"{how}, body {body}"] = lines
    assert wrong == {}


async def test_pipelined_requests_are_answered_up_to_the_bound(
    node: Role,
) -> None:
    lines = await status_lines(node.url, GET * 150, 102)

    assert lines == [b"200"] * 101 + [b"400"]


async def status_lines(url: str, data: bytes, count: int) -> list[bytes]:
    """Return the first `count` statuses that come back on one connection."""
    found: list[bytes] = []
    async with asyncio.timeout(ANSWER_S), raw_connection(url) as (reader, writer):
        writer.write(data)
        received = b""
        while len(found) < count:
            piece = await reader.read(65_536)
            received += piece
            found = re.findall(rb"HTTP/1\.1 (\d\d\d) ", received)
            if not piece:
                break
    return found[:count]


async def test_a_refusal_reaches_a_peer_that_keeps_sending(node: Role) -> None:
    """To close with something unread resets a connection, and the peer may never see the answer."""
    headers, _ = BODIES["length"]
    async with asyncio.timeout(ANSWER_S), raw_connection(node.url) as (reader, writer):
        writer.write(head(headers | {"Content-Length": "5000000"}))
        await asyncio.sleep(0)
        for _ in range(50):
            writer.write(b"x" * 100_000)
            await writer.drain()

        assert STATUS.match(await reader.readline())


NAMES = st.sampled_from(
    ["Upgrade", "Connection", "Content-Length", "Transfer-Encoding", "Expect", "Host", "X"]
    + ["Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Protocol", "Origin"]
)
VALUES = st.one_of(
    st.sampled_from(
        ["websocket", "upgrade", "h2c", "keep-alive, Upgrade", "close", "0", "3", "13"]
    ),
    st.sampled_from(["chunked", "100-continue", "gzip, chunked", ""]),
    st.text(st.characters(max_codepoint=255), max_size=20).map(lambda text: text.strip()),
).map(lambda text: re.sub("[\r\n\0]", "", text))


@settings(
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
)
@given(
    fields=st.lists(st.tuples(NAMES, VALUES), max_size=8),
    path=st.sampled_from(PATHS),
    method=st.sampled_from(METHODS),
)
async def test_any_head_is_answered(
    node: Role, fields: list[tuple[str, str]], path: str, method: str
) -> None:
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields), "", ""]

    assert STATUS.match(await answered(node.url, "\r\n".join(lines).encode("latin-1")))
