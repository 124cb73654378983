"""A model server for tests: streams an answer from a script, byte by byte if told to.

It speaks OpenAI's chat completions, or the wire that it is given (`ServerWire`).

In this process: `async with Upstream() as upstream:` and `upstream.base_url`; `upstream.calls` has
every request, and when its client went away. As a process of its own:
`python -m tests.support.upstream --port 0` prints its base URL; `GET /calls` gives the records, and
`GET /refuse/503` makes it refuse every new request so (`/refuse/0`: no longer).
A raw asyncio server and no framework, because the tests choose where writes and connections end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ssl
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from tests.support.listening import stop_listening
from tests.support.upstream_script import (
    PRESETS,
    Cut,
    Pause,
    Script,
    Step,
    document,
    error_body,
    expected_text,
    position,
    prefix_of,
    prompt_of,
    script_of,
    steps,
)

__all__ = ["PRESETS", "Call", "Script", "Upstream", "expected_text", "script_of"]

HEAD_BYTES_MAX = 65_536
EVENT_STREAM = "text/event-stream"
JSON = "application/json"


@dataclass(slots=True)
class Call:
    """One request for an answer.

    Attributes:
        connection: which connection it came over, from 1.
        written: bytes of the body so far.
        left: set when the client closed its connection before the answer was over.
        ended: set when the server is done with it, in whatever way.
    """

    headers: dict[str, str]
    body: dict[str, Any]
    connection: int
    written: int = 0
    left: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class ServerWire(Protocol):
    """How a family of servers reads requests and writes answers over HTTP. Pure."""

    content_type: str

    def is_answer(self, line: str) -> bool:
        """Whether a request with this request line asks for an answer."""
        ...

    def script_of(self, body: dict[str, Any]) -> Script: ...

    def prompt_of(self, body: dict[str, Any]) -> str:
        """Return the last text of the user."""
        ...

    def prefix_of(self, body: dict[str, Any]) -> str:
        """Return the partial answer that the client wants continued."""
        ...

    def steps(
        self, body: dict[str, Any], script: Script, start: int, *, is_faulty: bool
    ) -> Iterator[Step]:
        """Give what is written to the client, from token `start` on."""
        ...

    def error(self, message: str, kind: str = "server_error") -> bytes:
        """Return the body of an error response."""
        ...


class ChatWire:
    """OpenAI's chat completions."""

    content_type = EVENT_STREAM
    script_of = staticmethod(script_of)
    prefix_of = staticmethod(prefix_of)
    steps = staticmethod(steps)

    def is_answer(self, line: str) -> bool:
        return "/chat/completions" in line

    def prompt_of(self, body: dict[str, Any]) -> str:
        return prompt_of(body["messages"])

    def error(self, message: str, kind: str = "server_error") -> bytes:
        return error_body(message, kind=kind)


class Upstream:
    """The server.

    Attributes:
        raw: every request is answered with these bytes, in these pieces, instead of a script's.
        keep_open: with `raw`: the body is not ended.
        refusal, refusal_status: every request is answered with this body and status (401).
        path: of the base URL.
        listed: the names of its models.
        tls: the context of a server that speaks TLS only.
        redirect: every request is answered 307 to this address.
        hang_up_next: the next request is read and its connection closed without a word.
        hang_up_on_reuse: so is every request that is not the first on its connection.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        raw: list[bytes] | None = None,
        tls: ssl.SSLContext | None = None,
        wire: ServerWire | None = None,
        path: str = "/v1",
    ) -> None:
        self.path = path
        self.wire = wire or ChatWire()
        self.calls: list[Call] = []
        self.listed: list[str] = []
        self.raw = raw
        self.keep_open = False
        self.refusal, self.refusal_status = b"", 401
        self.redirect = ""
        self.hang_up_next = self.hang_up_on_reuse = False
        self.port = port
        self.tls = tls
        self.connections = 0
        self._used: set[int] = set()
        self._faults: Counter[str] = Counter()
        self._tasks: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}"

    async def __aenter__(self) -> Upstream:
        if self.tls is not None:
            _expect_failed_handshakes(asyncio.get_running_loop())
        await self.go_up()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.go_down()

    async def go_up(self) -> None:
        """Listen; after `go_down` on the same port."""
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", self.port, ssl=self.tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def go_down(self) -> None:
        """Reset every connection and refuse new ones, as a server that was killed."""
        await stop_listening(self._server)
        for writer in self._tasks.values():
            writer.transport.abort()  # a handler sees its client go and ends by itself
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks[task] = writer
        self.connections += 1
        number = self.connections
        try:
            while await self._serve_one(reader, writer, number):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            del self._tasks[task]
            writer.close()

    async def _serve_one(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int
    ) -> bool:
        """Answer one request; return whether the connection may be used again."""
        request = await _read_request(reader)
        if request is None:
            return False
        if self.hang_up_next or (self.hang_up_on_reuse and connection in self._used):
            self.hang_up_next = False
            return False
        self._used.add(connection)
        line, headers, raw_body = request
        if not self.wire.is_answer(line):
            if "/refuse/" in line:
                self.refusal_status = int(line.partition("/refuse/")[2].split()[0])
                self.refusal = self.wire.error("told to refuse") if self.refusal_status else b""
            content = self._records() if "/calls" in line else self._list()
            writer.write(_head(200, JSON, f"Content-Length: {len(content)}") + content)
            await writer.drain()
            return True
        call = Call(headers, msgspec.json.decode(raw_body), connection)
        self.calls.append(call)
        is_kept = False
        try:
            async with asyncio.TaskGroup() as group:
                # A client sends nothing while it waits: whatever this read gives is the end.
                gone = group.create_task(reader.read(1))
                try:
                    is_kept = await self._answer(call, _Body(call, writer, gone))
                finally:
                    gone.cancel()
        except* ConnectionError:
            call.left.set()
        finally:
            call.ended.set()
        return is_kept

    async def _answer(self, call: Call, out: _Body) -> bool:
        if self.refusal:
            return await out.whole(self.refusal_status, self.refusal)
        if self.redirect:
            return await out.whole(307, b"", f"Location: {self.redirect}")
        if self.raw is not None:
            return await self._answer_raw(self.raw, out)
        wire = self.wire
        script = wire.script_of(call.body)
        is_faulty = self._meets_fault(call, script)
        await out.pause(script.head_delay_s)
        if is_faulty and script.fault == "status":
            told = [f"Retry-After: {script.retry_after}"] if script.retry_after else []
            return await out.whole(script.status, wire.error("as told"), *told)
        prefix = wire.prefix_of(call.body)
        if prefix and script.continuation == "refuses":
            return await out.whole(422, wire.error("what is continue_final_message?"))
        if script.continuation == "begins anew":
            prefix = ""
        start = position(wire.prompt_of(call.body), prefix, script)
        if start < 0:
            return await out.whole(400, wire.error("not my words", "invalid_request_error"))
        if script.is_json:
            return await out.whole(200, document(call.body, script, start))
        await out.begin(wire.content_type)
        out.write_bytes = script.write_bytes
        out.cut_at_byte = script.cut_at_byte if is_faulty and script.fault == "cut" else 0
        is_at_token = is_faulty and not out.cut_at_byte
        for step in wire.steps(call.body, script, start, is_faulty=is_at_token):
            match step:
                case Pause(seconds):
                    await out.pause(seconds)
                case Cut(is_clean):
                    return await out.end() if is_clean else out.reset()
                case _:
                    if not await out.write(step):
                        return False
        await out.pause(script.end_delay_s)
        return await out.end()

    async def _answer_raw(self, pieces: list[bytes], out: _Body) -> bool:
        await out.begin(self.wire.content_type)
        for piece in pieces:
            await out.write(piece)
        if self.keep_open:
            await out.pause(None)
        return await out.end()

    def _meets_fault(self, call: Call, script: Script) -> bool:
        if not script.fault:
            return False
        if script.fault_without_prefix and self.wire.prefix_of(call.body):
            return False
        prompt = self.wire.prompt_of(call.body)
        self._faults[prompt] += 1
        return not script.fault_requests or self._faults[prompt] <= script.fault_requests

    def _list(self) -> bytes:
        data = [{"id": name, "object": "model"} for name in self.listed]
        return msgspec.json.encode({"object": "list", "data": data})

    def _records(self) -> bytes:
        return msgspec.json.encode(
            [
                {
                    "prompt": self.wire.prompt_of(call.body),
                    "prefix": self.wire.prefix_of(call.body),
                    "body": call.body,
                    "written": call.written,
                    "left": call.left.is_set(),
                    "ended": call.ended.is_set(),
                }
                for call in self.calls
            ]
        )


class _Body:
    """The answer to one call, chunked. A client that goes away raises ConnectionError here."""

    def __init__(self, call: Call, writer: asyncio.StreamWriter, gone: asyncio.Task[bytes]) -> None:
        self.write_bytes = 0
        self.cut_at_byte = 0
        self._call = call
        self._writer = writer
        self._gone = gone

    async def pause(self, seconds: float | None) -> None:
        if seconds is None or seconds > 0:
            await asyncio.wait({self._gone}, timeout=seconds)
        self._check()

    async def begin(self, content_type: str) -> None:
        self._writer.write(_head(200, content_type, "Transfer-Encoding: chunked"))
        await self._writer.drain()

    async def write(self, data: bytes) -> bool:
        """Write, in pieces if told to; return False once the connection was cut as told."""
        size = self.write_bytes or len(data) or 1
        for at in range(0, len(data), size):
            piece = data[at : at + size]
            if self.cut_at_byte and self._call.written + len(piece) >= self.cut_at_byte:
                self._chunk(piece[: self.cut_at_byte - self._call.written])
                return self.reset()
            self._chunk(piece)
            await self._writer.drain()
            if size < len(data):
                await asyncio.sleep(0)  # a packet of its own
            self._check()
        return True

    async def end(self) -> bool:
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()
        return True

    async def whole(self, status: int, body: bytes, *lines: str) -> bool:
        self._writer.write(_head(status, JSON, f"Content-Length: {len(body)}", *lines) + body)
        await self._writer.drain()
        return True

    def reset(self) -> bool:
        """Close without the last chunk: what was written arrives, an end does not."""
        self._writer.close()
        return False

    def _chunk(self, data: bytes) -> None:
        if data:
            self._call.written += len(data)
            self._writer.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _check(self) -> None:
        if self._gone.done():
            raise ConnectionResetError("the client has gone")


def _expect_failed_handshakes(loop: asyncio.AbstractEventLoop) -> None:
    """Keep a client that does not trust this server from failing the test.

    In debug mode asyncio reports a failed handshake of a server to the loop's exception handler.
    """
    others = loop.get_exception_handler()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if context["message"] == "Error on transport creation for incoming connection":
            return
        if others is None:
            loop.default_exception_handler(context)
        else:
            others(loop, context)

    loop.set_exception_handler(handle)


async def _read_request(
    reader: asyncio.StreamReader,
) -> tuple[str, dict[str, str], bytes] | None:
    """Read one request; None where the client closed instead."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    line, *lines = head.decode("latin-1").split("\r\n")
    headers = {}
    for header in lines:
        name, _, value = header.partition(":")
        headers[name.strip().lower()] = value.strip()
    return line, headers, await reader.readexactly(int(headers.get("content-length", 0)))


def _head(status: int, content_type: str, *lines: str) -> bytes:
    fields = "\r\n".join((f"HTTP/1.1 {status} Status", f"Content-Type: {content_type}", *lines))
    return f"{fields}\r\n\r\n".encode()


async def _serve(port: int) -> None:
    async with Upstream(port=port) as upstream:
        sys.stdout.write(upstream.base_url + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(parser.parse_args().port))
