"""A client written from docs/protocol.md alone, for any node: plain HTTP and plain frames.

Adds nothing of its own to a request: no Accept, no content type, unless the test says so.
Does not import the system under test.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import websockets
import yarl
from websockets.asyncio.client import ClientConnection, connect

from tests.support.deliveries import Delivery
from tests.support.sse import SseParser
from tests.support.wait import until

AUTOMATIC = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
ANSWER_S = 15.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One response, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_broken: bool = False

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error_code(self) -> str:
        """The code of a native error; the shape is checked on the way."""
        body = self.json()
        assert set(body) == {"error"}, body
        error = body["error"]
        assert set(error) == {"code", "message", "retryable"}, error
        assert isinstance(error["message"], str) and error["message"], error
        assert isinstance(error["retryable"], bool), error
        code: str = error["code"]
        assert code and code == code.lower() and " " not in code, error
        return code

    @property
    def events(self) -> list[Delivery]:
        """The body as SSE or NDJSON, with the wire format checked."""
        if self.headers["Content-Type"].startswith("text/event-stream"):
            parser = SseParser()
            blocks = parser.feed(self.body)
            assert parser.faults == []
            return [block.delivery() for block in blocks]
        lines = [json.loads(line) for line in self.body.split(b"\n") if line]
        return [from_flat(line) for line in lines]


def from_flat(event: dict[str, Any]) -> Delivery:
    """An event of NDJSON or a long poll: `id` and `type` are members."""
    fields = dict(event)
    event_id, kind = fields.pop("id"), fields.pop("type")
    return Delivery(event_id, kind, fields)


class RawClient:
    """A client of one deployment. Use as an async context manager.

    Args:
        url: a node.
        other_url: a second node on the same Redis; the same one where there is no second.
        sender: headers of every request and handshake, for example of a proxy.
    """

    def __init__(
        self,
        url: str,
        other_url: str = "",
        key: str = "",
        *,
        sender: Mapping[str, str] | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.other_url = (other_url or url).rstrip("/")
        self.key = key
        self.sender = dict(sender or {})
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> RawClient:
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            headers=self.sender,
            skip_auto_headers=AUTOMATIC,
            timeout=aiohttp.ClientTimeout(total=ANSWER_S),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._http is not None
        await self._http.close()

    @property
    def credentials(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    @property
    def credential_lines(self) -> list[bytes]:
        """The same as lines of a request that a test writes byte by byte."""
        return [f"{name}: {value}".encode() for name, value in self.credentials.items()]

    async def call(
        self,
        method: str,
        path: str,
        *,
        node: str = "",
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        raw: bytes | AsyncIterator[bytes] | None = None,
        anonymous: bool = False,
    ) -> Answer:
        """Send one request and read the whole answer.

        Args:
            body: sent as JSON with its content type; `raw` is sent as it is, without one.
        """
        assert self._http is not None
        sent = {} if anonymous else self.credentials
        if body is not None:
            raw = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        sent |= headers or {}
        data = io.BytesIO(raw) if isinstance(raw, bytes) else raw
        url = yarl.URL((node or self.url) + path, encoded=True)  # sent as the test spells it
        async with self._http.request(
            method, url, headers=sent, data=data, allow_redirects=False
        ) as response:
            pieces = bytearray()
            try:
                async for piece in response.content.iter_any():
                    pieces += piece
            except (aiohttp.ClientPayloadError, ConnectionResetError):
                return Answer(response.status, response.headers, bytes(pieces), is_broken=True)
            return Answer(response.status, response.headers, bytes(pieces))

    async def get(self, path: str, **kwargs: Any) -> Answer:
        return await self.call("GET", path, **kwargs)

    async def post(self, body: Any = None, **kwargs: Any) -> Answer:
        """POST a prompt."""
        return await self.call("POST", "/v1/generations", body=body, **kwargs)

    async def start(self, body: Any, **kwargs: Any) -> str:
        """POST a prompt and return the id of the accepted generation."""
        answer = await self.post(body, **kwargs)
        assert answer.status == 202, (answer.status, answer.body)
        generation_id: str = answer.json()["id"]
        return generation_id

    async def finished(self, body: Any, **kwargs: Any) -> str:
        """POST a prompt and return its id once the generation has ended."""
        generation_id = await self.start(body, **kwargs)
        await self.ended(generation_id)
        return generation_id

    async def ended(self, generation_id: str, deadline_s: float = ANSWER_S) -> dict[str, Any]:
        """Return the snapshot once the generation has ended."""

        async def is_ended() -> Any:
            snapshot = (await self.get(f"/v1/generations/{generation_id}")).json()
            return snapshot if snapshot.get("status") not in ("queued", "running") else None

        snapshot: dict[str, Any] = await until(is_ended, deadline_s, f"end of {generation_id}")
        return snapshot

    async def first_of(self, session: str) -> str:
        """Return the id of a session's generation once there is one."""

        async def listed() -> Any:
            return (await self.get(f"/v1/sessions/{session}")).json()["generations"]

        (found,) = await until(listed, ANSWER_S, f"a generation of {session}")
        return str(found["id"])

    async def running(self, generation_id: str) -> None:
        """Return once a first token stands."""

        async def has_text() -> Any:
            return (await self.get(f"/v1/generations/{generation_id}")).json().get("text")

        await until(has_text, ANSWER_S, f"first token of {generation_id}")

    async def events(
        self, generation_id: str, cursor: str = "", accept: str = "text/event-stream", **kwargs: Any
    ) -> Answer:
        """Read a stream to its end."""
        headers = {"Accept": accept, **({"Last-Event-ID": cursor} if cursor else {})}
        headers |= kwargs.pop("headers", {})
        return await self.get(f"/v1/generations/{generation_id}/events", headers=headers, **kwargs)

    async def poll(
        self, generation_id: str, cursor: str = "", wait: str = "0", **kwargs: Any
    ) -> Answer:
        query = f"?wait={wait}" + (f"&last_event_id={cursor}" if cursor else "")
        path = f"/v1/generations/{generation_id}/events{query}"
        return await self.get(path, headers={"Accept": "application/json"}, **kwargs)

    async def log(self, generation_id: str) -> list[Delivery]:
        """The first events, about a megabyte at most, by a long poll that does not wait."""
        return [from_flat(event) for event in (await self.poll(generation_id)).json()["events"]]

    @contextlib.asynccontextmanager
    async def stream(
        self,
        generation_id: str,
        cursor: str = "",
        accept: str = "text/event-stream",
        node: str = "",
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An open stream, for a test that reads piece by piece."""
        assert self._http is not None
        headers = {"Accept": accept, **self.credentials}
        if cursor:
            headers["Last-Event-ID"] = cursor
        url = f"{node or self.url}/v1/generations/{generation_id}/events"
        async with self._http.get(url, headers=headers) as response:
            yield response

    @contextlib.asynccontextmanager
    async def opened(
        self,
        method: str,
        path: str,
        *,
        node: str = "",
        headers: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A response under way; whoever leaves hangs up."""
        assert self._http is not None
        sent = {**self.credentials, **(headers or {})}
        data = None
        if body is not None:
            sent["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        url = yarl.URL((node or self.url) + path, encoded=True)
        async with self._http.request(method, url, headers=sent, data=data) as response:
            yield response

    def socket(self, node: str = "", *, path: str = "/v1/ws", **kwargs: Any) -> connect:
        """Open a WebSocket; use as `async with raw_client.socket() as socket`."""
        url = (node or self.url).replace("http", "ws", 1) + path + kwargs.pop("query", "")
        headers = self.sender | self.credentials | kwargs.pop("additional_headers", {})
        options: dict[str, Any] = {
            "subprotocols": [websockets.Subprotocol("tailrace.v1")],
            "compression": None,
            "open_timeout": ANSWER_S,
            "close_timeout": 1,
            "ping_interval": None,
            "proxy": None,
            **kwargs,
        }
        return connect(url, additional_headers=headers, **options)


async def tell(socket: ClientConnection, **frame: Any) -> None:
    await socket.send(json.dumps(frame))


async def hear(socket: ClientConnection, within_s: float = ANSWER_S) -> dict[str, Any]:
    """The next text frame, which must be one JSON object with a type."""
    async with asyncio.timeout(within_s):
        frame = await socket.recv()
    assert isinstance(frame, str), f"a binary frame: {frame!r}"
    message: dict[str, Any] = json.loads(frame)
    assert isinstance(message, dict) and isinstance(message["type"], str), message
    return message


async def hear_until(socket: ClientConnection, kind: str) -> list[dict[str, Any]]:
    """All frames up to and with the first of type `kind`."""
    frames = [await hear(socket)]
    while frames[-1]["type"] != kind:
        frames.append(await hear(socket))
    return frames
