"""A model server for tests of what a page shows: its answers are what the test has put there.

async with Parrot() as parrot:
    parrot.says("How?", "**So.**", reasoning="Hm.")
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Line:
    """One answer.

    Attributes:
        deltas: the deltas of chat completions, one chunk for each.
        per_s: chunks in a second; 0: all at once.
        held: where it is set, the rest of the answer waits behind chunk `hold_at` until it is set.
    """

    deltas: list[dict[str, Any]]
    per_s: float = 0
    hold_at: int = -1
    held: asyncio.Event = field(default_factory=asyncio.Event)
    finish: str = "stop"


class Parrot:
    """Speaks OpenAI's chat completions. An async context manager.

    Attributes:
        lines: the answers, by prompt. To any other prompt it repeats the prompt.
        asked: the body of each request.
    """

    def __init__(self) -> None:
        self.lines: dict[str, Line] = {}
        self.asked: list[dict[str, Any]] = []
        self.port = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def says(
        self,
        prompt: str,
        text: str = "",
        *,
        reasoning: str = "",
        more: list[dict[str, Any]] | None = None,
        piece: int = 4,
        **rest: Any,
    ) -> Line:
        """Put an answer there: `reasoning`, `text` in pieces of `piece` characters, then `more`."""
        deltas: list[dict[str, Any]] = [{"reasoning_content": part} for part in _cut(reasoning, 12)]
        deltas += [{"content": part} for part in _cut(text, piece)]
        line = self.lines[prompt] = Line(deltas + (more or []), **rest)
        return line

    async def __aenter__(self) -> Parrot:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        for line in self.lines.values():
            line.held.set()
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        prompt = _last_prompt(body["messages"])
        line = self.lines.get(prompt) or Line([{"content": f"You said: {prompt}"}])
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionResetError):  # the worker has left: a stop
            await self._write(line, response)
        return response

    async def _write(self, line: Line, response: web.StreamResponse) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number, delta in enumerate(line.deltas):
            if number == line.hold_at:
                await line.held.wait()
            if line.per_s and (pause := began + number / line.per_s - loop.time()) > 0:
                await asyncio.sleep(pause)
            await response.write(_chunk(delta, None))
        await response.write(_chunk({}, line.finish, len(line.deltas)))
        await response.write(b"data: [DONE]\n\n")


def _cut(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def _last_prompt(messages: list[dict[str, Any]]) -> str:
    content = next(each["content"] for each in reversed(messages) if each["role"] == "user")
    return content if isinstance(content, str) else str(content[0].get("text", ""))


def _chunk(delta: dict[str, Any], finish: str | None, tokens: int = 0) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    counts = {"prompt_tokens": 11, "completion_tokens": tokens, "total_tokens": 11 + tokens}
    usage = counts if finish else None
    return f"data: {json.dumps({'choices': [choice], 'usage': usage})}\n\n".encode()
