"""permessage-deflate over real sockets: its handshake, and messages in both directions."""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import NegotiationError
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.headers import build_extension, parse_extension
from websockets.typing import ExtensionName

from api.transport.extensions import DEFLATE
from api.transport.websocket import WebSocketProtocol
from api.transport.websocket_deflate import negotiate
from tests.support.protocol_server import (
    Echo,
    Peer,
    close_code,
    connected,
    frame,
    handshake,
    serving,
)

TEXT, PING, RSV1 = 1, 9, 4
DEFLATING = functools.partial(WebSocketProtocol, is_deflating=True)
HEADER = "sec-websocket-extensions"
OFFER = "permessage-deflate; client_max_window_bits"


def deflated(text: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def answer_to(offer: str) -> str:
    (name, params), *others = parse_extension(offer)
    assert name == "permessage-deflate" and not others
    return build_extension([(name, negotiate(params)[0])])


# The handshake

OURS = "permessage-deflate; client_no_context_takeover"


@pytest.mark.parametrize(
    ("offer", "answer", "may_chain"),
    [
        ("permessage-deflate", OURS, True),
        (OFFER, OURS, True),
        ("permessage-deflate; client_max_window_bits=8", OURS, True),
        ("permessage-deflate; client_no_context_takeover", OURS, True),
        (
            "permessage-deflate; server_no_context_takeover",
            f"{OURS}; server_no_context_takeover",
            False,
        ),
        (
            "permessage-deflate; server_max_window_bits=15",
            f"{OURS}; server_max_window_bits=15",
            True,
        ),
        (
            "permessage-deflate; server_max_window_bits=11",
            f"{OURS}; server_max_window_bits=11",
            True,
        ),
        (
            'permessage-deflate; server_max_window_bits="9"',
            f"{OURS}; server_max_window_bits=9",
            False,
        ),
    ],
)
def test_an_offer_is_answered(offer: str, answer: str, may_chain: bool) -> None:
    (_, params), *_ = parse_extension(offer)
    answered, extension = negotiate(params)

    assert build_extension([(ExtensionName("permessage-deflate"), answered)]) == answer
    assert extension.may_chain is may_chain


@pytest.mark.parametrize(
    "offer",
    [
        "server_max_window_bits",
        "server_max_window_bits=8",  # zlib writes no such window
        "server_max_window_bits=7",
        "server_max_window_bits=16",
        "server_max_window_bits=010",
        "server_max_window_bits=x",
        "client_max_window_bits=7",
        "client_max_window_bits=16",
        "client_max_window_bits=08",
        "server_no_context_takeover=1",
        "client_no_context_takeover=true",
        "client_no_context_takeover; client_no_context_takeover",
        "client_max_window_bits; client_max_window_bits=10",
        "foo",
        "foo=bar",
    ],
)
def test_a_malformed_offer_is_declined(offer: str) -> None:
    with pytest.raises(NegotiationError):
        answer_to(f"permessage-deflate; {offer}")


@given(st.booleans(), st.booleans(), st.sampled_from([None, *range(9, 16)]), st.sampled_from([None, True, *range(9, 16)]))  # fmt: skip # noqa: E501
def test_the_client_of_websockets_accepts_every_answer(
    server_context: bool, client_context: bool, server_bits: Any, client_bits: Any
) -> None:
    client = ClientPerMessageDeflateFactory(
        not server_context, not client_context, server_bits, client_bits
    )
    answered, extension = negotiate(client.get_request_params())
    theirs = client.process_response_params(answered, [])

    assert theirs.local_no_context_takeover
    assert theirs.remote_no_context_takeover is not server_context
    assert not (extension.may_chain and theirs.remote_no_context_takeover)
    assert extension.window_bits <= theirs.remote_max_window_bits


async def answered(peer: Peer, *offers: str) -> str | None:
    """Make a handshake; return the extensions in the answer."""
    peer.say(handshake(*[(HEADER, offer) for offer in offers]))
    head = (await peer.until(b"\r\n\r\n")).decode()
    assert " 101 " in head, head
    found = re.search(r"(?im)^sec-websocket-extensions: (.*?)\r?$", head)
    return found and found[1]


@pytest.mark.parametrize(
    ("offers", "answer"),
    [
        ([OFFER], OURS),
        (["permessage-deflate; foo, permessage-deflate; client_max_window_bits"], OURS),
        (["permessage-bzip2, permessage-deflate"], OURS),
        (["permessage-deflate, permessage-deflate; server_no_context_takeover"], OURS),
        (["permessage-deflate; server_max_window_bits=8"], None),
        (["x-webkit-deflate-frame"], None),
        ([], None),
    ],
)
async def test_the_first_valid_offer_of_a_handshake_is_accepted(
    offers: Sequence[str], answer: str | None
) -> None:
    async with serving(Echo(), socket_protocol=DEFLATING) as port, connected(port) as peer:
        assert await answered(peer, *offers) == answer


async def test_without_the_setting_nothing_is_negotiated_and_rsv1_closes_with_1002() -> None:
    async with serving(Echo()) as port, connected(port) as peer:
        assert await answered(peer, OFFER) is None
        peer.say(frame(TEXT, deflated(b"hello"), reserved=RSV1))
        assert await close_code(peer) == 1002


class Declining(Echo):
    async def socket(self, receive: Any, send: Any) -> None:
        async def say(message: Any) -> None:
            if message["type"] == "websocket.accept":
                message = {**message, DEFLATE: False}
            await send(message)

        await super().socket(receive, say)


async def test_an_application_may_decline() -> None:
    async with serving(Declining(), socket_protocol=DEFLATING) as port, connected(port) as peer:
        assert await answered(peer, OFFER) is None
        peer.say(frame(TEXT, deflated(b"hello"), reserved=RSV1))
        assert await close_code(peer) == 1002


# Messages


@pytest.mark.parametrize("server_context", [True, False])
@pytest.mark.parametrize("server_bits", [None, 9])
async def test_the_client_of_websockets_and_this_side_read_each_other(
    server_context: bool, server_bits: int | None
) -> None:
    app = Echo()
    offer = ClientPerMessageDeflateFactory(not server_context, False, server_bits, True)
    said = ["", "x", "hello " * 3, "流" * 200, "word " * 150, '{"type":"ping"}', "x" * 999]
    async with (
        serving(app, socket_protocol=DEFLATING) as port,
        connect(f"ws://127.0.0.1:{port}", extensions=[offer], proxy=None) as socket,
    ):
        for text in said:
            await socket.send(text)
        await socket.send([part + " " for part in said if part])
        heard = [await socket.recv() for _ in range(len(said) + 1)]

    whole = "".join(part + " " for part in said if part)
    # The server of this test takes a thousand bytes of a message.
    assert heard == ["binary" if text == "" else text for text in said] + (
        [whole] if len(whole.encode()) <= 1000 else heard[-1:]
    )


async def test_a_compressed_message_in_fragments_has_control_frames_in_between() -> None:
    app, data = Echo(), deflated(b"hello hello hello")
    async with serving(app, socket_protocol=DEFLATING) as port, connected(port) as peer:
        await answered(peer, OFFER)
        parts = [data[n : n + 1] for n in range(len(data))] + [b""]
        wire = frame(TEXT, parts[0], fin=False, reserved=RSV1)
        for n, part in enumerate(parts[1:], 2):
            wire += frame(PING, b"p") + frame(0, part, fin=n == len(parts))
        peer.say(wire + frame(TEXT, b"plain"))

        assert await peer.until(b"plain")
    assert app.received == ["hello hello hello", "plain"]


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (frame(TEXT, b"\xff\xff\xff", reserved=RSV1), 1007),
        (frame(TEXT, deflated(b"hello")[:-2], reserved=RSV1), 1007),
        (frame(TEXT, deflated(b"\xff"), reserved=RSV1), 1007),
        (frame(TEXT, deflated(b"hello"), reserved=5), 1002),
        (frame(TEXT, deflated(b"hello"), reserved=2), 1002),
        (frame(PING, b"x", reserved=RSV1), 1002),
        (frame(8, b"\x03\xe8", reserved=RSV1), 1002),
        (frame(0, deflated(b"hello"), reserved=RSV1), 1002),
        (
            frame(TEXT, b"", fin=False, reserved=RSV1) + frame(0, deflated(b"x"), reserved=RSV1),
            1002,
        ),
        (
            frame(TEXT, b"\xca", fin=False, reserved=RSV1) + frame(TEXT, b"x", reserved=RSV1),
            1002,
        ),
    ],
    ids=[
        *("no deflate", "cut off", "no UTF-8", "RSV1 and RSV3", "RSV2", "ping", "close"),
        *("continuation", "second fragment", "begun twice"),
    ],
)
async def test_broken_compression_closes_with_its_code(broken: bytes, code: int) -> None:
    async with serving(Echo(), socket_protocol=DEFLATING) as port, connected(port) as peer:
        await answered(peer, OFFER)
        peer.say(broken)
        assert await close_code(peer) == code


async def test_a_reply_is_compressed_only_if_that_makes_it_shorter() -> None:
    async with serving(Echo(), socket_protocol=DEFLATING) as port, connected(port) as peer:
        await answered(peer, OFFER)
        for text, first in ((b"short" * 9, 0x81), (b"long " * 199, 0xC1)):
            peer.say(frame(TEXT, text))
            head = await peer.reader.readexactly(2)
            size = head[1] if head[1] < 126 else int.from_bytes(await peer.reader.readexactly(2))
            payload = await peer.reader.readexactly(size)
            assert head[0] == first
            if first == 0xC1:
                payload = zlib.decompress(payload + b"\x00\x00\xff\xff\x03\x00", -15)
            assert payload == text
