"""One generation of a fault test with careful readers, and the client that sends its audio."""

from __future__ import annotations

import asyncio

from tests.support.audio import AudioSender, audio_body, pcm, text_of
from tests.support.fault_run import FaultRun
from tests.support.wait import until

SECONDS = 8.0


class Speech:
    """One generation with careful readers, and the client that sends its audio."""

    def __init__(self, fault_run: FaultRun, seed: int) -> None:
        self.run = fault_run
        self.audio = pcm(SECONDS, seed)
        self.sender = AudioSender(fault_run.deployment.urls, self.audio, gap_s=0.02)

    async def begin(self) -> None:
        self.answer = await self.run.start(audio_body(), text=text_of(self.audio))
        self.sending = asyncio.create_task(self.sender.send(self.answer.id))

    async def sent(self, chunks: int) -> None:
        await until(lambda: self.sender.received >= chunks, 20, f"{chunks} chunks")

    async def finish(self, **kinds: bool) -> None:
        async with asyncio.timeout(30):
            await self.sending
        await self.run.finish(**kinds)
