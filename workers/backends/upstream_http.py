"""The process's one aiohttp session towards model servers.

Opened when first used, because a session belongs to the loop that runs it. Knows nothing of
models; the worker's slots bound how many connections there are.
"""

from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace

import aiohttp

from shared.settings import Settings
from workers.backends.limits import Limits

READ_BYTES = 65_536  # aiohttp stops reading a socket at twice this: a fast backend is slowed
# uvicorn, and so vLLM, closes idle connections after 5 s: let go of them before.
IDLE_S = 4.0


class Call:
    """What the trace tells about one request: when it was sent, and over which connection."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.timer: asyncio.Timeout | None = None
        self.is_reused = False

    def sent(self) -> None:
        self.limits.sent(asyncio.get_running_loop().time())
        if self.timer is not None and not self.timer.expired():
            self.timer.reschedule(self.limits.deadline)


class Watch:
    """Reads a body, each read with a deadline, and with one timer for the whole answer.

    `asyncio.timeout` around each read would set and cancel a timer per token, which costs as much
    as reading the token. Here the timer stays where it is while deadlines move on, and looks again
    when it rings.
    """

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content
        self._loop = asyncio.get_running_loop()
        self._deadline = math.inf  # of the read that waits now, if one does
        self._timer: asyncio.TimerHandle | None = None

    async def read(self, deadline: float) -> bytes:
        """Return what has arrived, b"" at the end of the body.

        Raises:
            TimeoutError: nothing came before `deadline`, on the loop's clock. The body is spoilt.
        """
        self._deadline = deadline
        if self._timer is None or self._timer.when() > deadline:
            self._set_timer(deadline)
        try:
            return await self._content.readany()
        finally:
            self._deadline = math.inf

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, deadline: float) -> None:
        self.close()
        self._timer = self._loop.call_at(deadline, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._loop.time() >= self._deadline:
            self._content.set_exception(TimeoutError())
        elif self._deadline < math.inf:
            self._set_timer(self._deadline)


class UpstreamHttp:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None

    def session(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = self._open()
        return self._session

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        connect_s = self._settings.upstream_connect_s
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_S),
            cookie_jar=aiohttp.DummyCookieJar(),  # nothing is carried from one owner to the next
            # aiohttp's own total would end every answer after 5 minutes.
            timeout=aiohttp.ClientTimeout(total=None, connect=connect_s, sock_read=None),
            read_bufsize=READ_BYTES,
            trace_configs=[_trace()],
        )


def _trace() -> aiohttp.TraceConfig:
    async def on_sent(
        session: aiohttp.ClientSession,
        context: SimpleNamespace,
        params: aiohttp.TraceRequestHeadersSentParams,
    ) -> None:
        context.trace_request_ctx.sent()

    async def on_reuse(
        session: aiohttp.ClientSession,
        context: SimpleNamespace,
        params: aiohttp.TraceConnectionReuseconnParams,
    ) -> None:
        context.trace_request_ctx.is_reused = True

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(on_sent)
    trace.on_connection_reuseconn.append(on_reuse)
    return trace
