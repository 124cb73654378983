"""`produce`: a producer without a client of its own, and the requests that begin one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tailrace_client.async_client import AsyncTailrace
from tailrace_client.async_producer import AsyncProducer
from tailrace_client.credentials import TokenSource


@asynccontextmanager
async def produce(
    url: str,
    token: TokenSource = None,
    *,
    model: str | None = None,
    prompt: str | None = None,
    messages: Sequence[Mapping[str, Any]] | None = None,
    session: str | None = None,
    **members: Any,
) -> AsyncIterator[AsyncProducer]:
    """Write one generation, with a client of its own; the arguments of `AsyncTailrace.produce`.

    async with tailrace_client.produce("http://127.0.0.1:8000", model="report") as log:
        await log.token("All is well.")
    """
    async with AsyncTailrace(url, token) as client:
        producer = client.produce(
            model=model, prompt=prompt, messages=messages, session=session, **members
        )
        async with producer:
            yield producer
