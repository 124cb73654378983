"""Accepting a prompt: steps in an order that lets a crash between any two lose nothing.

    1  the idempotency key, if any, names the id from now on
    2  its webhook, if any; one whose generation never comes is dropped
    3  the queue entry: a worker that comes too early looks again
    4  meta, only if absent: the moment of acceptance
    5  the indexes of session and owner

Before 2 it is decided whether its owner may keep so much more (shared/log/owner_bytes.py); what it
keeps is noted with 4. Each step may be repeated. A client that got no answer repeats with its key
and finds what is there.
Where the queue was far from full a moment ago, 3 and 4 leave in one request, in this order: then
the worker that the entry wakes finds meta there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec

from shared.config.settings import Settings
from shared.errors import RequestError, Unavailable
from shared.later.webhooks import Webhook, encode_webhook, register
from shared.log import owner_bytes
from shared.log.ids import new_generation_id
from shared.log.owner_bytes import GenerationBytes, OwnerRoom, request_bytes
from shared.log.records import Meta
from shared.log.store import Store
from shared.queue.idempotency import reserve
from shared.queue.lanes import encode_entry, put_back
from shared.redis import keys
from shared.redis.client import Client, Command, translated
from shared.redis.pipeline import Call

RETRY_AFTER_S = 1
FAR_FROM_FULL = 100  # so many may be put between two looks at the queue, by all nodes


@dataclass(frozen=True, slots=True)
class NewGeneration:
    """A validated request.

    Attributes:
        grace_s: readers gone for this long cancel it; None: it goes on without readers.
        idempotency_key: the client's, or empty.
        body_digest: of the request's meaning; the same key with another digest is refused.
        wait_s: it waits so long for a worker; None: as the settings say.
        webhook: whom to tell of its end.
        prompt, dialect: what is shown of `request`, and what its dialect must know again.
    """

    owner: str
    model: str
    request: bytes
    session: str = ""
    metadata: bytes = b"{}"
    priority: str = "interactive"
    grace_s: float | None = None
    idempotency_key: str = ""
    body_digest: str = ""
    webhook: Webhook | None = None
    wait_s: float | None = None
    prompt: str = ""
    dialect: bytes = b""


@dataclass(frozen=True, slots=True)
class Accepted:
    generation_id: str
    is_new: bool
    created_at_ms: int
    status: str
    meta: Meta | None = None  # as it was created, where it is new and was just written


class Acceptor:
    """Accepts prompts onto one Redis."""

    def __init__(self, redis: Client, store: Store, settings: Settings) -> None:
        self.redis = redis
        self.store = store
        self.settings = settings
        self._waiting: dict[str, int] = {}  # by priority, as last seen
        self._room = OwnerRoom(settings.owner_bytes_max)

    async def accept(self, new: NewGeneration, generation_id: str = "") -> Accepted:
        """Accept a prompt, or find the one that the same idempotency key has made.

        Args:
            generation_id: a fresh one, if the caller had to know it before; a key may name another.

        Raises:
            RequestError: 422 `idempotency_mismatch`; 429 `owner_full`; 503 `queue_full`.
            Unavailable: Redis is away; the prompt may have been accepted. With an idempotency key
                it is always safe to repeat.
        """
        generation_id, is_repeat = generation_id or new_generation_id(), False
        if new.idempotency_key:
            generation_id, is_repeat = await self._reserve(new, generation_id)
        if not is_repeat and self._is_far_from_full(new):
            async with self._having_room(new):
                await self._register(generation_id, new)
                meta = await self._enter(generation_id, new)
            await self._index(generation_id, new, meta.created_at_ms)
            return Accepted(generation_id, True, meta.created_at_ms, meta.status, meta)
        return await self.accept_as(generation_id, new, is_repeat=is_repeat)

    async def accept_as(
        self, generation_id: str, new: NewGeneration, *, is_repeat: bool
    ) -> Accepted:
        """Accept a prompt under an id that is the caller's; what is there already stays as it is.

        Args:
            is_repeat: it may have been accepted before, and lost.

        Raises:
            RequestError: 429 `owner_full`, 503 `queue_full`.
            Unavailable: repeating it, as a repeat, is safe.
        """
        if is_repeat:
            meta = await self.store.meta(generation_id)
            if meta is not None:
                await self._index(generation_id, new, meta.created_at_ms)
                return Accepted(generation_id, False, meta.created_at_ms, meta.status)
        async with self._having_room(new):
            await self._register(generation_id, new)
            await self._enqueue(generation_id, new)
            (is_new, status, created_at_ms), total = await self.store.create_charged(
                generation_id, self._fields(new), self._charge(generation_id, new),
                may_be_lost=is_repeat,
            )  # fmt: skip
            self._room.hear(new.owner, total, self._now_s())
        await self._index(generation_id, new, created_at_ms)
        return Accepted(generation_id, is_new, created_at_ms, status)

    async def accept_lines(
        self, lines: Sequence[tuple[str, NewGeneration]], *, is_repeat: bool
    ) -> None:
        """Accept many under ids that are the caller's, in three round trips.

        What is there already stays as it is. They are in nobody's index: their ids follow from
        what they are part of.

        Args:
            is_repeat: they may have been accepted before, and lost.

        Raises:
            Unavailable: some may have been accepted; repeating it is safe.
        """
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            for generation_id, _ in lines:
                pipeline.exists(keys.meta(generation_id))
            known = await pipeline.execute()
        absent = [line for line, is_there in zip(lines, known, strict=True) if not is_there]
        entries = [_entry(generation_id, new, "") for generation_id, new in absent]
        await self.store.scripts.run_all([("enqueue", entry) for entry in entries])
        fields = [(generation_id, self._fields(new)) for generation_id, new in absent]
        await self.store.create_many(fields, may_be_lost=is_repeat)

    async def find(self, owner: str, idempotency_key: str) -> str | None:
        """Return the id of what a key has made, or was about to; None: the key is not known.

        Raises:
            Unavailable.
        """
        with translated():
            found = await self.redis.get(keys.idempotency(owner, idempotency_key))
        return None if found is None else found.decode().partition(" ")[0]

    async def _reserve(self, new: NewGeneration, generation_id: str) -> tuple[str, bool]:
        key = keys.idempotency(new.owner, new.idempotency_key)
        kept_ms = self._idempotency_ms()
        named = await reserve(self.redis, key, generation_id, new.body_digest, kept_ms)
        return named, named != generation_id

    def _idempotency_ms(self) -> int:
        """As long as the longest generation and its retention; shortened when it ends."""
        s = self.settings
        longest_s = s.queue_wait_s + s.attempts_max * s.upstream_total_s + s.retention_s
        return round(longest_s * 1000)

    def _is_far_from_full(self, new: NewGeneration) -> bool:
        """Whether the entry will be taken, as nearly always. Not known: no.

        Not for a key either: should Redis refuse the entry and take meta, a repeat would find meta
        and put no entry. An id without a key is nobody's yet.
        """
        queue_max = self.settings.queue_max
        seen = self._waiting.get(new.priority, queue_max)
        return not new.idempotency_key and seen + FAR_FROM_FULL <= queue_max

    async def _enter(self, generation_id: str, new: NewGeneration) -> Meta:
        """Steps 3 and 4 in one request.

        Raises:
            Unavailable.
        """
        entry = _entry(generation_id, new, self.settings.queue_max)
        waiting, created_at_ms, total = await self.store.enqueue_and_create(
            generation_id, entry, self._fields(new), self._charge(generation_id, new)
        )
        self._room.hear(new.owner, total, self._now_s())
        self._waiting[new.priority] = waiting or self.settings.queue_max
        if not waiting:  # a hundred have come since the last look: this one is within the bound
            await put_back(self.store, generation_id, new.priority, new.model, lane=new.priority)
        return queued_meta(generation_id, new, created_at_ms)

    @asynccontextmanager
    async def _having_room(self, new: NewGeneration) -> AsyncIterator[None]:
        """Let a prompt in whose owner does not keep too much.

        Raises:
            RequestError: 429 `owner_full`.
            Unavailable.
        """
        owner, size, room = new.owner, _size(new), self._room
        if not room.has(owner, size) and room.is_old(owner, self._now_s()):
            call = owner_bytes.total(owner)
            total = int(await self.store.scripts.run(owner_bytes.SCRIPT, *call))
            room.hear(owner, total, self._now_s())
        if not room.has(owner, size):
            raise room.refusal(owner, size)
        with room.coming(owner, size):
            yield

    def _charge(self, generation_id: str, new: NewGeneration) -> Call:
        kept = GenerationBytes(new.owner, generation_id, 0, _size(new))
        return owner_bytes.unfinished(kept, self.settings)

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    async def _register(self, generation_id: str, new: NewGeneration) -> None:
        if new.webhook is not None:
            about = {
                "model": new.model,
                "session": new.session or None,
                "metadata": msgspec.Raw(new.metadata),
            }
            await register(
                self.redis, generation_id, "generation", new.webhook, about, owner=new.owner
            )

    async def _enqueue(self, generation_id: str, new: NewGeneration) -> None:
        lane_keys, args = _entry(generation_id, new, self.settings.queue_max)
        waiting = int(await self.store.scripts.run("enqueue", lane_keys, args))
        self._waiting[new.priority] = waiting or self.settings.queue_max
        if not waiting:
            raise RequestError(
                503,
                "queue_full",
                f"{self.settings.queue_max} prompts wait already: try again",
                retryable=True,
                retry_after_s=RETRY_AFTER_S,
            )

    def _fields(self, new: NewGeneration) -> dict[str, str | bytes]:
        fields: dict[str, str | bytes] = {
            "owner": new.owner,
            "session": new.session,
            "model": new.model,
            "priority": new.priority,
            "request": new.request,
            "metadata": new.metadata,
            "prompt": new.prompt,
        }
        if new.dialect:
            fields["dialect"] = new.dialect
        if new.grace_s is not None:
            fields["grace"] = str(round(new.grace_s * 1000))
        if new.wait_s is not None:
            fields["wait"] = str(round(new.wait_s * 1000))
        if new.idempotency_key:
            fields["idem"] = keys.idempotency(new.owner, new.idempotency_key)
        if new.webhook is not None:
            # Here, too: a worker that writes a lost generation again brings it back.
            fields["webhook"] = encode_webhook(new.webhook)
        return fields

    async def _index(self, generation_id: str, new: NewGeneration, created_at_ms: int) -> None:
        names = [keys.owner(new.owner)]
        if new.session:
            names.append(keys.session(new.owner, new.session))
        kept_ms = self._idempotency_ms() + round(self.settings.retention_s * 1000)
        commands: list[Command] = []
        for name in names:
            commands += [
                ("ZADD", name, created_at_ms, generation_id),
                ("ZREMRANGEBYSCORE", name, "-inf", created_at_ms - kept_ms),
                ("PEXPIRE", name, kept_ms),
            ]
        replies = await self.store.scripts.pipeline.run(commands)
        for reply in replies:
            if isinstance(reply, Exception):
                raise Unavailable(f"Redis refuses: {reply}") from reply


def queued_meta(generation_id: str, new: NewGeneration, created_at_ms: int) -> Meta:
    """Return meta as whoever looks at it would find it just after its creation."""
    return Meta(
        generation_id=generation_id,
        status="queued",
        owner=new.owner,
        session=new.session,
        model=new.model,
        priority=new.priority,
        created_at_ms=created_at_ms,
        attempt=0,
        lease_ms=0,
        waiting_since_ms=created_at_ms,
        failures=0,
        grace_s=None if new.grace_s is None else round(new.grace_s * 1000) / 1000,
        metadata=new.metadata,
        request=b"",
        end=b"",
        ended_at_ms=0,
        prompt=new.prompt,
        dialect=new.dialect,
    )


def _size(new: NewGeneration) -> int:
    return request_bytes(new.request, new.metadata, new.prompt)


def _entry(generation_id: str, new: NewGeneration, waiting_max: int | str) -> Call:
    """Return the call that puts a generation on its lane; `waiting_max`: as `enqueue` has it."""
    entry = encode_entry(generation_id, new.priority, new.model)
    return [keys.lane(new.priority), keys.waiting(new.priority)], [
        generation_id,
        entry,
        waiting_max,
    ]
