"""A client that sends audio over /v1/ws, and comes back after every loss. It knows docs/audio.md.

It keeps every chunk until the input is complete, hops over the nodes, and asks `audio_state` on
each new socket. `pcm` makes audio of which the stand-in transcriber makes words and sentences.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import struct
from collections.abc import Sequence
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection, connect

from shared.audio.media import parse_media_type
from workers.backends.demo_transcriber.transcript import transcript_of

RATE = 8_000
MEDIA_TYPE = f"audio/pcm;rate={RATE};channels=1"
MODEL = "demo-transcriber"
CHUNK_BYTES = 1_600  # a tenth of a second
ANSWER_S = 5.0


def audio_body() -> dict[str, Any]:
    return {"model": MODEL, "audio": {"media_type": MEDIA_TYPE}}


def pcm(seconds: float, seed: int = 1) -> bytes:
    """Return loud samples with a quiet second after every third one; each seed sounds different."""
    draw = random.Random(seed)
    samples: list[int] = []
    for at in range(round(seconds * 4)):
        is_quiet = at % 16 >= 12
        tone = draw.uniform(0.05, 0.4)
        loudness = 50 if is_quiet else 8_000
        samples += [round(loudness * math.sin(tone * n)) for n in range(RATE // 4)]
    return struct.pack(f"<{len(samples)}h", *samples)


def chunks_of(audio: bytes, size: int = CHUNK_BYTES) -> list[bytes]:
    return [audio[at : at + size] for at in range(0, len(audio), size)]


def text_of(audio: bytes) -> str:
    return transcript_of(parse_media_type(MEDIA_TYPE), audio)


def audio_frame(generation_id: str, seq: int, data: bytes, *, is_last: bool = False) -> bytes:
    head: dict[str, Any] = {"type": "audio", "id": generation_id, "seq": seq}
    if is_last:
        head["last"] = True
    return json.dumps(head).encode() + b"\n" + data


class AudioSender:
    """Sends one input.

    Args:
        gap_s: the pause between two chunks, s.

    Attributes:
        received: the highest number that a node has confirmed.
        sockets: how many sockets were opened.
        resent: how many confirmed chunks Redis had lost.
    """

    def __init__(self, urls: Sequence[str], audio: bytes, *, gap_s: float = 0.0) -> None:
        self._urls = urls
        self._chunks = chunks_of(audio)
        self._gap_s = gap_s
        self.received = self.sockets = self.resent = 0
        self.errors: list[dict[str, Any]] = []

    async def send(self, generation_id: str) -> None:
        """Return when the whole input is confirmed."""
        while True:
            url = self._urls[self.sockets % len(self._urls)].replace("http", "ws", 1)
            self.sockets += 1
            try:
                async with connect(f"{url}/v1/ws", open_timeout=ANSWER_S, ping_interval=None) as ws:
                    await self._send_on(ws, generation_id)
                    return
            except (OSError, TimeoutError, websockets.WebSocketException):
                await asyncio.sleep(0.05)

    async def _send_on(self, ws: ClientConnection, generation_id: str) -> None:
        await ws.send(json.dumps({"type": "audio_state", "id": generation_id}))
        state = await self._answer(ws)
        if state["type"] == "error":
            raise OSError(state["code"])
        seq, is_complete = state["next_seq"], state["is_complete"]
        self.resent += max(0, self.received + 1 - seq)
        while not is_complete:
            data, is_last = self._chunks[seq - 1], seq == len(self._chunks)
            await ws.send(audio_frame(generation_id, seq, data, is_last=is_last))
            answer = await self._answer(ws)
            if answer["type"] == "audio_received":
                self.received = seq
                seq, is_complete = answer["next_seq"], answer["is_complete"]
                await asyncio.sleep(self._gap_s)
                continue
            self.errors.append(answer)
            if answer["code"] == "sequence_gap":
                self.resent += max(0, self.received + 1 - answer["next_seq"])
                seq = answer["next_seq"]
            elif answer["retryable"]:
                await asyncio.sleep(0.05)
            else:
                raise AssertionError(answer)

    async def _answer(self, ws: ClientConnection) -> dict[str, Any]:
        async with asyncio.timeout(ANSWER_S):
            answer: dict[str, Any] = json.loads(await ws.recv())
            return answer
