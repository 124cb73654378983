"""A transcriber as a plug-in: PocketSphinx with the English model of its wheel, on the CPU.

    pip install pocketsphinx==5.1.1
    PYTHONPATH=examples/voice TAILRACE_MODELS=examples/voice/models.toml tailrace up

The audio is cut at silences, and each part is decoded by itself. So the text of a part depends on
nothing but its samples: a takeover decodes the same audio again, gets the same text, and leaves out
what readers have. Nothing depends on the borders of the chunks, because frames have a fixed length.

PocketSphinx keeps Python's interpreter lock while it decodes. In a thread of the worker it would
delay all other answers, and the leases; so it has processes of its own.
"""

from __future__ import annotations

import array
import functools
import math
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from shared.config.models import Model
from workers.backends.plugin import Backend, BackendError, PluginRequest

RATE_HZ = 16_000
FRAME_BYTES = RATE_HZ // 50 * 2  # 20 ms
LOUD = 300.0  # root mean square of a frame with speech
QUIET_FRAMES = 15  # 0.3 s of silence end a part
PART_FRAMES_MAX = 1_000  # 20 s
LEAD_FRAMES = 10  # of silence before speech, which belong to the part


class PocketSphinx(Backend):
    can_continue = True

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        count = int(model.options.get("processes", 1))
        self._processes = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"))

    def answer(self, request: PluginRequest) -> Iterator[str]:
        """Yield the text of each part when it is over."""
        audio = request.audio
        if audio is None or audio.format.rate_hz != RATE_HZ or audio.format.channels != 1:
            raise BackendError(
                "upstream_refused",
                f"this model needs audio/pcm;rate={RATE_HZ};channels=1",
                retryable=False,
            )
        said, prefix = "", request.prefix
        for part in parts(audio):
            text = self._processes.submit(transcribe, part).result()
            if not text:
                continue
            text = f" {text}" if said else text
            before, said = len(said), said + text
            if len(said) > len(prefix):
                yield said[max(before, len(prefix)) :]


def parts(audio: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the samples of each stretch of speech."""
    lead: list[bytes] = []
    part: list[bytes] = []
    quiet = 0
    for frame in frames(audio):
        is_loud = loudness(frame) >= LOUD
        if not part and not is_loud:
            lead = [*lead, frame][-LEAD_FRAMES:]
            continue
        part = part or lead
        part.append(frame)
        quiet = 0 if is_loud else quiet + 1
        if quiet >= QUIET_FRAMES or len(part) >= PART_FRAMES_MAX:
            yield b"".join(part)
            lead, part, quiet = [], [], 0
    if part:
        yield b"".join(part)


def frames(audio: Iterator[bytes]) -> Iterator[bytes]:
    """Yield frames of `FRAME_BYTES`, wherever the borders of the chunks are."""
    waiting = b""
    for data in audio:
        waiting += data
        whole = len(waiting) // FRAME_BYTES * FRAME_BYTES
        for at in range(0, whole, FRAME_BYTES):
            yield waiting[at : at + FRAME_BYTES]
        waiting = waiting[whole:]
    if len(waiting) >= 2:
        yield waiting[: len(waiting) // 2 * 2]


def loudness(frame: bytes) -> float:
    samples = array.array("h", frame)
    return math.sqrt(sum(sample * sample for sample in samples) / len(samples))


def transcribe(samples: bytes) -> str:
    """Return the words in a part; the same samples always give the same words. In the process."""
    decoder, cmn = _decoder()
    decoder.set_cmn(cmn)  # a decoder adapts to what it has heard before: forget it
    decoder.start_utt()
    decoder.process_raw(samples, no_search=False, full_utt=True)
    decoder.end_utt()
    found = decoder.hyp()
    return "" if found is None else str(found.hypstr)


@functools.cache
def _decoder() -> tuple[Any, str]:
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=RATE_HZ, loglevel="FATAL")
    return decoder, decoder.get_cmn(False)
