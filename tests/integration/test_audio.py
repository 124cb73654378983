"""Audio of clients at a node with real sockets and a real Redis; a worker by hand."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import websockets
from httpx2 import AsyncClient
from websockets.asyncio.client import ClientConnection, connect

from api.dialects.native.audio_frames import HEAD_BYTES_MAX
from shared.audio.input import CHUNK_BYTES_MAX, UNREAD_BYTES_MAX, AudioInputs
from shared.audio.record import AUDIO_STEP_BYTES
from shared.config.settings import Settings
from shared.log.events import End, File, Token
from shared.redis import keys
from tailrace_client import AsyncTailrace, Tailrace, TailraceError
from tests.support.audio import (
    MEDIA_TYPE,
    MODEL,
    audio_body,
    audio_frame,
    lose_audio_tail,
)
from tests.support.local_node import LocalNode, ManualWorker, serve_here
from tests.support.redis_server import RedisServer
from tests.support.tls_context import tls_context

ANSWER_S = 10.0
END = End("completed", "stop")


@pytest.fixture(scope="module", params=["off", "on"], ids="deflate={}".format)
async def node(
    redis_server: RedisServer, request: pytest.FixtureRequest
) -> AsyncIterator[LocalNode]:
    """A node without and with permessage-deflate, which the client of these tests offers."""
    settings = Settings(redis_url=redis_server.url, ws_deflate=request.param)
    async with serve_here(settings) as local_node:
        await local_node.node.redis.flushall()
        yield local_node


@pytest.fixture(scope="module")
async def http(node: LocalNode) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(base_url=node.url, verify=tls_context()) as client:
        yield client


@pytest.fixture
async def worker(node: LocalNode) -> ManualWorker:
    return await ManualWorker.take(node.node.store, audio=MEDIA_TYPE)


class Socket:
    def __init__(self, ws: ClientConnection) -> None:
        self._ws = ws

    async def ask(self, frame: Any) -> dict[str, Any]:
        await self.say(frame)
        return json.loads(await self.next())

    async def say(self, frame: Any) -> None:
        await self._ws.send(json.dumps(frame) if isinstance(frame, dict) else frame)

    async def next(self) -> Any:
        async with asyncio.timeout(ANSWER_S):
            return await self._ws.recv()


@pytest.fixture
async def socket(node: LocalNode) -> AsyncIterator[Socket]:
    protocol = [websockets.Subprotocol("tailrace.v1")]
    url = node.url.replace("http", "ws")
    async with connect(f"{url}/v1/ws", subprotocols=protocol, max_size=None) as ws:
        yield Socket(ws)


async def test_a_chunk_of_either_way_continues_the_other(socket, http, worker) -> None:
    name = worker.generation_id
    path = f"/v1/generations/{name}/audio"
    headers = {"content-type": "audio/pcm"}

    one = await socket.ask(audio_frame(name, 1, b"ab"))
    two = await http.post(f"{path}?seq=2&last=true", content=b"c", headers=headers)
    state = await socket.ask({"type": "audio_state", "id": name})

    assert one == {
        "type": "audio_received", "id": name, "seq": 1, "next_seq": 2,
        "window_bytes": UNREAD_BYTES_MAX - 2, "is_complete": False,
    }  # fmt: skip
    assert two.json() == {
        "id": name,
        "received_seq": 2,
        "next_seq": 3,
        "window_bytes": 0,
        "is_complete": True,
    }
    assert (state["next_seq"], state["is_complete"]) == (3, True)
    assert (await http.get(path)).json()["media_type"] == MEDIA_TYPE


WRONG_FRAMES = [
    b"",
    b"{}",
    b"\n",
    b"\xff\xfe\n",
    b"[1]\nx",
    b"no json\nx",
    b'{"type":"file","id":"gen_x","seq":1}\nx',
    b" " * (HEAD_BYTES_MAX + 1) + b"\nx",
    b'{"type":"audio","seq":1}\nx',
    b'{"type":"audio","id":5,"seq":1}\nx',
    b'{"type":"audio","id":"gen_x","seq":1}\nx',
    *(
        b'{"type":"audio","id":"ID","seq":%b}\nx' % seq
        for seq in (b"0", b"-1", b'"1"', b"1.0", b"true", b"null", b"9007199254740992", b"1e3")
    ),
    b'{"type":"audio","id":"ID","seq":1,"last":1}\nx',
    b'{"type":"audio","id":"ID","seq":1,"end":true}\nx',
    b'{"type":"audio","id":"ID","seq":1}\n',
    b'{"type":"audio","id":"ID","seq":1}\n' + b"x" * (CHUNK_BYTES_MAX + 1),
    b'{"type":"audio","id":"ID","seq":1}\n' + b"x" * 300_000,
]


@pytest.mark.parametrize("wrong", WRONG_FRAMES, ids=range(len(WRONG_FRAMES)))
async def test_a_wrong_frame_gets_an_error_and_spoils_nothing(socket, worker, wrong) -> None:
    name = worker.generation_id
    wrong = wrong.replace(b'"ID"', json.dumps(name).encode())

    error = await socket.ask(wrong)
    right = await socket.ask(audio_frame(name, 1, b"a"))

    assert error["type"] == "error" and not error["retryable"]
    assert error["code"] in ("invalid_request", "invalid_json", "not_found", "body_too_large")
    assert (right["type"], right["next_seq"]) == ("audio_received", 2)


async def test_the_largest_chunk_fits_also_with_the_longest_line(socket, worker) -> None:
    head = audio_frame(worker.generation_id, 1, b"").rstrip(b"\n")
    padded = head[:-1] + b" " * (HEAD_BYTES_MAX - len(head)) + b"}"
    data = bytes(range(256)) * (CHUNK_BYTES_MAX // 256)

    answer = await socket.ask(padded + b"\n" + data)

    assert answer["type"] == "audio_received"
    inputs = AudioInputs(worker.store, worker.store.settings)
    taken = await inputs.take(worker.generation_id, worker.token, 0, 0)
    assert taken is not None and taken[0].data == data


async def test_a_client_that_ignores_the_window_is_refused_until_the_worker_reads(
    socket, worker
) -> None:
    name, full = worker.generation_id, UNREAD_BYTES_MAX // CHUNK_BYTES_MAX
    for seq in range(1, full + 1):
        answer = await socket.ask(audio_frame(name, seq, b"x" * CHUNK_BYTES_MAX))
        assert answer["window_bytes"] == UNREAD_BYTES_MAX - seq * CHUNK_BYTES_MAX
    refused = await socket.ask(audio_frame(name, full + 1, b"y"))
    size = await worker.store.redis.xlen(keys.audio(name))

    inputs = AudioInputs(worker.store, worker.store.settings)
    await inputs.take(name, worker.token, 1, CHUNK_BYTES_MAX)
    taken = await socket.ask(audio_frame(name, full + 1, b"y"))

    assert (refused["code"], refused["retry_after_s"], refused["retryable"]) == (
        "audio_full", 1, True,
    )  # fmt: skip
    assert size == full
    assert (taken["type"], taken["window_bytes"]) == ("audio_received", CHUNK_BYTES_MAX - 1)


@pytest.mark.parametrize(
    ("query", "content", "headers", "status"),
    [
        ("", b"a", {}, 422),
        ("seq=0", b"a", {}, 422),
        ("seq=-1", b"a", {}, 422),
        ("seq=x", b"a", {}, 422),
        ("seq=01", b"a", {}, 422),
        ("seq=1&seq=1", b"a", {}, 422),
        ("seq=1&last=false&last=true", b"a", {}, 422),
        ("seq=99999999999999999", b"a", {}, 422),
        ("seq=1&last=yes", b"a", {}, 422),
        ("seq=1", b"", {}, 422),
        ("seq=2", b"a", {}, 409),
        ("seq=1", b"a", {"content-type": "application/json"}, 415),
        ("seq=1", b"x" * (CHUNK_BYTES_MAX + 1), {}, 413),
        ("seq=1&last=true", b"", {}, 200),
    ],
)
async def test_http_answers_with_the_status_of_each_case(
    http, worker, query, content, headers, status
) -> None:
    path = f"/v1/generations/{worker.generation_id}/audio?{query}"
    told = {"content-type": "application/octet-stream", **headers}

    assert (await http.post(path, content=content, headers=told)).status_code == status


async def test_a_gap_names_the_missing_chunk_on_both_ways(socket, http, worker) -> None:
    name = worker.generation_id
    path = f"/v1/generations/{name}/audio?seq=5"

    frame = await socket.ask(audio_frame(name, 5, b"a"))
    answer = await http.post(path, content=b"a", headers={"content-type": "audio/ogg"})

    assert (frame["code"], frame["seq"], frame["next_seq"]) == ("sequence_gap", 5, 1)
    assert answer.json()["error"]["next_seq"] == 1


async def test_a_cancel_and_a_deletion_in_the_middle_end_the_input(socket, http, worker) -> None:
    name = worker.generation_id
    await socket.ask(audio_frame(name, 1, b"a"))

    await http.post(f"/v1/generations/{name}/cancel")
    ended = await socket.ask(audio_frame(name, 2, b"b"))
    state = {"next_seq": 2, "window_bytes": 0, "is_complete": False, "status": "cancelled"}
    asked = await socket.ask({"type": "audio_state", "id": name})
    assert asked == {"type": "audio_state", "id": name, **state}
    path = f"/v1/generations/{name}/audio"
    assert (await http.get(path)).json() == {"id": name, **state, "media_type": MEDIA_TYPE}
    log = await worker.store.redis.dump(keys.log(name))
    await worker.store.redis.delete(keys.log(name))
    snapshot = await http.get(f"/v1/generations/{name}")
    assert (await http.get(path)).json() == snapshot.json() and snapshot.status_code == 410
    assert (await socket.ask({"type": "audio_state", "id": name}))["code"] == "expired"
    await worker.store.redis.restore(keys.log(name), 0, log)

    await http.delete(f"/v1/generations/{name}")
    deleted = await socket.ask(audio_frame(name, 2, b"b"))

    assert (ended["code"], ended["status"]) == ("generation_ended", "cancelled")
    assert deleted["code"] == "not_found"
    assert not await worker.store.redis.exists(keys.audio(name))


async def test_an_owner_without_room_can_still_repeat_chunks_and_end_the_input(
    node, redis_server
) -> None:
    await node.node.redis.flushall()
    worker = await ManualWorker.take(node.node.store, audio=MEDIA_TYPE)
    path = f"/v1/generations/{worker.generation_id}/audio"
    settings = Settings(redis_url=redis_server.url, owner_bytes_max=2 * AUDIO_STEP_BYTES)

    async with serve_here(settings, "n2") as small, AsyncClient(base_url=small.url) as http:

        async def put(query: str, byte: bytes) -> tuple[int, str, int]:
            answer = await http.post(
                f"{path}?{query}",
                content=byte * CHUNK_BYTES_MAX,
                headers={"content-type": "audio/pcm"},
            )
            found = answer.json().get("error", answer.json())
            return answer.status_code, found.get("code", ""), found.get("next_seq", 0)

        fit = (
            AUDIO_STEP_BYTES // CHUNK_BYTES_MAX + 1
        )  # the last of them is recorded as a whole step
        for seq in range(1, fit + 1):
            assert await put(f"seq={seq}", b"x") == (200, "", seq + 1)

        assert await put(f"seq={fit + 1}", b"x") == (429, "owner_full", fit + 1)
        assert await put(f"seq={fit + 1}&last=true", b"x") == (429, "owner_full", fit + 1)
        assert await put("seq=1", b"x") == (200, "", fit + 1)
        assert await put("seq=1", b"y") == (409, "sequence_conflict", 0)
        assert await put(f"seq={fit + 2}", b"x") == (409, "sequence_gap", fit + 1)
        assert await put(f"seq={fit + 1}&last=true", b"") == (200, "", fit + 2)
        assert await put(f"seq={fit + 2}", b"x") == (409, "audio_complete", fit + 2)


async def test_a_generation_without_audio_takes_no_chunk(socket, node) -> None:
    worker = await ManualWorker.take(node.node.store)

    answer = await socket.ask(audio_frame(worker.generation_id, 1, b"a"))

    assert answer["code"] == "no_audio_input"


@pytest.mark.parametrize(
    "members",
    [
        {"model": "demo"},
        {"audio": {"media_type": "video/mp4"}},
        {"audio": {"media_type": "audio/pcm"}},
        {"audio": {"media_type": 5}},
        {"audio": "audio/ogg"},
        {"audio": {}},
        {"audio": {"media_type": "audio/ogg", "name": "x"}},
        {"producer": True},
        {"run_at": 4_000_000_000},
    ],
)
async def test_a_start_with_a_wrong_audio_is_refused(http, members) -> None:
    answer = await http.post("/v1/generations", json=audio_body() | members)

    assert answer.status_code == 422 and "audio" in answer.json()["error"]["message"]


async def test_the_models_that_read_audio_say_so(http) -> None:
    models = (await http.get("/v1/models")).json()["data"]

    assert {model["id"] for model in models if model.get("audio")} == {MODEL}


async def test_binary_and_text_readers_of_one_generation_get_the_same_file(
    node, socket, worker
) -> None:
    name, data = worker.generation_id, bytes(range(256)) * 300
    file = File("a.bin", "audio/wav", data=base64.b64encode(data).decode())
    url = node.url.replace("http", "ws")
    async with connect(f"{url}/v1/ws", max_size=None) as other:
        plain = Socket(other)
        await plain.say({"type": "subscribe", "id": name})
        await socket.say({"type": "hello", "binary": True})
        await socket.say({"type": "subscribe", "id": name})
        await worker.append(file)
        live = [await read_to_file(socket), await read_to_file(plain)]
        await socket.say({"type": "subscribe", "id": name, "binary": False})
        await plain.say({"type": "subscribe", "id": name, "binary": True})
        joined = [await read_to_file(socket), await read_to_file(plain)]
        await worker.append(Token("rest"), END)

        assert json.loads(await socket.next())["text"] == "rest"

    for found in (live[0], joined[1]):
        head, _, content = found.partition(b"\n")
        assert content == data
        assert json.loads(head) == {
            "type": "file", "id": name, "event_id": "1-2", "name": "a.bin",
            "media_type": "audio/wav",
        }  # fmt: skip
    for found in (live[1], joined[0]):
        assert json.loads(found)["data"] == file.data


async def read_to_file(socket: Socket) -> Any:
    """Return the frame of the file, after which the subscription has caught up."""
    found, has_caught_up = None, False
    while found is None or not has_caught_up:
        frame = await socket.next()
        kind = json.loads(frame.partition(b"\n")[0] if isinstance(frame, bytes) else frame)["type"]
        has_caught_up = has_caught_up or kind == "caught_up"
        found = frame if kind == "file" else found
    return found


@pytest.mark.parametrize("value", [1, "yes", []])
async def test_a_wrong_binary_member_is_refused(socket, worker, value) -> None:
    frame = {"type": "subscribe", "id": worker.generation_id, "binary": value}

    assert (await socket.ask(frame))["code"] == "invalid_request"


async def test_the_python_client_sends_again_what_redis_has_lost(node, worker) -> None:
    name, sent = worker.generation_id, [b"%d" % n * 100 for n in range(20)]

    async def microphone() -> AsyncIterator[bytes]:
        for at, data in enumerate(sent):
            if at == 10:
                await lose_audio_tail(worker.store.redis, name, keep=4)
            yield data

    async with AsyncTailrace(node.url) as client:
        await client.send_audio(name, microphone())

    entries = await worker.store.redis.xrange(keys.audio(name))
    assert b"".join(fields[b"e"] for _, fields in entries) == b"".join(sent)
    assert entries[-1][1][b"l"] == b"1"


async def test_the_python_client_without_a_loop_sends_an_input(node, worker) -> None:
    def send() -> None:
        with Tailrace(node.url) as client:
            client.send_audio(worker.generation_id, [b"a" * 100_000, b"b"])

    await asyncio.to_thread(send)

    entries = await worker.store.redis.xrange(keys.audio(worker.generation_id))
    assert [len(fields[b"e"]) for _, fields in entries] == [65_536, 34_464, 1, 0]


async def test_the_python_client_raises_when_the_generation_has_ended(node, worker) -> None:
    await worker.append(END)

    async with AsyncTailrace(node.url) as client:
        with pytest.raises(TailraceError, match="generation_ended"):
            await client.send_audio(worker.generation_id, [b"a"])
