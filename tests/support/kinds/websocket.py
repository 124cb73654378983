"""The kind `websocket` in the common suite: a server of the library `websockets`."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.support.kinds.kind import TriedKind
from tests.support.kinds.openai import pictures
from tests.support.kinds.plan import Broken, Done, Text, Thought, ToolUse, parts
from tests.support.upstream import Call
from tests.support.upstream_script import (
    Cut,
    Pause,
    Script,
    position,
    prefix_of,
    prompt_of,
    script_of,
)

TORN = b"\x81\x02\xff\xfe"  # a text frame whose text is no UTF-8


class WebSocketServer:
    """A model server: one answer for each connection."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._server: Server | None = None
        self._faults: Counter[str] = Counter()

    @property
    def base_url(self) -> str:
        assert self._server is not None
        return f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/chat"

    async def __aenter__(self) -> WebSocketServer:
        self._server = await serve(self._answer, "127.0.0.1", 0, close_timeout=0.1)
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _answer(self, connection: ServerConnection) -> None:
        body = msgspec.json.decode(await connection.recv())
        call = Call({}, body, len(self.calls) + 1)
        self.calls.append(call)
        try:
            async with asyncio.TaskGroup() as group:
                telling = group.create_task(self._tell(connection, body))
                # A client sends nothing while it waits: only the end of the connection comes.
                group.create_task(_cancel_when_gone(connection, telling, call))
        except* ConnectionClosed:
            call.left.set()  # found by a write
        finally:
            call.ended.set()

    async def _tell(self, connection: ServerConnection, body: dict[str, Any]) -> None:
        script, prompt = script_of(body), prompt_of(body["messages"])
        is_faulty = self._meets_fault(prompt, script)
        if is_faulty and script.fault == "status":
            return await connection.close(4000 + script.status, "as told")
        start = position(prompt, prefix_of(body), script)
        limit = body.get("max_tokens")
        for part in parts(script, prompt, start=start, max_tokens=limit, is_faulty=is_faulty):
            match part:
                case Pause(seconds):
                    await asyncio.sleep(3_600 if seconds is None else seconds)
                case Cut(is_clean):
                    return await connection.close() if is_clean else connection.transport.abort()
                case Broken("garbage"):
                    connection.transport.write(TORN)
                case _:
                    await connection.send(msgspec.json.encode(message(part)).decode())
        await connection.close()

    def _meets_fault(self, prompt: str, script: Script) -> bool:
        self._faults[prompt] += 1
        return bool(script.fault) and self._faults[prompt] <= script.fault_requests


def message(part: object) -> dict[str, Any]:
    """Return the message of a part, in the usual shape."""
    match part:
        case Text(text):
            return {"token": text}
        case Thought(text):
            return {"reasoning": text}
        case ToolUse(name, arguments):
            function = {"name": name, "arguments": "".join(arguments)}
            return {"tool_calls": [{"index": 0, "id": "call_1", "function": function}]}
        case Done(reason, said, thought):
            count = said + thought
            usage = {"prompt_tokens": 3, "completion_tokens": count, "total_tokens": 3 + count}
            return {"done": True, "finish_reason": reason, "usage": usage}
        case Broken("huge_line"):
            return {"token": "x" * 2**21}
    assert part == Broken("error")
    return {"error": "the upstream broke as told"}


async def _cancel_when_gone(
    connection: ServerConnection, telling: asyncio.Task[None], call: Call
) -> None:
    try:
        await connection.recv()
    except ConnectionClosed:
        if not telling.done() and connection.close_code != 1000:
            call.left.set()
            telling.cancel()


WEBSOCKET = TriedKind(
    name="websocket",
    serve=WebSocketServer,
    can=frozenset(
        (
            *("reasoning", "tools", "pictures", "max_tokens", "stop", "params", "usage"),
            *("continuation", "status", "errors", "lines"),
        )
    ),
    pictures=pictures,
)
