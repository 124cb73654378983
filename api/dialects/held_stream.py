"""Streams an answer of OpenAI's API whose head waits for the first content.

A generation that fails before that is answered with the HTTP status of its failure, as an answer in
one piece would be. Source: docs/protocol.md, "Before the first content".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from api.dialects.openai_errors import GenerationFailed, openai_shape
from api.errors import unavailable
from api.hub.hub import Hub
from api.hub.relay import Relay
from api.readers.expiry import seconds_left_of
from api.readers.head_hold import wait_for_content
from api.readers.http_stream import Beginning, stream
from api.response import error_response
from shared.errors import RequestError, Unavailable
from shared.log.event_bytes import TOKEN_PREFIX
from shared.log.events import End, Extra, Failure, Reasoning, Token, ToolCall, decode_known
from shared.log.extra import has_delta
from shared.log.fold import Dialect
from shared.log.records import Meta


def held_stream(
    hub: Hub,
    meta: Meta,
    dialect: Dialect,
    headers: Mapping[str, str],
    *,
    failure_of: Callable[[End], Failure | None],
) -> ASGIApp:
    """Return the answer with the log of one generation in `dialect`, from its start.

    Args:
        failure_of: the failure that an `end` is in this dialect; None: the stream shows the end.
        headers: of every answer, also of an error response: a client can read the generation
            natively, whatever this answer is.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def begin(relay: Relay) -> Beginning:
            raw = await wait_for_content(
                hub, relay, receive, is_content=is_content, label=dialect.name,
                left_s=seconds_left_of(scope),
            )  # fmt: skip
            end = None if raw is None else decode_known(raw)
            failure = failure_of(end) if isinstance(end, End) else None
            if failure is not None:
                raise GenerationFailed(failure)
            return Beginning(head=relay.encoded_log(dialect).opening)

        raw_headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        try:
            await stream(
                hub, scope, receive, send,
                meta=meta, dialect=dialect, headers=raw_headers, begin=begin,
            )  # fmt: skip
            return
        except Unavailable:
            error = unavailable()
        except RequestError as exc:
            error = exc
        # `stream` raises these errors only before it has sent anything.
        await error_response(error, openai_shape, headers)(scope, receive, send)

    return answer


def is_content(raw: bytes) -> bool:
    """Whether an entry shows a client of OpenAI's API a part of the answer."""
    if raw.startswith(TOKEN_PREFIX):
        return True
    event = decode_known(raw)
    if isinstance(event, Extra):
        return has_delta(event.extra)
    return isinstance(event, Token | Reasoning | ToolCall)
