"""Audio of a client that reaches its generation whole, whichever process dies meanwhile.

The stand-in transcriber makes a known text of the audio, so one chunk that is lost, repeated or out
of order changes the text.
"""

from __future__ import annotations

from tests.support.fault_run import FaultRun
from tests.support.speech import Speech


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
