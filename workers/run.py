"""One generation in the hands of one worker: begin, stream, end; or hand over, or stop.

Every way out is one of a few outcomes, and each leaves the queue entry in a state that somebody
else can go on from: acknowledged when there is nothing left to do, left alone when another worker
holds the generation, put on `resume` or `later` when it was given back.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal

from shared.config.models import Model
from shared.errors import BackendError, Unavailable
from shared.log.events import Counts, End, Reset, Token, Usage
from shared.log.ids import START, EventId
from shared.log.records import Absent, Begun, Ended, Entry, Held, Released, failed
from shared.log.request import Request, decode_request
from shared.queue.lanes import Delivery, LaneEntry, put_back
from workers.backends import Finish, Item
from workers.continuation import plan
from workers.outbox import Outbox
from workers.owner_meter import OwnerMeter
from workers.parts import Takeover, WorkerParts
from workers.timeline import Timeline

log = logging.getLogger(__name__)

ABSENT_PAUSE_S = 0.0005  # a worker is often quicker than the node that is still creating meta
ABSENT_S = 10.0  # then the entry is dropped: the prompt was never accepted
NOTED_AFTER_S = 0.02  # an answer that is over before needs no note
RETRY_PAUSE_S = 0.5  # doubled with each failure
RETRY_PAUSE_MAX_S = 30.0
UNSENT_BYTES_MAX = 1_048_576  # past this the backend is not read on: Redis is slower than it
PAGE_ENTRIES = 1_000

StopReason = Literal["drain", "outage", "told"]


@dataclass(slots=True)
class Run:
    """One queue entry, from delivery to its end."""

    tools: WorkerParts
    delivery: Delivery
    ticket: LaneEntry
    begun: Begun | None = None
    held_ms: int | None = None  # begin said: look again after this
    is_giving_back: bool = False  # another entry of it is the next one's
    request: Request | None = None
    _outbox: Outbox | None = None
    _stop: StopReason | None = None
    _scope: asyncio.Timeout | None = None
    _progress: asyncio.Event = field(default_factory=asyncio.Event)
    _usage: Usage | None = None
    _end: End | None = None
    _noting: asyncio.Task[None] | None = None
    _is_noted: bool = False
    _meter: OwnerMeter | None = None
    _timeline: Timeline = field(default_factory=lambda: Timeline(0.0))

    # What the worker asks and says

    @property
    def id(self) -> str:
        return self.ticket.id

    @property
    def model(self) -> Model:
        return self.tools.models[self.ticket.model]

    @property
    def outbox(self) -> Outbox:
        assert self._outbox is not None
        return self._outbox

    @property
    def is_holding(self) -> bool:
        return self._outbox is not None and self._outbox.stopped is None

    def can_hand_over(self) -> bool:
        """Whether another worker could go on without taking anything back."""
        if self._outbox is None or self.request is None:
            return self.begun is None
        backend = self.tools.backends[self.model.name]
        log_so_far = self.outbox.log
        return not plan(
            log_so_far, self.request, self.model, can_continue=backend.can_continue
        ).needs_reset

    def stop(self, reason: StopReason) -> None:
        """Close the backend soon; what was generated is still written where that is allowed."""
        is_first = self._stop is None
        if is_first or reason == "outage":
            self._stop = reason
        self._progress.set()
        if is_first and self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time())

    def on_answer(self) -> None:
        self._progress.set()
        if self._outbox is not None and self._outbox.stopped is not None and self._end is None:
            self.stop("told")

    # The way through

    async def execute(self) -> None:
        """See this entry through. Cancelling it leaves the generation to its lease."""
        try:
            begun = await self._begin()
            if begun is None:
                return
            self.begun = begun
            if begun.start[0].seq > 1:
                self.tools.counters["takeovers"] += 1
            ending = await self._hold(begun)
            self._tell(begun, ending)
        except Unavailable as exc:
            # Nothing is lost: the lease runs out, and whoever sees Redis finds the entry.
            log.warning("run abandoned", extra={"generation_id": self.id, "reason": str(exc)})

    async def _begin(self) -> Begun | None:
        """Become the holder; None: nothing to do, and the entry is dealt with."""
        token, takeover = secrets.token_hex(12), self.tools.takeover()
        give_up_s = self.tools.clock() + ABSENT_S
        pause_s = ABSENT_PAUSE_S
        while True:
            outcome = await self._try_begin(token, takeover)
            match outcome:
                case Begun():
                    return outcome
                case Ended():
                    await self._leave()
                    return None
                case Held(wait_ms):
                    # Not acknowledged, fresh or not: a process that stood still after its read
                    # would take away the very entry that has been claimed from it meanwhile.
                    self.held_ms = wait_ms
                    return None
                case Absent():
                    if self.delivery.is_claimed or self.tools.clock() > give_up_s:
                        await self.tools.queue.acknowledge(self.delivery)
                        return None
            if self._stop is not None:
                return None
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.5)

    async def _try_begin(
        self, token: str, takeover: Takeover
    ) -> Begun | Held | Ended | Absent | None:
        try:
            return await self.tools.store.begin(
                self.id,
                token,
                self.tools.worker,
                quiet_until_ms=takeover.quiet_until_ms,
                forgive_until_ms=takeover.forgive_until_ms,
                survives_worker=self.model.on_takeover != "fail",
            )
        except Unavailable:
            # It may have happened: the same token asks again, for as long as a holder would wait.
            if (
                self.tools.clock() - self.tools.appender.last_ok_s
                > self.tools.settings.redis_outage_s
            ):
                raise
            return None

    async def _hold(self, begun: Begun) -> str:
        now_s = self.tools.clock()
        self._timeline = Timeline(began_s=now_s)
        found = await self._read_found(begun)
        self._outbox = Outbox(
            self.id,
            begun_token(begun),
            found=found,
            start=begun.start,
            fields=begun.fields,
            now_s=now_s,
            lease_every_s=self.tools.settings.lease_s / 4,
            restore_within_s=2 * self.tools.settings.retention_s,  # as long as meta outlives an end
        )
        self._noting = self.tools.spawn(self._note_soon(begun))
        self.request = decode_request(begun.meta.request)
        self._meter = OwnerMeter(self.tools.store, begun)
        error: BackendError | None = None
        try:
            await self._stream(self.request)
            if self._end is None and self._stop is None:
                error = BackendError("upstream_error", "the backend stopped in mid-answer")
        except BackendError as exc:
            error = exc
        if self._end is None and error is not None and self._is_final(begun, error):
            self._push_end(self._failure(begun, error))
        await self._noted(begun)
        if self._end is not None:
            return await self._finish(self._end)
        return await self._give_back(error)

    async def _note_begun(self, begun: Begun) -> None:
        """Say that it waits no more; beside the stream, for nothing in the answer needs it."""
        self._is_noted = True
        try:
            await self.tools.queue.note_begun(self.ticket, begun.meta.created_at_ms)
        except Unavailable:
            pass  # counted as waiting until it ends; each renewal says that it runs

    async def _note_soon(self, begun: Begun) -> None:
        await asyncio.sleep(NOTED_AFTER_S)
        await self._note_begun(begun)

    async def _noted(self, begun: Begun) -> None:
        """Before it is taken out of the indexes, it is in them; what is over need not be."""
        assert self._noting is not None
        if self._is_noted:
            await self._noting
            return
        self._noting.cancel()
        if self._end is None:
            await self._note_begun(begun)

    async def _read_found(self, begun: Begun) -> list[Entry]:
        """What earlier attempts wrote: to go on from, and to write again should Redis lose it."""
        found: list[Entry] = []
        start_id = begun.start[0]
        while len(found) < start_id.seq - 1:
            after = EventId(found[-1][0].attempt, found[-1][0].seq + 1) if found else START
            page = await self.tools.store.page(self.id, after, PAGE_ENTRIES)
            found += [entry for entry in page if entry[0] < start_id]
            if not page or page[-1][0] >= start_id:
                break
        if len(found) != start_id.seq - 1:
            raise Unavailable("the log changed while it was read")
        return found

    async def _stream(self, request: Request) -> None:
        """Stream until the backend is done, the end included, or `stop` is called.

        Raises:
            BackendError: the attempt has failed. Nothing of it matters once the end is pushed: the
                generator is run to its own end only so that its connection can be used again.
        """
        assert self._meter is not None
        backend = self.tools.backends[self.model.name]
        course = plan(self.outbox.log, request, self.model, can_continue=backend.can_continue)
        if course.needs_reset:
            self._push(Reset("restarted"))
        try:
            async with asyncio.timeout(None) as self._scope:
                if self._stop is not None:
                    return None
                stream = backend.stream(request, prefix=course.prefix, seed=self.id)
                async with aclosing(stream):
                    async for items in stream:
                        self._timeline.note_connected(self.tools.clock())
                        if not items and self.outbox.is_settled:
                            continue
                        is_first = self._timeline.first_token_s is None
                        for item in items:
                            self._push(item)
                        is_urgent = is_first or self._end is not None
                        self.tools.appender.offer(self, is_urgent=is_urgent)
                        await self._wait_for_room()
                        await self._meter.note(self.outbox.bytes_kept)
        except TimeoutError:
            if self._stop is None:
                raise
        finally:
            self._scope = None
        return None

    def _push(self, item: Item) -> None:
        if isinstance(item, Finish):
            self._push_end(End("completed", item.reason, usage=self._counts()))
            return
        if isinstance(item, Usage):
            self._usage = item
        elif isinstance(item, Token):
            self._timeline.note_token(item, self.tools.clock())
        self.outbox.push(item)
        if self.outbox.bytes_kept + self.outbox.bytes_unsent > self.tools.settings.answer_bytes_max:
            raise BackendError(
                "answer_too_large",
                f"the answer is longer than {self.tools.settings.answer_bytes_max} bytes",
                retryable=False,
            )

    def _push_end(self, end: End) -> None:
        self._end = end
        self.outbox.push(end)

    def _counts(self) -> Counts | None:
        usage = self._usage
        if usage is None:
            return None
        return Counts(usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)

    async def _wait_for_room(self) -> None:
        """Backpressure: while Redis is slower than the backend, the backend is not read on."""
        while self.outbox.bytes_unsent > UNSENT_BYTES_MAX and self._stop is None:
            self._progress.clear()
            await self._progress.wait()

    def _is_final(self, begun: Begun, error: BackendError) -> bool:
        """Whether a failed attempt is the last one."""
        self.tools.counters["attempts_failed"] += 1
        is_last = begun.failures + 1 >= self.tools.settings.attempts_max
        return is_last or not error.retryable or self.model.on_takeover == "fail"

    def _failure(self, begun: Begun, error: BackendError) -> End:
        code, message = error.code, error.message
        if error.retryable and self.model.on_takeover != "fail":
            message = f"given up after {begun.failures + 1} failures; the last: {code}: {message}"
            code = "attempts_exhausted"
        return failed(code, message, retryable=error.retryable, usage=self._counts())

    # Ways out

    async def _finish(self, end: End) -> str:
        self.tools.appender.offer(self, is_urgent=True)
        await self._settle()
        self._count_loss()
        if self.outbox.stopped != "ended":
            return self.outbox.stopped or "outage"
        await self._leave()
        return end.status if end.error is None else end.error.code

    async def _give_back(self, error: BackendError | None) -> str:
        """Stopped before the end: told so, drained, cut off from Redis, or failed for now."""
        if self.outbox.stopped is None and self._stop != "outage":
            self.tools.appender.offer(self, is_urgent=True)
            await self._settle()
        self._count_loss()
        if self.outbox.stopped == "ended":
            await self._leave()
            return "ended elsewhere"
        if self.outbox.stopped is not None or self._stop == "outage":
            return self.outbox.stopped or "outage"
        return await self._release(error)

    async def _release(self, error: BackendError | None) -> str:
        store, queue = self.tools.store, self.tools.queue
        self.is_giving_back = True
        outcome = await store.release(
            self.id, self.outbox.token, self.outbox.attempt, has_failed=error is not None
        )
        self.outbox.forgo("fenced")
        if not isinstance(outcome, Released):
            return type(outcome).__name__.lower()
        if error is None:
            self.tools.counters["handed_over"] += 1
            await put_back(store, self.id, self.ticket.priority, self.ticket.model)
        else:
            pause_ms = _pause_ms(outcome, error, self.tools.settings.queue_wait_s)
            await queue.try_later(self.ticket, await store.now_ms() + pause_ms)
        await queue.acknowledge(self.delivery)
        return "handed over" if error is None else f"to be tried again: {error.code}"

    def _count_loss(self) -> None:
        if self.outbox.stopped in ("fenced", "lost"):
            self.tools.counters["leases_lost"] += 1
            log.warning("lease lost", extra={"generation_id": self.id, "how": self.outbox.stopped})

    async def _settle(self) -> None:
        """Wait until what was pushed stands in Redis, or never will."""
        while not self.outbox.is_settled and self._stop != "outage":
            self._progress.clear()
            await self._progress.wait()

    async def _leave(self) -> None:
        """It has its end: out of the queue and the indexes. Repeatable, and done again if lost."""
        charge = self._meter.last(self.outbox.bytes_kept) if self._meter is not None else None
        retention_ms = self.tools.store.retention_ms
        try:
            await self.tools.queue.leave(self.delivery, self.id, retention_ms, charge)
        except Unavailable:
            pass  # whoever claims the entry finds that it has ended, and does this

    def _tell(self, begun: Begun, ending: str) -> None:
        self.tools.counters["generations"] += 1
        self.tools.counters["pieces"] += self._timeline.pieces
        story = self._timeline.story(begun, self.tools.store.lease_ms, self.tools.clock())
        log.info("generation left", extra=story | {"model": self.ticket.model, "ending": ending})


def begun_token(begun: Begun) -> str:
    return begun.fields[b"token"].decode()


def _pause_ms(outcome: Released, error: BackendError, wait_s_max: float) -> int:
    pause_s: float = min(RETRY_PAUSE_S * 2 ** (outcome.failures - 1), RETRY_PAUSE_MAX_S)
    # Longer than anybody waits for a worker, nobody waits for a backend either.
    return int(1000 * min(max(pause_s, error.retry_after_s or 0.0), wait_s_max))
