"""The audio input in the thread of a plug-in: the worker's loop reads it, one chunk for each step.

    for data in request.audio: …           in an ordinary generator; a step blocks the thread
    async for data in request.audio: …     in an asynchronous one

Nothing is read ahead, so a plug-in that is slow slows its client down (docs/audio.md, "The
window"). Each iteration begins at the first chunk. `close` ends the steps that wait: the answer
has stopped.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, cast

from shared.audio.media import AudioFormat
from workers.backends.contract import AudioSource

Step = concurrent.futures.Future[bytes | None]


class PluginAudio:
    """The audio input of one answer.

    Args:
        on_read: called in the worker's loop when a chunk has come.

    Attributes:
        format: the media type, and the rate and the channels of raw samples.
    """

    def __init__(self, source: AudioSource, on_read: Callable[[], None]) -> None:
        self.format: AudioFormat = source.format
        self._source = source
        self._on_read = on_read
        self._loop = asyncio.get_running_loop()
        self._steps: set[Step] = set()
        self._readings: list[AsyncGenerator[bytes, None]] = []
        self._is_closed = False

    @property
    def media_type(self) -> str:
        return self.format.media_type

    def __iter__(self) -> Iterator[bytes]:
        reading = self._begin()
        while (data := self._ask(self._next(reading)).result()) is not None:
            yield data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        reading = self._begin()
        while (data := await asyncio.wrap_future(self._ask(self._next(reading)))) is not None:
            yield data

    def _begin(self) -> AsyncGenerator[bytes, None]:
        reading = cast(AsyncGenerator[bytes, None], aiter(self._source))
        self._readings.append(reading)
        return reading

    def _ask(self, work: Coroutine[Any, Any, bytes | None]) -> Step:
        """Start a step in the worker's loop.

        Raises:
            CancelledError: the answer has stopped.
        """
        if self._is_closed:
            work.close()
            raise concurrent.futures.CancelledError
        step = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._steps.add(step)
        step.add_done_callback(self._steps.discard)
        if self._is_closed:  # it was closed meanwhile, and has not seen this step
            step.cancel()
        return step

    async def _next(self, reading: AsyncGenerator[bytes, None]) -> bytes | None:
        data = await anext(reading, None)
        self._on_read()
        return data

    async def close(self) -> None:
        """End all readings; a step that waits raises CancelledError in the plug-in."""
        self._is_closed = True
        for step in list(self._steps):
            step.cancel()
        await asyncio.sleep(0)  # the cancelled steps leave their readings first
        for reading in self._readings:
            try:
                await reading.aclose()
            except RuntimeError:
                pass  # a cancelled step is still inside; its end closes the reading
