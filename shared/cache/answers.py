"""Stored answers in Redis: what a model has answered to a request, for as long as its table says.

An answer belongs to the generation that stored it, and to the owner of this generation: deleting
either deletes the answer. A worker stores an answer, then looks whether the generation is still
there; a deletion first marks the generation as gone, then looks for its answer. So one of the two
sees the other, and no answer outlives its generation's deletion.

Every coroutine may raise `Unavailable`: Redis did not answer in time. Repeating it is safe.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from shared.log.events import AnyEvent, FinishReason
from shared.log.request import Request
from shared.redis import cache_keys, keys
from shared.redis.client import Client, clock_ms, translated

# Members of `params` that say who asks, and not what.
NAMES = ("user", "safety_identifier", "prompt_cache_key", "metadata", "store")
DROPPED_AT_ONCE = 100


class Stored(msgspec.Struct, frozen=True):
    """One answer, whole.

    Attributes:
        made_at: when it was stored, Unix seconds.
    """

    made_at: int
    reason: FinishReason
    events: list[AnyEvent]
    extra: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class CacheRules:
    """How long and how many answers of a model are kept.

    Attributes:
        answers_max: the answers that would expire first are dropped beyond this number.
    """

    ttl_s: float
    answers_max: int


_decode = msgspec.json.Decoder(Stored).decode


class AnswerCache:
    """The stored answers of all models on one Redis."""

    def __init__(self, redis: Client) -> None:
        self.redis = redis

    async def find(self, model: str, key: str) -> Stored | None:
        """Return an answer; None: there is none, or a newer version has written it."""
        with translated():
            raw = await self.redis.hget(cache_keys.cached(model, key), "answer")  # type: ignore[misc]
        try:
            return None if raw is None else _decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None

    async def store(
        self, model: str, key: str, raw: bytes, rules: CacheRules, *, owner: str, generation: str
    ) -> bool:
        """Store an answer. False: the generation did not complete, or is deleted."""
        name, index = cache_keys.cached(model, key), cache_keys.cache_index(model)
        ttl_ms = round(rules.ttl_s * 1000)
        now_ms = await clock_ms(self.redis)
        with translated():
            await self.redis.set(cache_keys.cached_by(generation), name, px=ttl_ms)
            pipeline = self.redis.pipeline(transaction=True)
            pipeline.delete(name)
            pipeline.hset(name, mapping={"owner": owner, "by": generation, "answer": raw})
            pipeline.pexpire(name, ttl_ms)
            pipeline.zadd(index, {key: now_ms + ttl_ms})
            pipeline.zremrangebyscore(index, "-inf", now_ms)
            pipeline.pexpire(index, ttl_ms)
            pipeline.zcard(index)
            *_, count = await pipeline.execute()
            status = await self.redis.hget(keys.meta(generation), "status")  # type: ignore[misc]
        if status != b"completed":
            await self.drop_of(generation, name)
            return False
        if count > rules.answers_max:
            await self._trim(model, min(count - rules.answers_max, DROPPED_AT_ONCE))
        return True

    async def _trim(self, model: str, count: int) -> None:
        with translated():
            found = await self.redis.zpopmin(cache_keys.cache_index(model), count)
            names = [cache_keys.cached(model, raw.decode()) for raw, _ in found]
            if names:
                await self.redis.unlink(*names)

    async def drop(self, name: str) -> None:
        """Delete one answer.

        Args:
            name: its key.
        """
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            pipeline.unlink(name)
            pipeline.zrem(cache_keys.index_of(name), cache_keys.key_of(name))
            await pipeline.execute()

    async def drop_of(self, generation: str, name: str) -> None:
        """Delete the answer that a deleted generation has stored, unless another one replaced it.

        Args:
            name: the value of `cached_by`.
        """
        with translated():
            by = await self.redis.hget(name, "by")  # type: ignore[misc]
            await self.redis.unlink(cache_keys.cached_by(generation))
        if by == generation.encode():
            await self.drop(name)


def key_for(request: Request, *, owner: str, model: str) -> str:
    """Return the name under which the answer to a request is stored.

    Two requests have the same name if the model sees the same: ids of messages and of tool calls
    make no difference, nor do names of users.

    Args:
        owner: empty: the answer is for all owners.
        model: everything about the model that changes its answers.
    """
    calls: dict[str, str] = {}
    params = {name: value for name, value in request.params.items() if name not in NAMES}
    messages = [_canonical(message, calls) for message in request.messages]
    raw = msgspec.json.encode([1, owner, model, messages, params], order="sorted")
    return hashlib.sha256(raw).hexdigest()


def _canonical(message: Mapping[str, Any], calls: dict[str, str]) -> dict[str, Any]:
    """Return a message without its id, with the ids of calls replaced by numbers.

    A number is the place of the id in the order of first use.
    """

    def number(call_id: Any) -> Any:
        if not isinstance(call_id, str):
            return call_id
        return calls.setdefault(call_id, str(len(calls)))

    found = {name: value for name, value in message.items() if name != "id"}
    if isinstance(made := found.get("tool_calls"), list):
        found["tool_calls"] = [
            {**call, "id": number(call.get("id"))} if isinstance(call, dict) else call
            for call in made
        ]
    if "tool_call_id" in found:
        found["tool_call_id"] = number(found["tool_call_id"])
    return found


def encode_stored(
    events: Sequence[AnyEvent], reason: FinishReason, extra: dict[str, Any] | None, made_at: int
) -> bytes:
    """Return the JSON of an answer."""
    return msgspec.json.encode(Stored(made_at, reason, list(events), extra))
