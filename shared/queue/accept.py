"""Accepts prompts, in an order in which a crash between two steps loses no accepted prompt.

    1  the idempotency key, if any, names the id from now on
    2  the webhook, if any, is registered; it is dropped if the generation never comes
    3  the queue entry is added; a worker that reads it before step 4 looks again later
    4  meta is created, if absent: this is the moment of acceptance
    5  the indexes of session and owner are written

A large request is written in pieces before step 3 (shared/log/request_pieces.py).
Before step 2, `OwnerRoom` decides whether the owner may store this prompt; step 4 also records its
bytes. Each step may be repeated. A client that got no response repeats the request with its key,
and gets the generation that exists.
If the queue was far from full a moment ago, steps 3 and 4 share one round trip, in this order: a
worker that the entry wakes finds meta.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec

from shared.config.settings import Settings
from shared.errors import RequestError
from shared.later.webhooks import register
from shared.log import owner_bytes
from shared.log.lifetimes import named_ms, request_ms
from shared.log.owner_bytes import GenerationBytes, OwnerRoom
from shared.log.records import Meta
from shared.log.request_pieces import Pieces, piece_count
from shared.log.store import Store
from shared.queue.allowance import ADMIT, line_admission
from shared.queue.allowances import Allowances, Count
from shared.queue.idempotency import Reservation, find, reserve
from shared.queue.listing import Listed, Listing
from shared.queue.new_generation import Accepted as Accepted
from shared.queue.new_generation import NewGeneration as NewGeneration
from shared.queue.new_generation import meta_fields, queued_meta, request_size
from shared.queue.overview import waiting_by_tag
from shared.queue.partitions import partitions_of
from shared.queue.placement import draw_id
from shared.queue.time_limits import PRODUCER_LOOK_S, note_due, watch_producer
from shared.queue.turns import entering
from shared.redis import keys
from shared.redis.client import Client, translated
from shared.redis.pipeline import Call
from shared.redis.shards import serves

QUEUE_FULL_RETRY_S = 1  # the Retry-After of `queue_full`
# A repeat waits this long for the first request of its key, which may be on its way elsewhere.
FIRST_REQUEST_S = 1.0
FIRST_REQUEST_LOOK_S = 0.02
FAR_FROM_FULL = 100  # entries that all nodes may add between two checks of the queue's length


class Acceptor:
    """Accepts prompts on one Redis."""

    def __init__(self, redis: Client, store: Store, settings: Settings) -> None:
        self.redis = redis
        self.store = store
        self.settings = settings
        self._partitions = partitions_of(settings)
        # The number of waiting generations by priority and partition, as last returned.
        self._waiting: dict[str, dict[str, int]] = {name: {} for name in keys.PRIORITIES}
        self._room = OwnerRoom(settings.owner_bytes_max)
        self._allowances = Allowances(store)
        self._listing = Listing(redis, store, settings)

    def draw_id(self) -> str:
        """Return a new id, on shards of Redis that answer."""
        return draw_id(self.redis, self._partitions)

    async def accept(self, new: NewGeneration, generation_id: str = "") -> Accepted:
        """Accept a prompt, or find the generation of the same idempotency key.

        Args:
            generation_id: a new id, if the caller needs it beforehand; the key may name another.

        Raises:
            RequestError: 422 `idempotency_mismatch`; 429 `owner_full`, or `OverLimit`; 503
                `queue_full`.
            Unavailable: Redis did not answer in time; the prompt may have been accepted. A repeat
                with an idempotency key is always safe.
        """
        generation_id = generation_id or self.draw_id()
        if new.idempotency_key:
            reserved = await self._reserve(new, generation_id)
            if not reserved.is_new:
                return await self._accept_repeat(reserved, new)
        if self._is_far_from_full(new):
            # A webhook would tell of a generation that is taken back.
            may_ride = new.webhook is None
            admitting = self._allowances.admit(generation_id, new, may_ride=may_ride)
            async with self._owner_room(new), admitting as count:
                await self._register(generation_id, new)
                await self._deposit(generation_id, new)
                meta = await self._enter(generation_id, new, count)
            await self._index(generation_id, new, meta.created_at_ms)
            return Accepted(generation_id, True, meta.created_at_ms, meta.status, meta, count.left)
        return await self.accept_as(generation_id, new, is_repeat=False)

    async def _accept_repeat(self, reserved: Reservation, new: NewGeneration) -> Accepted:
        """Find the generation of a key, or accept the prompt under the id that the key names."""
        if (found := await self._find_repeated(reserved, new)) is not None:
            return found
        # In a cluster the key is on another shard than the generation.
        is_known = reserved.is_of_this_history and not self.settings.is_cluster
        # After the retention, the generation may have existed and be forgotten.
        may_be_lost = not is_known or reserved.age_ms >= self.store.retention_ms
        return await self._accept_as(reserved.id, new, may_be_lost=may_be_lost)

    async def _find_repeated(self, reserved: Reservation, new: NewGeneration) -> Accepted | None:
        """Find the generation of a key; wait for it while the first request may be on its way."""
        until_s = self._now_s() + FIRST_REQUEST_S
        while True:
            if (found := await self._find_known(reserved.id, new)) is not None:
                return found
            if reserved.age_ms >= 1000 * FIRST_REQUEST_S or self._now_s() >= until_s:
                return None
            await asyncio.sleep(FIRST_REQUEST_LOOK_S)

    async def accept_as(
        self, generation_id: str, new: NewGeneration, *, is_repeat: bool
    ) -> Accepted:
        """Accept a prompt under an id of the caller, unless that generation exists.

        Args:
            is_repeat: the prompt may have been accepted before, and lost by Redis.

        Raises:
            RequestError: 429 `owner_full`, or `OverLimit`; 503 `queue_full`.
            Unavailable: Redis did not answer in time; safe to repeat with `is_repeat`.
        """
        if is_repeat and (found := await self._find_known(generation_id, new)) is not None:
            return found
        return await self._accept_as(generation_id, new, may_be_lost=is_repeat)

    async def _find_known(self, generation_id: str, new: NewGeneration) -> Accepted | None:
        """Find a generation that was accepted before, and write its indexes again; None: absent."""
        meta = await self.store.meta(generation_id)
        if meta is None:
            return None
        await self._index(generation_id, new, meta.created_at_ms)
        return Accepted(generation_id, False, meta.created_at_ms, meta.status)

    async def _accept_as(
        self, generation_id: str, new: NewGeneration, *, may_be_lost: bool
    ) -> Accepted:
        async with self._owner_room(new), self._allowances.admit(generation_id, new) as count:
            await self._register(generation_id, new)
            await self._deposit(generation_id, new)
            await self._enqueue(generation_id, new)
            (is_new, status, created_at_ms), total = await self.store.create_charged(
                generation_id, meta_fields(new), self._charge(generation_id, new),
                may_be_lost=may_be_lost,
            )  # fmt: skip
            self._hear_bytes(new, total)
        await self._index(generation_id, new, created_at_ms)
        return Accepted(generation_id, is_new, created_at_ms, status, allowance=count.left)

    async def accept_lines(
        self, lines: Sequence[tuple[str, NewGeneration]], *, is_repeat: bool
    ) -> None:
        """Accept many prompts under ids of the caller, in a few round trips for all of them.

        A large request needs further round trips, one for each of its pieces.

        Existing generations do not change. No index lists these prompts: their ids are derived from
        the batch that they belong to.

        Args:
            is_repeat: the prompts may have been accepted before, and lost by Redis.

        Raises:
            Unavailable: Redis did not answer in time; some may have been accepted. Repeating it is
                safe.
        """
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            for generation_id, _ in lines:
                pipeline.exists(keys.meta(generation_id))
            known = await pipeline.execute()
        absent = [line for line, is_there in zip(lines, known, strict=True) if not is_there]
        for generation_id, new in absent:
            await self._deposit(generation_id, new)
        counts = [
            (ADMIT, line_admission(new.owner, generation_id, new.wait_s or 0.0))
            for generation_id, new in absent
            if new.limits.tokens_per_day
        ]
        entries = [self._entry(generation_id, new, "") for generation_id, new in absent]
        await self.store.scripts.run_all([*counts, *(("enqueue", entry) for entry in entries)])
        fields = [(generation_id, meta_fields(new)) for generation_id, new in absent]
        await self.store.create_many(fields, may_be_lost=is_repeat)
        limited = [(generation_id, new.time_limits) for generation_id, new in absent]
        await note_due(self.store, limited)

    async def find(self, owner: str, idempotency_key: str) -> str | None:
        """Return the id that an idempotency key names; None: the key is unused.

        The generation of this id may not exist yet.

        Raises:
            Unavailable: Redis did not answer in time.
        """
        return await find(self.redis, keys.idempotency(owner, idempotency_key))

    async def _reserve(self, new: NewGeneration, generation_id: str) -> Reservation:
        key = keys.idempotency(new.owner, new.idempotency_key)
        kept_ms = named_ms(self.settings)  # `forget` shortens this when the generation ends
        return await reserve(self.store.scripts, key, generation_id, new.body_digest, kept_ms)

    def _is_far_from_full(self, new: NewGeneration) -> bool:
        """Whether the queue has room for the entry, as it nearly always has. Unknown: False.

        False for a prompt with a key: if Redis refused the entry and took meta, a repeat would find
        meta and add no entry. Without a key no client can know the id yet.
        """
        seen, tags = self._waiting[new.priority], self._partitions.tags
        if new.producer or new.idempotency_key or len(seen) < len(tags):
            return False
        return sum(seen.values()) + FAR_FROM_FULL * len(tags) <= self.settings.queue_max

    async def _enter(self, generation_id: str, new: NewGeneration, count: Count) -> Meta:
        """Do steps 3 and 4 in one round trip. Raises Unavailable and `OverLimit`."""
        room = self._room_in_partition(generation_id, new)
        entry = self._entry(generation_id, new, room)
        waiting, created_at_ms, total, counted = await self.store.enqueue_and_create(
            generation_id, entry, meta_fields(new), self._charge(generation_id, new), count.riding
        )
        self._hear_bytes(new, total)
        self._hear_waiting(generation_id, new, waiting or room)
        if counted is not None:
            count.hear(counted)
        if not waiting:  # other nodes have filled the queue: one entry more is within the bound
            again = self._entry(generation_id, new, "")
            await self.store.scripts.run("enqueue", *again)
        return queued_meta(generation_id, new, created_at_ms)

    @asynccontextmanager
    async def _owner_room(self, new: NewGeneration) -> AsyncIterator[None]:
        """Count a prompt while it is being accepted, if its owner may store it.

        Raises:
            RequestError: 429 `owner_full`.
            Unavailable: Redis did not answer in time.
        """
        owner, size, room = new.owner, request_size(new), self._room
        if not self._knows_bytes(owner):
            yield
            return
        if not room.has(owner, size) and room.is_old(owner, self._now_s()):
            call = owner_bytes.total(owner)
            total = int(await self.store.scripts.run(owner_bytes.SCRIPT, *call))
            room.hear(owner, total, self._now_s())
        if not room.has(owner, size):
            raise room.refusal(owner, size)
        with room.coming(owner, size):
            yield

    def _knows_bytes(self, owner: str) -> bool:
        """Whether the shard of the owner's record answers. Without it nothing is counted."""
        return serves(self.redis, keys.owner_bytes(owner))

    def _hear_bytes(self, new: NewGeneration, total: int | None) -> None:
        if total is not None:
            self._room.hear(new.owner, total, self._now_s())

    def _charge(self, generation_id: str, new: NewGeneration) -> Call | None:
        """Return the call that records the prompt's bytes; None: its shard is away.

        The worker records the whole size of the generation later.
        """
        if not self._knows_bytes(new.owner):
            return None
        kept = GenerationBytes(new.owner, generation_id, 0, request_size(new))
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

    async def _deposit(self, generation_id: str, new: NewGeneration) -> None:
        """Write a large request, which is no field of meta. Raises Unavailable."""
        if piece_count(new.request):
            kept = request_ms(self.settings, new.wait_s)
            await Pieces(generation_id, new.request, kept).deposit(self.store.scripts.pipeline)

    async def _enqueue(self, generation_id: str, new: NewGeneration) -> None:
        if new.producer is not None:
            # No worker takes it. Noted before it exists: then it ends also if this process dies.
            may_end_sooner = new.time_limits.deadline_s is not None or new.grace_s is not None
            within_s = min(new.producer.lease_s, PRODUCER_LOOK_S if may_end_sooner else math.inf)
            await watch_producer(self.store, generation_id, within_s)
            return
        if len(self._partitions.tags) > 1:
            # Only the sum decides, and the script knows one partition. Prompts that other nodes
            # accept at this moment may exceed the bound by their number.
            self._waiting[new.priority] = await waiting_by_tag(self.store, new.priority)
        room = self._room_in_partition(generation_id, new)
        lane_keys, args = self._entry(generation_id, new, room)
        waiting = int(await self.store.scripts.run("enqueue", lane_keys, args))
        self._hear_waiting(generation_id, new, waiting or room)
        if not waiting:
            raise RequestError(
                503,
                "queue_full",
                f"{self.settings.queue_max} prompts wait already: try again",
                retryable=True,
                retry_after_s=QUEUE_FULL_RETRY_S,
            )

    def _room_in_partition(self, generation_id: str, new: NewGeneration) -> int:
        """Return how many may wait in the partition of an id, with those of the others counted."""
        own, seen = self._partitions.of(generation_id), self._waiting[new.priority]
        others = sum(number for tag, number in seen.items() if tag != own)
        return max(0, self.settings.queue_max - others)

    def _hear_waiting(self, generation_id: str, new: NewGeneration, number: int) -> None:
        self._waiting[new.priority][self._partitions.of(generation_id)] = number

    def _entry(self, generation_id: str, new: NewGeneration, waiting_max: int | str) -> Call:
        """Return the `enqueue` call of a generation; `waiting_max`: "" for no bound."""
        names, entry, rest = entering(
            generation_id,
            owner=new.owner,
            priority=new.priority,
            model=new.model,
            tag=self._partitions.of(generation_id),
            weight=new.limits.weight,
        )
        return names, [generation_id, entry, waiting_max, *rest]

    async def _index(self, generation_id: str, new: NewGeneration, created_at_ms: int) -> None:
        if new.producer is None:
            await note_due(self.store, [(generation_id, new.time_limits)], created_at_ms)
        await self._listing.add(Listed(generation_id, new.owner, new.session, created_at_ms))
