"""The idempotency key of a request that has none, for clients that name their turn.

Codex names its thread and its turn in `client_metadata`. After a cut it sends the same turn again:
over HTTP the same body; on a new socket the whole conversation in the place of
`previous_response_id`. So the key is made of what the model gets, and not of the body or frame. A
later request of the same turn has more input, so it has another key. Source:
docs/dialects/responses-websocket.md.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from shared.log.request import Request
from shared.text.large import LARGE_BYTES, LongTexts

_encode_canonical = msgspec.json.Encoder(order="deterministic").encode


class ClientTurn(NamedTuple):
    """A turn of a client, and the model that it asks."""

    name: str
    model: Any


def turn_of(body: dict[str, Any]) -> ClientTurn | None:
    """Return the turn of a request; None: the client names none."""
    metadata = body.get("client_metadata")
    if not isinstance(metadata, dict):
        return None
    thread, turn = metadata.get("thread_id"), metadata.get("turn_id")
    is_named = isinstance(thread, str) and isinstance(turn, str) and thread and turn
    return ClientTurn(f"{thread}\n{turn}", body.get("model")) if is_named else None


async def turn_key(turn: ClientTurn, request: Request) -> str:
    """Return the key of a request of a turn. Large requests are encoded and hashed in steps.

    Args:
        request: with its whole conversation.
    """
    texts = LongTexts()
    marked = await texts.taken([*turn, request.messages, request.params])
    parts = list(texts.parts(_encode_canonical(marked)))
    if sum(map(len, parts)) < LARGE_BYTES:
        return "turn:" + _digest_of(parts)
    return "turn:" + await asyncio.to_thread(_digest_of, parts)


def _digest_of(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
