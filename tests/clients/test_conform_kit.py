"""The kit for servers (clients/conform): our nodes hold it, and it finds each fault of a server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.support.npm import PACKAGE, run, tool
from tests.support.processes import Deployment

KIT = PACKAGE.parent / "conform" / "conform.mjs"
NAME = "tailrace-conform"
KIT_S = 60.0
COUNT = 40  # events of the broken server
PAUSE_S = 0.02
SILENT = json.dumps({"prompt": "x", "params": {"demo": {"tokens": 2, "first_token_s": 4}}})

# The fault of a server -> the case that finds it. Other cases may fail as well.
FAULTS = {
    "closes without an end": "an answer is started and read to its end",
    "plain text": "the stream is an event stream",
    "an id is missing": "every event has an id of its own",
    "two events share an id": "every event has an id of its own",
    "holds everything back": "events arrive while the answer is being made",
    "forgets at the end": "a reader that comes after the end gets the same",
    "repeats the cursor's event": "a reader comes back after any event",
    "skips an event after the cursor": "a reader comes back after any event",
    "ignores the cursor": "a reader comes back after any event",
    "sends what is to come only": "a live answer is cut at any byte, again and again",
    "stops when the reader leaves": "a reader that leaves does not stop the answer",
    "stays open after the end": "a reader that has the end is told to stop",
    "answers 200 after the end": "a reader that has the end is told to stop",
    "takes any cursor": "an id that cannot be is refused",
    "waits for unknown answers": "an unknown answer is 404",
}


async def run_kit(*words: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Run the kit; return its exit code and what it says, by case."""
    process = await asyncio.create_subprocess_exec(
        tool("node"), str(KIT), "--json", *words, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(KIT_S):
        out, _ = await process.communicate()
    said = [json.loads(line) for line in out.splitlines()]
    assert process.returncode is not None
    return process.returncode, {each["case"]: each for each in said}


class Answer:
    """One answer of the broken server; the events come with time, whoever reads."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.count = 0
        self.changed = asyncio.Condition()
        self.task = asyncio.create_task(self._grow())

    async def _grow(self) -> None:
        while self.count < COUNT:
            await asyncio.sleep(PAUSE_S)  # the pace of the model
            async with self.changed:
                self.count += 1
                self.changed.notify_all()

    def frame(self, number: int) -> bytes:
        shown = number
        if self.fault == "two events share an id" and number == 7:
            shown = 6
        name = b"end" if number == COUNT and self.fault != "closes without an end" else b"token"
        id_line = b"" if self.fault == "an id is missing" and number == 7 else b"id: %d\n" % shown
        return b"event: %s\n%sdata: {%d}\n\n" % (name, id_line, number)


class BrokenServer:
    """A server of resumable streams with one fault; without a fault it is right."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.answers: dict[str, Answer] = {}
        self.waiting: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/v1/generations", self.start)
        app.router.add_get("/v1/generations/{id}/events", self.events)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            for answer in self.answers.values():
                answer.task.cancel()
            for task in self.waiting:  # readers that this server would let wait for ever
                task.cancel()
            await runner.cleanup()

    async def start(self, request: web.Request) -> web.Response:
        name = f"a{len(self.answers)}"
        self.answers[name] = Answer(self.fault)
        return web.json_response({"id": name})

    def place(self, cursor: str, answer: Answer) -> int:
        """Return how many events the reader gets no more.

        Raises:
            web.HTTPBadRequest: the cursor cannot be.
        """
        if not cursor:
            forgets = self.fault == "forgets at the end" and answer.count == COUNT
            return COUNT - 1 if forgets else 0
        if self.fault == "ignores the cursor":
            return 0
        if not (cursor.isdecimal() and int(cursor) <= COUNT):
            if self.fault == "takes any cursor":
                return 0
            raise web.HTTPBadRequest
        if self.fault == "sends what is to come only" and answer.count < COUNT:
            return answer.count
        shifts = {"repeats the cursor's event": -1, "skips an event after the cursor": 1}
        return int(cursor) + shifts.get(self.fault, 0)

    async def events(self, request: web.Request) -> web.StreamResponse:
        task: Any = asyncio.current_task()
        self.waiting.add(task)
        try:
            return await self._answer(request)
        finally:
            self.waiting.discard(task)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        answer = self.answers.get(request.match_info["id"])
        if answer is None:
            if self.fault == "waits for unknown answers":
                await asyncio.Event().wait()
            raise web.HTTPNotFound
        place = self.place(request.headers.get("last-event-id", ""), answer)
        if place >= COUNT:
            if self.fault == "stays open after the end":
                await asyncio.Event().wait()
            return web.Response(status=200 if self.fault == "answers 200 after the end" else 204)
        response = web.StreamResponse()
        response.content_type = "text/plain" if self.fault == "plain text" else "text/event-stream"
        await response.prepare(request)
        try:
            await self._send(response, answer, place)
        except (ConnectionError, asyncio.CancelledError):
            if self.fault == "stops when the reader leaves":
                answer.task.cancel()
            raise
        return response

    async def _send(self, response: web.StreamResponse, answer: Answer, place: int) -> None:
        waits_for = COUNT if self.fault == "holds everything back" else 0
        while place < COUNT:
            async with answer.changed:
                while answer.count <= max(place, waits_for - 1):
                    await answer.changed.wait()
            frames = [answer.frame(number + 1) for number in range(place, answer.count)]
            place = answer.count
            await response.write(b"".join(frames))


async def test_two_nodes_of_ours_hold_every_case() -> None:
    async with Deployment(api=2, workers=1, settings={"heartbeat_s": "1"}) as deployment:
        url, other = deployment.urls
        silent = ["--silent-body", SILENT, "--heartbeat-s", "3"]
        code, said = await run_kit("--url", url, "--other-url", other, *silent)
    assert {each["result"] for each in said.values()} == {"holds"}, said
    assert (code, len(said)) == (0, 14)


async def test_a_right_server_holds_every_case() -> None:
    async with BrokenServer("").running() as url:
        code, said = await run_kit("--url", url)
    skipped = [name for name, each in said.items() if each["result"] == "skipped"]
    assert (code, len(skipped)) == (0, 2), said


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_kit_finds_the_fault_of_a_server(fault: str) -> None:
    async with BrokenServer(fault).running() as url:
        code, said = await run_kit("--url", url, "--case", FAULTS[fault], "--limit-s", "8")
    assert code == 1
    assert said[FAULTS[fault]]["result"] == "fails"


async def test_the_packed_kit_runs_in_an_empty_folder(tmp_path: Path) -> None:
    archive = run(KIT.parent, "pack", "--silent", "--pack-destination", str(tmp_path)).strip()
    (tmp_path / "empty").mkdir()
    said = run(tmp_path / "empty", "exec", "--yes", f"--package=../{archive}", "--", NAME, "--help")

    assert "--other-url" in said


async def test_a_wrong_command_is_refused_with_its_options() -> None:
    code, said = await run_kit("--url", "http://127.0.0.1:1", "--events-path", "/x")
    assert (code, said) == (2, {})
