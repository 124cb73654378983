"""OpenAI's own Python SDK, set up for a node, and the chunks that it reads from a stream.

Tries nothing again by itself: each call of a test is one request.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import openai
from openai.types.chat import ChatCompletionChunk

from tests.support.tls_context import tls_context

ANSWER_S = 20.0
HELLO: list[Any] = [{"role": "user", "content": "tell me"}]


@contextlib.asynccontextmanager
async def sdk(url: str, key: str = "", *, retries: int = 0) -> AsyncIterator[openai.AsyncOpenAI]:
    """A client of the node at `url`, which is a base URL as OpenAI's clients want it."""
    client = openai.AsyncOpenAI(
        base_url=url,
        api_key=key or "none",
        max_retries=retries,
        timeout=ANSWER_S,
        http_client=openai.DefaultAsyncHttpxClient(verify=tls_context()),
    )
    async with client:
        yield client


@dataclass
class StreamResult:
    """The chunks of one stream, and the error that ended it, if any."""

    chunks: list[ChatCompletionChunk] = field(default_factory=list)
    error: openai.APIError | None = None

    @property
    def text(self) -> str:
        return self._joined("content")

    @property
    def reasoning(self) -> str:
        return self._joined("reasoning_content")

    def _joined(self, name: str) -> str:
        deltas = [choice.delta for chunk in self.chunks for choice in chunk.choices]
        return "".join(getattr(delta, name, None) or "" for delta in deltas)

    @property
    def finish_reasons(self) -> list[str]:
        choices = [choice for chunk in self.chunks for choice in chunk.choices]
        return [choice.finish_reason for choice in choices if choice.finish_reason]

    @property
    def id(self) -> str:
        (one,) = {chunk.id for chunk in self.chunks}
        return one

    @property
    def cursor(self) -> str:
        """The native cursor after all that was heard."""
        cursor: Any = self.chunks[-1].event_id  # type: ignore[attr-defined]
        assert isinstance(cursor, str)
        return cursor


async def listen(stream: openai.AsyncStream[ChatCompletionChunk], chunks: int = 0) -> StreamResult:
    """Hear a stream to its end, or so many chunks, and then hang up."""
    heard = StreamResult()
    try:
        async for chunk in stream:
            heard.chunks.append(chunk)
            if len(heard.chunks) == chunks:
                await stream.close()
                break
    except openai.APIError as exc:
        heard.error = exc
    return heard
