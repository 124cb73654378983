"""Streams real speech to a real transcriber while a node and a worker are killed.

    make voice

espeak-ng makes the speech, which is sent at the rate at which it would be spoken. The first run is
left in peace; in the second one a node dies after a third of the speech, and the worker after
another third. Both transcripts are printed, and must be equal. Exit code 1 if they are not.
"""

from __future__ import annotations

import array
import asyncio
import io
import os
import subprocess
import sys
import time
import wave
from pathlib import Path
from typing import Any

from tests.support.audio import AudioSender
from tests.support.fault_run import FaultRun, WatchedGeneration
from tests.support.processes import ROOT, Deployment
from tests.support.wait import until

RATE_HZ = 16_000
CHUNK_BYTES = RATE_HZ * 2 // 10  # a tenth of a second
SPEECH = "Please open the window. I would like a cup of coffee. We will meet again tomorrow."
SITE = Path(os.environ.get("TEST_VOICE_SITE", Path.home() / ".cache/tailrace-voice/site"))
BODY = {
    "model": "pocketsphinx",
    "audio": {"media_type": f"audio/pcm;rate={RATE_HZ};channels=1"},
}
DEADLINE_S = 600.0  # a busy machine decodes slower than speech comes


def speech() -> bytes:
    """Return samples of `SPEECH`, as the transcriber wants them."""
    command = ["espeak-ng", "-s", "130", "--stdout", SPEECH]
    made = subprocess.run(command, check=True, capture_output=True).stdout
    with wave.open(io.BytesIO(made)) as reader:
        rate, samples = reader.getframerate(), array.array("h", reader.readframes(2**30 // 2))
    count = len(samples) * RATE_HZ // rate
    return array.array("h", (samples[at * rate // RATE_HZ] for at in range(count))).tobytes()


async def transcribe(deployment: Deployment, audio: bytes, *, kills: bool) -> str:
    """Return the transcript of one run, which careful readers have checked."""
    async with FaultRun(deployment, deadline_s=DEADLINE_S) as run:
        sender = AudioSender(
            deployment.urls, audio, gap_s=CHUNK_BYTES / 2 / RATE_HZ, chunk_bytes=CHUNK_BYTES
        )
        answer = await run.start(BODY, has_text=False)
        began_s = time.monotonic()
        sending = asyncio.create_task(sender.send(answer.id))
        if kills:
            await kill(run, sender, answer, len(audio) // CHUNK_BYTES)
        await sending
        sent_s = time.monotonic() - began_s
        await run.finish(bound_s=DEADLINE_S)
        record: Any = answer.record
        text = str(record.snapshot["text"])
        print(
            f"{'killed' if kills else 'in peace'}: {len(audio) / 2 / RATE_HZ:.1f} s of speech sent "
            f"in {sent_s:.1f} s over {sender.sockets} sockets, transcript after "
            f"{time.monotonic() - began_s:.1f} s, attempt "
            f"{record.log[-1].event_id.split('-')[0]}, {sender.resent} chunks sent again"
        )
        print(f"  {text}")
        return text


async def kill(run: FaultRun, sender: AudioSender, answer: WatchedGeneration, chunks: int) -> None:
    await until(lambda: sender.received >= chunks // 3, DEADLINE_S, "a third of the speech")
    run.deployment.api[0].kill()
    print(f"  node killed after {sender.received} of {chunks} chunks")
    await until(lambda: sender.received >= 2 * chunks // 3, DEADLINE_S, "two thirds")
    (await run.holder(answer)).kill()
    print(f"  worker killed after {sender.received} of {chunks} chunks")


async def main() -> int:
    audio = speech()
    models = (ROOT / "examples" / "voice" / "models.toml").read_text()
    os.environ["PYTHONPATH"] = f"{ROOT / 'examples' / 'voice'}:{SITE}"
    texts = []
    for kills in (False, True):
        async with Deployment(api=2, workers=2, lease_s=2.0, models=models) as deployment:
            texts.append(await transcribe(deployment, audio, kills=kills))
    is_equal = bool(texts[0]) and texts[0] == texts[1]
    print("the transcripts are equal" if is_equal else "THE TRANSCRIPTS DIFFER")
    return 0 if is_equal else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
