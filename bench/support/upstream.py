"""The model server: paced streams of each kind, in a process that records when it wrote each token.

One token is one event of the kind's wire, one HTTP chunk and one write, as vLLM sends them. If the
server is late, or sends as fast as it can, several events leave in one write. A raw asyncio
protocol, because the server must cost less than what reads it.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import multiprocessing
import os
import time
from array import array
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import uvloop

from bench.support.answer import Answer
from bench.support.cpu import CORES
from bench.support.model_wires import OPENAI, accept_key, frame, prompt_json, unmasked, wire_of

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n"
UPGRADE = (
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-accept: %b\r\n\r\n"
)
TICK_S = 0.001  # tokens due within this time are handled together, each with its own write
BURST = 64  # tokens in one write if the answer has no pace


class AnswerStream(asyncio.Protocol):
    """One connection; its answers come one after the other."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.answer: Answer | None = None
        self.sent = 0
        self._input = b""
        self._can_write = True
        self._is_socket = False
        self._wire = OPENAI  # until the request names its path

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.answer = None

    def data_received(self, data: bytes) -> None:
        self._input += data
        if self._is_socket:
            if message := unmasked(self._input):
                self._input = b""
                self._begin(Answer(**prompt_json(self._wire, message)))
            return
        head, separator, body = self._input.partition(b"\r\n\r\n")
        if not separator:
            return
        lowered = head.lower()
        self._wire = wire_of(head.partition(b"\r\n")[0])
        if not self._wire.content_type:
            at = lowered.find(b"sec-websocket-key:") + 18
            key = head[at:].partition(b"\r\n")[0].strip()
            self._is_socket, self._input = True, body
            self.transport.write(UPGRADE % accept_key(key))
            return
        at = lowered.find(b"content-length:")
        length = int(lowered[at + 15 :].partition(b"\r\n")[0]) if at > 0 else 0
        if len(body) >= length:
            self._input = body[length:]
            self._begin(Answer(**prompt_json(self._wire, body[:length])))

    def _begin(self, answer: Answer) -> None:
        self.answer, self.sent = answer, 0
        self.times = self.upstream.times[answer.number] = array("d")
        wire = self._wire
        self._before, self._after = wire.around(answer.number)
        self._around = len(self._before) + len(self._after)  # of an event, without its text
        if not self._is_socket:
            self._after += b"\r\n"  # ends the HTTP chunk
            self.transport.write(HEAD % wire.content_type)
        if first := wire.first(answer.number):
            self.transport.write(_chunk(first))
        self.began_s = time.monotonic() + answer.first_s + answer.phase_s
        if answer.per_s or answer.first_s:
            self.upstream.schedule(self.began_s, self)
        else:
            self.say_due(self.began_s)

    def say_due(self, now: float) -> None:
        """Write the tokens that are due, and schedule the next one."""
        answer = self.answer
        if answer is None:
            return
        if not answer.per_s:
            return self._burst()
        due = min(answer.tokens, 1 + int((now - self.began_s) * answer.per_s + 1e-9))
        self._say(due)
        if due < answer.tokens:
            self.upstream.schedule(self.began_s + due / answer.per_s, self)
        else:
            self._end()

    def _burst(self) -> None:
        assert self.answer is not None
        while self._can_write and self.sent < self.answer.tokens:
            self._say(min(self.answer.tokens, self.sent + BURST))
        if self.sent == self.answer.tokens:
            self._end()

    def _say(self, upto: int) -> None:
        answer = self.answer
        assert answer is not None
        chunks: list[bytes] = []
        for n in range(self.sent, upto):
            text = answer.token(n).encode()
            if self._is_socket:
                chunks.append(frame(self._before + text + self._after))
                continue
            size = b"%x\r\n" % (self._around + len(text))
            chunks += (size, self._before, text, self._after)
        self.times.extend([time.monotonic()] * (upto - self.sent))
        self.sent = upto
        self.transport.write(b"".join(chunks))

    def _end(self) -> None:
        assert self.answer is not None
        answer, self.answer = self.answer, None
        last = self._wire.last(answer.number, answer.tokens)
        self.transport.write(frame(last) if self._is_socket else _chunk(last) + b"0\r\n\r\n")

    def pause_writing(self) -> None:
        self._can_write = False

    def resume_writing(self) -> None:
        self._can_write = True
        if self.answer is not None and not self.answer.per_s and self.sent:
            self._burst()


class Upstream:
    """All connections, and the times at which tokens are due."""

    def __init__(self) -> None:
        self.times: dict[int, array[float]] = {}
        self._due: list[tuple[float, int, AnswerStream]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = math.inf
        self._loop = asyncio.get_running_loop()

    def schedule(self, at: float, stream: AnswerStream) -> None:
        """Call `say_due` of a stream at this time."""
        heapq.heappush(self._due, (at, id(stream), stream))
        if at < self._wakes_at:
            self._wake_at(at)

    def _wake_at(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._wakes_at = at = max(at, time.monotonic() + TICK_S)
        self._timer = self._loop.call_later(at - time.monotonic(), self._tick)

    def _tick(self) -> None:
        self._timer, self._wakes_at = None, 0.0  # `schedule` must not set a timer below
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            heapq.heappop(self._due)[2].say_due(now)
        self._wakes_at = math.inf
        if self._due:
            self._wake_at(self._due[0][0])


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _serve(pipe: Connection) -> None:
    upstream = Upstream()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: AnswerStream(upstream), "127.0.0.1", 0, backlog=2_048)
    pipe.send(server.sockets[0].getsockname()[1])
    closed = asyncio.Event()

    def answer() -> None:
        try:
            numbers = pipe.recv()
        except EOFError:
            return closed.set()
        pipe.send([upstream.times.pop(number) for number in numbers])

    loop.add_reader(pipe.fileno(), answer)
    os.set_blocking(pipe.fileno(), True)  # the loop only watches it
    await closed.wait()


def run(pipe: Connection, cores: Sequence[int]) -> None:
    """Run the process until the parent closes its end of the pipe."""
    os.sched_setaffinity(0, cores)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(pipe))


class UpstreamProcess:
    """The process, as a benchmark uses it.

    Attributes:
        port: where it listens; set on entry.
    """

    def __init__(self, cores: Sequence[int] = CORES) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, self._theirs = context.Pipe()
        self._process = context.Process(target=run, args=(self._theirs, list(cores)), daemon=True)
        self.port = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    async def __aenter__(self) -> UpstreamProcess:
        self._process.start()
        self._theirs.close()
        self.port = await asyncio.to_thread(self._pipe.recv)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pipe.close()
        await asyncio.to_thread(self._process.join, 10)
        self._process.kill()

    async def times(self, answers: Sequence[Answer]) -> list[array[float]]:
        """Return when each token of these answers was written; the process forgets the times."""
        self._pipe.send([answer.number for answer in answers])
        times: list[array[float]] = await asyncio.to_thread(self._pipe.recv)
        return times
