"""Cursors, ids, keys and Accept as anybody may send them: a documented answer, on any transport.

The rule of a cursor (docs/protocol.md) is written here again, so that the tests do not judge the
code by itself.
"""

from __future__ import annotations

import asyncio
import re
from urllib.parse import quote_from_bytes

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.raw_client import RawClient, hear, tell
from tests.support.raw_wire import raw_connection

MAY_FIND = settings(
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SERVED = {"text/event-stream", "application/x-ndjson", "application/json"}

NUMBER = r"(0|[1-9][0-9]{0,18})"
PARTS = st.one_of(
    st.integers(0, 12).map(str),
    st.sampled_from(["", "0", "00", "01", "+1", "-1", " 1", "1 ", "1_0", "1e1", "0x1", "1.0"]),
    st.sampled_from(
        ["9" * 18, "9" * 19, "9" * 20, "1" + "0" * 18, str(2**63), str(2**64), "9" * 400]
    ),
    st.sampled_from(["١", "²", "１", "\x00", "\x7f", "\n", "$", "*", "(", "NaN"]),
)
CURSORS = st.one_of(
    st.builds(
        lambda a, dash, b: a + dash + b, PARTS, st.sampled_from(["-"] * 6 + ["", "–", "--"]), PARTS
    ),
    st.text(max_size=12),
)


def is_cursor(text: str) -> bool:
    match = re.fullmatch(f"{NUMBER}-{NUMBER}", text, re.ASCII)
    if match is None:
        return False
    attempt, seq = int(match[1]), int(match[2])
    return (attempt == 0 and seq == 0) or (attempt >= 1 and seq >= 1)


def percent(text: str) -> str:
    return quote_from_bytes(text.encode("utf-8", "surrogatepass"), safe="")


@MAY_FIND
@given(cursor=CURSORS)
async def test_a_cursor_means_the_same_over_every_transport(
    api: RawClient, ended: str, cursor: str
) -> None:
    path = f"/v1/generations/{ended}/events?last_event_id={percent(cursor)}"
    stream = await api.get(path, headers={"Accept": "application/x-ndjson"})
    poll = await api.get(path + "&wait=0")
    async with api.socket() as socket:
        text = cursor.encode("utf-8", "replace").decode()
        await tell(socket, type="subscribe", id=ended, last_event_id=text)
        frame = await hear(socket)

    is_good = is_cursor(cursor) or cursor == ""
    if is_good:
        assert (stream.status, poll.status) in ((200, 200), (204, 200))
        assert frame["type"] != "error"
    else:
        assert (stream.status, poll.status) == (400, 400)
        assert {stream.error_code, poll.error_code, frame.get("code")} == {"cursor_invalid"}


# What a client library would not send; without what would end the header.
HEADER = st.binary(max_size=40).map(lambda raw: raw.translate(None, b"\r\n\0"))


@MAY_FIND
@given(cursor=HEADER | CURSORS.map(lambda text: text.encode("utf-8", "ignore")))
async def test_any_bytes_in_last_event_id_are_a_cursor_or_refused(
    api: RawClient, ended: str, cursor: bytes
) -> None:
    cursor = cursor.translate(None, b"\r\n\0")
    status = await ask(api, f"/v1/generations/{ended}/events", b"Last-Event-ID: " + cursor)

    if any(byte < 32 and byte != 9 or byte == 127 for byte in cursor):
        assert status == 400, "no header at all (RFC 9110, 5.5)"
        return
    text = cursor.strip(b" \t").decode("latin-1")
    is_good = is_cursor(text) or text == ""
    assert status in ((200, 204) if is_good else (400,))


@MAY_FIND
@given(accept=HEADER, wants=st.sampled_from(sorted(SERVED)))
async def test_any_bytes_in_accept_choose_or_are_406(
    api: RawClient, ended: str, accept: bytes, wants: str
) -> None:
    path = f"/v1/generations/{ended}/events"

    assert await ask(api, path, b"Accept: " + accept) in (200, 400, 406)
    assert await ask(api, path, b"Accept: " + wants.encode() + b"," + accept) in (200, 400)


@MAY_FIND
@given(key=HEADER)
async def test_any_bytes_in_an_idempotency_key_are_accepted_or_refused(
    api: RawClient, key: bytes
) -> None:
    body = b'{"prompt":"x","params":{"demo":{"tokens":0}}}'
    status = await ask(api, "/v1/generations", b"Idempotency-Key: " + key, body)

    is_good = re.fullmatch(rb"[!-~]{1,255}", key.strip(b" \t")) is not None
    assert status in ((200, 202) if is_good else (400,))


@MAY_FIND
@given(
    name=st.binary(max_size=70),
    rest=st.sampled_from(["", "/events", "/cancel"]),
    collection=st.sampled_from(["generations", "sessions"]),
)
async def test_any_bytes_in_a_path_name_a_generation_or_are_404(
    api: RawClient, name: bytes, rest: str, collection: str
) -> None:
    path = f"/v1/{collection}/{quote_from_bytes(name, safe='')}{rest}"
    answer = await api.call("POST" if rest == "/cancel" else "GET", path)
    if b"\0" in name and answer.status == 400:
        return  # a balancer before the node may refuse a zero byte, as nginx does

    assert answer.status in ((404, 405) if collection == "generations" else (200, 404, 405))
    if answer.status != 200:
        assert answer.error_code in ("not_found", "method_not_allowed")


async def ask(api: RawClient, path: str, header: bytes, body: bytes = b"") -> int:
    """Send one request with `header` as it is; return the status."""
    method = b"POST" if body else b"GET"
    head = [
        method + b" " + path.encode() + b" HTTP/1.1",
        b"Host: localhost",
        b"Connection: close",
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
        *api.credential_lines,
        header,
    ]
    async with asyncio.timeout(10), raw_connection(api.url) as (reader, writer):
        writer.write(b"\r\n".join(head) + b"\r\n\r\n" + body)
        line = await reader.readline()
        return int(line.split()[1])
