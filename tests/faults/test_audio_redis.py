"""Audio of a client while Redis dies, and while Redis loses what it took last."""

from __future__ import annotations

import os

from tests.faults.test_redis_loss import aof_of
from tests.support.fault_run import FaultRun
from tests.support.speech import Speech


async def test_redis_killed_and_back_with_its_aof_costs_no_chunk(fault_run: FaultRun) -> None:
    speech = Speech(fault_run, 4)
    await speech.begin()
    await speech.sent(30)

    fault_run.deployment.server.restart()

    await speech.finish(is_lossless=False)


async def test_chunks_that_redis_lost_are_sent_again_and_the_transcript_is_exact(
    fault_run: FaultRun,
) -> None:
    """As when a machine loses power: the last chunks are gone, although they were confirmed."""
    speech, server = Speech(fault_run, 5), fault_run.deployment.server
    await speech.begin()
    await speech.sent(20)
    kept_bytes = aof_of(server).stat().st_size
    await speech.sent(40)

    server.kill()
    os.truncate(aof_of(server), kept_bytes)
    server.start()

    await speech.finish(is_lossless=False)
    assert speech.sender.resent >= 10
