"""A model server for Codex: slow answers, one after another, that a fault can hit in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from aiohttp import web

PIECE_S = 0.05
MIDDLE = 15  # pieces after which `middle` is set
TEXT = "".join(f"word{number} " for number in range(40))
THOUGHT = "".join(f"thought{number} " for number in range(10))


class SlowModel:
    """Speaks OpenAI's chat completions. An async context manager.

    Attributes:
        command: what the first answer runs by Codex's tool; empty: no answer calls a tool.
        middle: set when the first answer is half written.
        asked: requests so far.
    """

    def __init__(self, command: str = "") -> None:
        self.command = command
        self.middle = asyncio.Event()
        self.asked = 0
        self.port = 0

    async def __aenter__(self) -> SlowModel:
        app = web.Application(client_max_size=2**25)
        app.router.add_post("/v1/chat/completions", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked += 1
        has_result = any(message["role"] == "tool" for message in body["messages"])
        deltas = self._deltas(is_call=bool(self.command) and not has_result)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):  # the worker was killed
            await self._write(deltas, response)
        return response

    async def _write(self, deltas: list[dict[str, Any]], response: web.StreamResponse) -> None:
        for number, delta in enumerate(deltas):
            if number == MIDDLE:
                self.middle.set()
            await response.write(_chunk(delta))
            await asyncio.sleep(PIECE_S)
        finish = "tool_calls" if "tool_calls" in deltas[-1] else "stop"
        await response.write(_chunk({}, finish) + b"data: [DONE]\n\n")

    def _deltas(self, *, is_call: bool) -> list[dict[str, Any]]:
        thoughts = [{"reasoning_content": piece} for piece in _pieces(THOUGHT)]
        if not is_call:
            return [*thoughts, *({"content": piece} for piece in _pieces(TEXT))]
        function = {"name": "exec_command", "arguments": ""}
        call = {"index": 0, "id": "call_1", "type": "function", "function": function}
        arguments = json.dumps({"cmd": self.command})
        pieces = [arguments[at : at + 4] for at in range(0, len(arguments), 4)]
        parts = [{"index": 0, "function": {"arguments": piece}} for piece in pieces]
        return [*thoughts, *({"tool_calls": [part]} for part in (call, *parts))]


def _pieces(text: str) -> list[str]:
    return [f"{word} " for word in text.split()]


def _chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    chunk: dict[str, Any] = {"object": "chat.completion.chunk", "choices": [choice]}
    if finish:
        chunk["usage"] = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return b"data: %b\n\n" % json.dumps(chunk).encode()
