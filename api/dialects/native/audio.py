"""Audio that clients send to a running generation: over HTTP here, over /v1/ws in audio_frames.py.

    POST /v1/generations/{id}/audio?seq=3[&last=true]   one chunk: the bytes of the body
    GET /v1/generations/{id}/audio                      which chunk is missing next

A node holds nothing of an input: the numbers, the bytes and the window are in Redis. So each chunk
may go to another node, and may be repeated. Source: docs/audio.md.
"""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

from starlette.requests import Request
from starlette.types import ASGIApp

from api.deadline import answer_deadline
from api.errors import request_error
from api.intake.arriving_body import read_body
from api.intake.body import invalid_request
from api.node import Node
from api.response import json_response
from shared.audio.input import (
    CHUNK_BYTES_MAX,
    SEQ_MAX,
    AudioChunk,
    AudioInputs,
    AudioRefusal,
    AudioState,
)
from shared.audio.record import AUDIO_STEP_BYTES, audio_charge, serves_record
from shared.errors import Expired, NotFound, RequestError
from shared.log import owner_bytes
from shared.log.ids import is_generation_id
from shared.log.owner_bytes import OWNER_RETRY_AFTER_S, OwnerRoom

FULL_RETRY_S = 1  # the Retry-After of `audio_full`


class AudioUploads:
    """Stores the chunks that clients send to this node.

    Every coroutine raises `RequestError`, `NotFound` (also for the generation of another owner), or
    `Unavailable`: Redis did not answer in time, and a repeat is safe.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._inputs = AudioInputs(node.store, node.settings)
        self._room = OwnerRoom(node.settings.owner_bytes_max)

    async def append(self, generation_id: str, owner: str, chunk: AudioChunk) -> AudioState:
        """Store a chunk, unless it is there already."""
        check_chunk(chunk)
        if not is_generation_id(generation_id):
            raise NotFound
        knows_bytes = serves_record(self._node.redis, owner)
        async with answer_deadline():
            if knows_bytes and not await self._has_room(owner, len(chunk.data)):
                await self._check_not_new(generation_id, owner, chunk)
            outcome = await self._inputs.append(generation_id, owner, chunk)
            if isinstance(outcome, AudioRefusal):
                refuse(outcome)
            if knows_bytes and not outcome.is_repeat:
                await self._count(generation_id, owner, outcome.size, len(chunk.data))
            return outcome

    async def state(self, generation_id: str, owner: str) -> AudioState:
        """Return how far an input has got."""
        if not is_generation_id(generation_id):
            raise NotFound
        async with answer_deadline():
            outcome = await self._inputs.state(generation_id, owner)
        if isinstance(outcome, AudioRefusal):
            refuse(outcome)
        return outcome

    async def _has_room(self, owner: str, size: int) -> bool:
        """Whether the owner may keep so many more bytes. Nothing always fits."""
        room, now_s = self._room, asyncio.get_running_loop().time()
        if not size or room.has(owner, size):
            return True
        if room.is_old(owner, now_s):
            call = owner_bytes.total(owner)
            total = int(await self._node.store.scripts.run(owner_bytes.SCRIPT, *call))
            room.hear(owner, total, now_s)
        return room.has(owner, size)

    async def _check_not_new(self, generation_id: str, owner: str, chunk: AudioChunk) -> None:
        """Refuse a chunk that would be stored. Repeats and wrong chunks get their own answers.

        Raises:
            RequestError: `owner_full`.
        """
        state = await self._inputs.state(generation_id, owner)
        if isinstance(state, AudioRefusal) or not state.would_store(chunk.seq):
            return
        error = request_error(
            "owner_full",
            f"this owner's prompts, answers and audio take the {self._room.bytes_max} bytes that "
            "TAILRACE_OWNER_BYTES_MAX allows: delete some and send the chunk again, or end the "
            "input with an empty last chunk",
            retry_after_s=OWNER_RETRY_AFTER_S,
        )
        error.members = {"next_seq": state.next_seq}
        raise error

    async def _count(self, generation_id: str, owner: str, size: int, added: int) -> None:
        """Record the input if it has grown over a step."""
        if -(-size // AUDIO_STEP_BYTES) == -(-(size - added) // AUDIO_STEP_BYTES):
            return
        call = audio_charge(owner, generation_id, size, self._node.settings)
        total = int(await self._node.store.scripts.run(owner_bytes.SCRIPT, *call))
        self._room.hear(owner, total, asyncio.get_running_loop().time())


class AudioRoutes:
    """The handlers of /v1/generations/{id}/audio."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._uploads = AudioUploads(node)

    async def append(self, request: Request) -> ASGIApp:
        """POST /v1/generations/{id}/audio: one chunk."""
        owner, name = self.node.owner(request), request.path_params["id"]
        try:
            seq, is_last = _read_head(request)
        except RequestError:
            await self._uploads.state(name, owner)  # of another owner: the same as of nobody
            raise
        node = self.node
        async with node.bodies.body() as hold:
            data = await read_body(
                request.headers, request.receive,
                bytes_max=CHUNK_BYTES_MAX, hold=hold, is_any_type=True,
            )  # fmt: skip
            chunk = AudioChunk(seq, bytes(data), is_last)
            state = await self._uploads.append(name, owner, chunk)
        return json_response({"id": name, "received_seq": seq, **state_members(state)})

    async def state(self, request: Request) -> ASGIApp:
        """GET /v1/generations/{id}/audio."""
        owner, name = self.node.owner(request), request.path_params["id"]
        state = await self._uploads.state(name, owner)
        return json_response({"id": name, **asked_members(state), "media_type": state.media_type})


def state_members(state: AudioState) -> dict[str, Any]:
    """Return the members that every answer about an input has."""
    return {
        "next_seq": state.next_seq,
        "window_bytes": state.window_bytes,
        "is_complete": state.is_complete,
    }


def asked_members(state: AudioState) -> dict[str, Any]:
    """Return the members of an answer to a question for the state."""
    return {**state_members(state), "status": state.status}


def check_chunk(chunk: AudioChunk) -> None:
    """Check the number and the size of a chunk.

    Raises:
        RequestError: 413 too large; 422 a number out of its bounds, or no bytes in a chunk that is
            not the last.
    """
    if not 0 < chunk.seq <= SEQ_MAX:
        raise invalid_request("seq: chunks are numbered 1, 2, 3 …")
    if len(chunk.data) > CHUNK_BYTES_MAX:
        raise request_error(
            "body_too_large", f"a chunk of audio has at most {CHUNK_BYTES_MAX} bytes: divide it"
        )
    if not chunk.data and not chunk.is_last:
        raise invalid_request("a chunk of audio has bytes; only the last one may be empty")


def refuse(refusal: AudioRefusal) -> NoReturn:
    """Raise the error of a chunk that was not stored.

    Raises:
        NotFound, Expired, RequestError: always one of them.
    """
    if refusal.reason == "absent":
        raise NotFound
    if refusal.reason == "expired":
        raise Expired
    code, message = _REFUSALS[refusal.reason]
    retry_after_s = FULL_RETRY_S if code == "audio_full" else None
    error = request_error(code, message.format(refusal), retry_after_s=retry_after_s)
    if refusal.next_seq:
        error.members = {"next_seq": refusal.next_seq}
    elif refusal.detail:
        error.members = {"status": refusal.detail}
    raise error


_REFUSALS = {
    "ended": ("generation_ended", "this generation has ended as {0.detail}: stop sending"),
    "none": ("no_audio_input", "this generation was started without audio"),
    "conflict": (
        "sequence_conflict",
        "a chunk with this seq and other bytes is stored: only a repeat may use a number again",
    ),
    "complete": ("audio_complete", "the last chunk of this input has come: nothing may follow"),
    "gap": ("sequence_gap", "send the chunks from seq {0.next_seq} on: these are missing"),
    "full": (
        "audio_full",
        "the worker has not read enough of the chunks before: send this chunk again later",
    ),
    "long": (
        "audio_too_long",
        "the input would exceed TAILRACE_AUDIO_BYTES_MAX: send an empty chunk with last",
    ),
}


def _read_head(request: Request) -> tuple[int, bool]:
    """Return the number of a chunk, and whether it is the last.

    Raises:
        RequestError: 415 another content type; 422 a wrong number or flag.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/octet-stream" and not media_type.startswith("audio/"):
        raise request_error(
            "unsupported_media_type", "send content-type: application/octet-stream, or audio/…"
        )
    query = request.query_params
    for name in ("seq", "last"):
        if len(query.getlist(name)) > 1:
            raise invalid_request(f"{name} belongs in the query once")
    return _read_seq(query.get("seq")), _read_flag(query.get("last", "false"))


def _read_seq(text: str | None) -> int:
    is_number = text is not None and text.isascii() and text.isdigit() and len(text) <= 16
    if text is None or not is_number or text.startswith("0"):
        raise invalid_request(
            "seq: the number of the chunk, from 1 and without leading zeros, belongs in the query"
        )
    return int(text)


def _read_flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise invalid_request("last must be true or false")
    return text == "true"
