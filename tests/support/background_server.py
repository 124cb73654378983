"""A server of OpenAI's Responses with background mode, for tests.

A response goes on while no client is connected, as at the vendor: its events are kept with their
numbers, `GET …?stream=true&starting_after=N` gives those behind N, and `POST …/cancel` stops it.
The prompt is a script (tests/support/upstream_script.py); `fault: "cut"` and `"eof"` end the
connection, and not the response.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from tests.support.kinds.plan import parts
from tests.support.kinds.planned_wire import Broken, Cut, Pause
from tests.support.kinds.responses import ResponsesServerWire, broken, numbered
from tests.support.responses_streams import response


@dataclass(slots=True)
class MadeResponse:
    """One response that the server makes.

    Attributes:
        body: of the request.
        events: so far, as they are written.
        cuts: the numbers of events before which a connection ends, once each; True: cleanly.
        status: `in_progress`, `completed`, `cancelled` or `failed`.
        readers: connections that read it now.
    """

    id: str
    body: dict[str, Any]
    events: list[bytes] = field(default_factory=list)
    cuts: dict[int, bool] = field(default_factory=dict)
    status: str = "in_progress"
    readers: int = 0
    grown: asyncio.Condition = field(default_factory=asyncio.Condition)
    task: asyncio.Task[None] | None = None

    @property
    def is_over(self) -> bool:
        return self.status != "in_progress"


class BackgroundServer:
    """The server.

    Attributes:
        made: every response, in the order of the requests.
        reads: each reading of a response by GET: its id and `starting_after`, -1 for none.
        cancels: the ids of cancelled responses.
        is_forgetful: it has no response any more: GET answers 404.
        has_mode: False: the server refuses `background`.
    """

    def __init__(self) -> None:
        self.made: list[MadeResponse] = []
        self.reads: list[tuple[str, int]] = []
        self.cancels: list[str] = []
        self.is_forgetful = False
        self.has_mode = True
        self.base_url = ""
        self._wire = ResponsesServerWire()
        self._ids = itertools.count(1)

    async def create(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body.get("background") and not self.has_mode:
            message = "Unknown parameter: 'background'."
            error = {"message": message, "type": "invalid_request_error", "param": "background"}
            return web.json_response({"error": error}, status=400)
        script = self._wire.script_of(body)
        if script.fault == "status":
            text = self._wire.error("as told").decode()
            raise web.HTTPBadRequest(text=text, content_type="application/json")
        made = MadeResponse(f"resp_{next(self._ids)}", body)
        self.made.append(made)
        made.task = asyncio.create_task(self._make(made))
        return await self._give(request, made, -1)

    async def read(self, request: web.Request) -> web.StreamResponse:
        made = self._find(request)
        after = int(request.query.get("starting_after", -1))
        self.reads.append((made.id, after))
        if request.query.get("stream") != "true":
            return web.json_response(response(made.status, id=made.id))
        return await self._give(request, made, after)

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        made = self._find(request)
        self.cancels.append(made.id)
        if made.task is not None and not made.is_over:
            made.task.cancel()
            await self._end(made, "cancelled")
        return web.json_response(response(made.status, id=made.id))

    def _find(self, request: web.Request) -> MadeResponse:
        found = next((made for made in self.made if made.id == request.match_info["id"]), None)
        if found is None or self.is_forgetful:
            message = f"Response with id '{request.match_info['id']}' not found."
            error = {"error": {"message": message, "type": "invalid_request_error"}}
            text = msgspec.json.encode(error).decode()
            raise web.HTTPNotFound(text=text, content_type="application/json")
        return found

    async def _make(self, made: MadeResponse) -> None:
        """Make the response, whoever reads it."""
        script, prompt = self._wire.script_of(made.body), self._wire.prompt_of(made.body)
        is_connection = script.fault in ("cut", "eof")
        at = script.fault_at + script.reasoning
        whole = msgspec.structs.replace(script, fault="") if is_connection else script
        limit = self._wire.limit(made.body)
        plan = parts(whole, prompt, start=0, max_tokens=limit, is_faulty=True)
        head = {"id": made.id, "background": bool(made.body.get("background")), "store": True}
        for step in self._wire.events(plan, head):
            match step:
                case Pause(seconds):
                    await asyncio.sleep(1_000 if seconds is None else seconds)
                case Cut():
                    return
                case Broken(kind):
                    await self._add(made, broken(kind, len(made.events)))
                    await self._end(made, "failed")
                    return
                case event:
                    is_text = event["type"] == "response.output_text.delta"
                    if is_connection and is_text:
                        if at == 0:
                            made.cuts[len(made.events)] = script.fault == "eof"
                        at -= 1
                    await self._add(made, numbered(event, len(made.events)))
        await self._end(made, "completed")

    async def _add(self, made: MadeResponse, event: bytes) -> None:
        async with made.grown:
            made.events.append(event)
            made.grown.notify_all()

    async def _end(self, made: MadeResponse, status: str) -> None:
        async with made.grown:
            made.status = status
            made.grown.notify_all()

    async def _give(
        self, request: web.Request, made: MadeResponse, after: int
    ) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        made.readers += 1
        try:
            for number in itertools.count(after + 1):
                async with made.grown:
                    await made.grown.wait_for(
                        lambda number=number: made.is_over or number < len(made.events)
                    )
                if number >= len(made.events):
                    return answer
                is_clean = made.cuts.pop(number, None)
                if is_clean is False and request.transport is not None:
                    await answer.write(made.events[number][:20])
                    request.transport.close()
                if is_clean is not None:
                    return answer
                await answer.write(made.events[number])
        finally:
            made.readers -= 1
        return answer

    @asynccontextmanager
    async def serve(self, port: int = 0) -> AsyncIterator[BackgroundServer]:
        app = web.Application()
        app.router.add_post("/v1/responses", self.create)
        app.router.add_get("/v1/responses/{id}", self.read)
        app.router.add_post("/v1/responses/{id}/cancel", self.cancel)
        runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        self.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        try:
            yield self
        finally:
            for made in self.made:
                if made.task is not None:
                    made.task.cancel()
            await runner.cleanup()
