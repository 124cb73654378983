"""uvicorn's flow control, whose event is made when somebody waits.

An event with its queue is 700 bytes, and nearly no connection is ever waited for.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.flow_control import FlowControl


class LeanFlow(FlowControl):
    """Whether a connection is read from, and takes what is written."""

    __slots__ = ("_is_writable", "_transport", "read_paused", "write_paused")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.read_paused = self.write_paused = False
        self._is_writable: asyncio.Event | None = None

    async def drain(self) -> None:
        if self.write_paused:
            self._is_writable = self._is_writable or asyncio.Event()
            await self._is_writable.wait()

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        waiting, self._is_writable = self._is_writable, None
        if waiting is not None:
            waiting.set()
