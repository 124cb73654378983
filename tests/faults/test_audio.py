"""Audio of a client that reaches its generation whole, whichever process dies meanwhile.

The stand-in transcriber makes a known text of the audio, so one chunk that is lost, repeated or out
of order changes the text.
"""

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


async def test_text_comes_while_the_audio_is_being_sent(fault_run: FaultRun) -> None:
    speech = Speech(fault_run, 1)
    await speech.begin()

    await fault_run.read_to(speech.answer, 4)

    assert not speech.sending.done()
    await speech.finish()


async def test_a_killed_worker_is_replaced_and_the_transcript_is_exact(fault_run: FaultRun) -> None:
    speech = Speech(fault_run, 2)
    await speech.begin()
    await speech.sent(30)
    await fault_run.read_to(speech.answer, 4)

    (await fault_run.holder(speech.answer)).kill()

    await speech.finish()
    assert not speech.answer.record.log[-1].event_id.startswith("1-")


async def test_a_killed_node_costs_no_chunk(fault_run: FaultRun) -> None:
    speech = Speech(fault_run, 3)
    await speech.begin()
    await speech.sent(30)

    fault_run.deployment.api[0].kill()

    await speech.finish()
    assert speech.sender.sockets > 1
