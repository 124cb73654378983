"""Any OpenAI-compatible server, over aiohttp.

One POST per attempt; what comes back goes through openai_reader. Here are only the connection, its
limits in time and the translation of aiohttp's errors. Closing the generator closes the connection:
vLLM, llama.cpp and Ollama stop generating when they see that.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator

import aiohttp

from shared.errors import BackendError
from shared.models import Model
from shared.request import Request
from shared.settings import Settings
from workers.backends.contract import Finish, Item
from workers.backends.limits import Limits
from workers.backends.openai_failure import answered_at, refusal
from workers.backends.openai_reader import ChatReader
from workers.backends.openai_request import encode_body
from workers.backends.upstream_http import Call, UpstreamHttp, Watch

REFUSAL_BYTES_MAX = 65_536
TRIES_MAX = 3  # connections that a server had closed while they lay idle
TAIL_S = 0.2  # time for the last bytes after [DONE]: then the connection can be used again

log = logging.getLogger(__name__)


class OpenAIBackend:
    """One model of an OpenAI-compatible server.

    Args:
        http: shared by all backends of the process; `aclose` closes it for all of them.
        key: the bearer token, empty for none.
    """

    def __init__(self, model: Model, settings: Settings, http: UpstreamHttp, *, key: str) -> None:
        self.can_continue = model.on_takeover == "continue"
        self._model = model
        self._settings = settings
        self._http = http
        self._key = key
        self._url = model.base_url.rstrip("/") + "/chat/completions"
        self._headers = {
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",  # a compressing proxy would hold tokens back
            "Content-Type": "application/json",
            "User-Agent": "tailrace",
        }
        if key:
            self._headers["Authorization"] = f"Bearer {key}"

    async def stream(
        self, request: Request, *, prefix: str, seed: str
    ) -> AsyncGenerator[list[Item], None]:
        """See `Backend.stream`. `seed` is not sent: a client that wants one says so in `params`."""
        body = encode_body(self._model, request, prefix)
        clock = asyncio.get_running_loop().time
        limits = Limits(self._settings, clock())
        reader = ChatReader(
            line_bytes_max=self._settings.upstream_line_bytes_max,
            body_bytes_max=self._settings.answer_bytes_max,
        )
        response = await self._open(body, limits)
        watch = Watch(response.content)
        try:
            yield []
            while not reader.is_done:
                items = await self._read(watch, reader, limits)
                if items:
                    yield items
                    limits.has_content = True
                limits.read(clock(), is_finished=reader.has_finish_reason)
            if reader.failure is not None:
                raise reader.failure
            await _read_tail(watch, clock() + TAIL_S)
        finally:
            watch.close()
            response.close()  # nothing where the body was read to its end

    async def aclose(self) -> None:
        await self._http.aclose()

    async def _open(self, body: bytes, limits: Limits) -> aiohttp.ClientResponse:
        """Send the request and return the answer's head.

        An idle connection may be closed by the server at the moment it is used again; nothing was
        read of the request then, so that is tried again at once and is no failure.
        """
        for tries_left in reversed(range(TRIES_MAX)):
            call = Call(limits)
            try:
                response = await self._post(body, limits, call)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as exc:
                if call.is_reused and tries_left:
                    continue
                raise _unreachable(exc) from exc
            except aiohttp.ClientError as exc:
                raise _unreachable(exc) from exc
            if 200 <= response.status < 300:
                return response
            raise await self._refused(response, limits)
        raise AssertionError("the last try returns or raises")

    async def _post(self, body: bytes, limits: Limits, call: Call) -> aiohttp.ClientResponse:
        try:
            async with asyncio.timeout_at(limits.deadline) as timer:
                call.timer = timer
                return await self._http.session().post(
                    self._url,
                    data=body,
                    headers=self._headers,
                    allow_redirects=False,  # the key is for this host
                    trace_request_ctx=call,
                )
        except aiohttp.ServerTimeoutError as exc:
            raise limits.no_connection() from exc
        except TimeoutError as exc:
            raise limits.exceeded() from exc

    async def _refused(self, response: aiohttp.ClientResponse, limits: Limits) -> BackendError:
        """Read why. What the client is shown of it never has the key, which some servers quote."""
        try:
            async with asyncio.timeout_at(limits.deadline):
                body = await response.content.read(REFUSAL_BYTES_MAX)
        except (TimeoutError, aiohttp.ClientError, OSError):
            body = b""
        finally:
            response.close()
        if self._key:
            body = body.replace(self._key.encode(), b"***")
        retry_after = response.headers.get("Retry-After")
        now_s = answered_at(response.headers.get("Date"), time.time())
        return refusal(response.status, body, retry_after=retry_after, now_s=now_s)

    async def _read(self, watch: Watch, reader: ChatReader, limits: Limits) -> list[Item]:
        """Wait for bytes and return what they complete; past the finish, silence is an end."""
        try:
            data = await watch.read(limits.deadline)
        except TimeoutError as exc:
            if not reader.has_finish_reason:
                raise limits.exceeded() from exc
            data = b""
        except (aiohttp.ClientError, OSError) as exc:
            if not reader.has_finish_reason:
                message = "the connection to the backend broke in mid-answer"
                raise BackendError("upstream_error", message) from exc
            data = b""
        items = reader.feed(data) if data else reader.feed_eof()
        if items and isinstance(items[-1], Finish) and items[-1].said:
            log.warning("finish reason unknown", extra={"finish_reason": items[-1].said})
        return items


def _unreachable(exc: Exception) -> BackendError:
    """Say it without host and port: the message is shown to clients, the cause is logged."""
    if isinstance(exc, aiohttp.ClientConnectorError):
        return BackendError("upstream_error", "the backend cannot be reached")
    return BackendError("upstream_error", f"the backend did not answer: {type(exc).__name__}")


async def _read_tail(watch: Watch, deadline: float) -> None:
    """Read to the end of the body, so that the connection goes back to the pool."""
    try:
        while await watch.read(deadline):
            pass
    except (TimeoutError, aiohttp.ClientError, OSError):
        pass  # then it is closed; the answer is complete either way
