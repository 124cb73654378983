"""Sends the audio of a generation, async."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import Any

from tailrace_client.audio import TYPE, Chunk, ChunkLog
from tailrace_client.errors import TailraceError
from tailrace_client.options import Shared
from tailrace_client.pace import BackOff
from tailrace_client.wire import generation_path

AsyncAudio = AsyncIterable[bytes] | Iterable[bytes]
Post = Callable[..., Awaitable[Any]]


async def send_audio(shared: Shared, post: Post, id: str, audio: AsyncAudio) -> None:
    """Send all bytes of `audio`, and the end of the input; see `AsyncTailrace.send_audio`."""
    log = ChunkLog()
    if isinstance(audio, AsyncIterable):
        async for data in audio:
            log.write(data)
            await _send(shared, post, id, log)
    else:
        for data in audio:
            log.write(data)
            await _send(shared, post, id, log)
    log.finish()
    await _send(shared, post, id, log)


async def _send(shared: Shared, post: Post, id: str, log: ChunkLog) -> None:
    back_off = BackOff(shared.random)
    while (chunk := log.next) is not None:
        try:
            log.confirm(chunk, await _post(post, id, chunk))
            back_off = BackOff(shared.random)
        except TailraceError as exc:
            if exc.retryable:
                await asyncio.sleep(shared.pause_s(back_off, exc, full_s=math.inf))
            else:
                log.go_back(exc)


async def _post(post: Post, id: str, chunk: Chunk) -> Any:
    path = f"{generation_path(id)}/audio{chunk.query}"
    return await post("POST", path, content=chunk.data, headers={"content-type": TYPE})
