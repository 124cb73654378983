"""The life of one generation in one worker: begin, stream, and one of several ways out.

    the generation …                          the queue entry is …
    has its end (here or elsewhere)           acknowledged
    was drained: the run releases it          acknowledged; a new entry is put on `resume`
    failed and may be retried: released       acknowledged; a new entry is put on `later`
    was never created                         acknowledged after `ABSENT_ENTRY_DROP_S`
    is held by another worker                 kept, and tried again when the lease may be over
    has another holder now, or Redis is away  left to be claimed by another worker

Invariant: after every way out, another worker can continue from what is in Redis.
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
from shared.log.records import Absent, Begun, Ended, Held, Released, failed
from shared.log.request import Request, decode_request
from shared.queue.lanes import Delivery, LaneEntry, put_back
from workers.backends import BackendItem, Finish
from workers.backends.retry_after import retry_pause_s
from workers.continuation import plan_attempt
from workers.earlier_entries import read_earlier_entries
from workers.outbox import Outbox
from workers.owner_meter import OwnerMeter
from workers.parts import Takeover, WorkerParts
from workers.running_note import RunningNote
from workers.timeline import AttemptTimeline

log = logging.getLogger(__name__)

# A worker often reads the entry before the node has created meta: begin again after this pause,
# which doubles up to the maximum.
BEGIN_PAUSE_S = 0.0005
BEGIN_PAUSE_MAX_S = 0.5
ABSENT_ENTRY_DROP_S = 10.0  # a generation absent for so long was never accepted: drop the entry
RUNNING_NOTE_DELAY_S = 0.02  # a shorter answer is never noted as running
RETRY_PAUSE_S = 0.5  # before the second attempt; doubles with each failure
RETRY_PAUSE_MAX_S = 30.0
UNSENT_BYTES_MAX = 1_048_576  # with more unsent, Redis is slower than the backend: stop reading it

StopReason = Literal["drain", "outage", "not holder"]


@dataclass(slots=True)
class Run:
    """One queue entry in this worker, from its delivery to its way out.

    Attributes:
        delivery: the queue entry as it was read or claimed.
        ticket: the content of the entry: id, priority, model.
        begun: the answer of begin; None until this worker is the holder.
        held_ms: set when another worker holds the generation: try the entry again after this time.
        is_giving_back: the release has started, so another entry for this generation may be the one
            that this run put back: do not drop it.
        request: the decoded request; None before the stream starts.
    """

    parts: WorkerParts
    delivery: Delivery
    ticket: LaneEntry
    begun: Begun | None = None
    held_ms: int | None = None
    is_giving_back: bool = False
    request: Request | None = None
    _outbox: Outbox | None = None
    _stop: StopReason | None = None
    _stop_scope: asyncio.Timeout | None = None  # set while the backend streams
    _progress: asyncio.Event = field(default_factory=asyncio.Event)
    _usage: Usage | None = None
    _end: End | None = None  # set once the end is in the outbox
    _meter: OwnerMeter | None = None
    _timeline: AttemptTimeline = field(default_factory=lambda: AttemptTimeline(0.0))

    # For the worker and the appender

    @property
    def id(self) -> str:
        return self.ticket.id

    @property
    def model(self) -> Model:
        return self.parts.models[self.ticket.model]

    @property
    def outbox(self) -> Outbox:
        assert self._outbox is not None
        return self._outbox

    @property
    def is_holding(self) -> bool:
        return self._outbox is not None and self._outbox.stopped is None

    def can_hand_over(self) -> bool:
        """Whether another worker could continue without a `reset`."""
        if self._outbox is None or self.request is None:
            return self.begun is None
        backend = self.parts.backends[self.model.name]
        plan = plan_attempt(
            self.outbox.log, self.request, self.model, can_continue=backend.can_continue
        )
        return not plan.needs_reset

    def stop(self, reason: StopReason) -> None:
        """Stop the backend soon. Output that is already generated is still written, if allowed."""
        is_first = self._stop is None
        if is_first or reason == "outage":
            self._stop = reason
        self._progress.set()
        if is_first and self._stop_scope is not None:
            self._stop_scope.reschedule(asyncio.get_running_loop().time())

    def on_answer(self) -> None:
        """React to a change of the outbox: wake the run, and stop where writing has stopped."""
        self._progress.set()
        if self._outbox is not None and self._outbox.stopped is not None and self._end is None:
            self.stop("not holder")

    async def execute(self) -> None:
        """Take the generation, stream the answer into its log, and leave by one way out.

        After a cancellation this worker writes nothing more. Another one waits for the lease's end.
        """
        try:
            begun = await self._begin()
            if begun is None:
                return
            self.begun = begun
            if begun.start[0].seq > 1:
                self.parts.counters["takeovers"] += 1
            note = await self._open_outbox(begun)
            error = await self._stream(begun)
            await note.settle(has_ended=self._end is not None)
            if self._end is not None:
                ending = await self._finish(self._end)
            else:
                ending = await self._give_back(error)
            self._log_ending(begun, ending)
        except Unavailable as exc:
            # Nothing is lost: the lease runs out, and a worker that reaches Redis claims the entry.
            log.warning("run abandoned", extra={"generation_id": self.id, "reason": str(exc)})

    # Begin

    async def _begin(self) -> Begun | None:
        """Become the holder. None: this worker cannot, and the run has nothing left to do."""
        token, takeover = secrets.token_hex(12), self.parts.takeover()
        give_up_s = self.parts.clock() + ABSENT_ENTRY_DROP_S
        pause_s = BEGIN_PAUSE_S
        while True:
            outcome = await self._try_begin(token, takeover)
            match outcome:
                case Begun():
                    return outcome
                case Ended():
                    await self._leave()
                    return None
                case Held(wait_ms):
                    # Never acknowledge here. If this process stood still after its read, another
                    # worker may have claimed this very entry and hold the generation through it.
                    self.held_ms = wait_ms
                    return None
                case Absent():
                    if self.delivery.is_claimed or self.parts.clock() > give_up_s:
                        await self.parts.queue.acknowledge(self.delivery)
                        return None
            if self._stop is not None:
                return None
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, BEGIN_PAUSE_MAX_S)

    async def _try_begin(
        self, token: str, takeover: Takeover
    ) -> Begun | Held | Ended | Absent | None:
        """Call begin once; None: Redis did not answer, but the outage is still short."""
        try:
            return await self.parts.store.begin(
                self.id,
                token,
                self.parts.worker,
                quiet_until_ms=takeover.quiet_until_ms,
                forgive_until_ms=takeover.forgive_until_ms,
                survives_worker=self.model.on_takeover != "fail",
            )
        except Unavailable:
            # Begin may have happened. Repeated with the same token it gives the same attempt.
            away_s = self.parts.clock() - self.parts.appender.last_ok_s
            if away_s > self.parts.settings.redis_outage_s:
                raise
            return None

    async def _open_outbox(self, begun: Begun) -> RunningNote:
        """Prepare to write: read the earlier entries, make the outbox, start the running note."""
        now_s = self.parts.clock()
        self._timeline = AttemptTimeline(began_s=now_s)
        self._outbox = Outbox(
            self.id,
            begun.fields[b"token"].decode(),
            found=await read_earlier_entries(self.parts.store, self.id, begun.start[0]),
            start=begun.start,
            fields=begun.fields,
            now_s=now_s,
            lease_every_s=self.parts.settings.lease_s / 4,
            # Meta is kept for twice the retention after an end.
            restore_within_s=2 * self.parts.settings.retention_s,
        )
        created_at_ms = begun.meta.created_at_ms
        return RunningNote(self.parts, self.ticket, created_at_ms, delay_s=RUNNING_NOTE_DELAY_S)

    # Stream

    async def _stream(self, begun: Begun) -> BackendError | None:
        """Stream until the end, a failure or a `stop`.

        Returns:
            the failure of the attempt, or None. If no other attempt may follow, the failure is also
            in the outbox, as the end.
        """
        self.request = decode_request(begun.meta.request)
        self._meter = OwnerMeter(self.parts.store, begun)
        error: BackendError | None = None
        try:
            await self._read_backend(self.request, self._meter)
            if self._end is None and self._stop is None:
                error = BackendError("upstream_error", "the backend stopped in mid-answer")
        except BackendError as exc:
            error = exc
        # After `Finish` a failure of the backend changes nothing: the answer is complete.
        if self._end is None and error is not None and self._is_final(begun, error):
            self._push_end(self._failed_end(begun, error))
        return error

    async def _read_backend(self, request: Request, meter: OwnerMeter) -> None:
        """Move events from the backend to the outbox until the backend is done or `stop` is called.

        The generator is read to its own end, also after `Finish`: its connection can be used again
        only then.

        Raises:
            BackendError: the attempt has failed.
        """
        backend = self.parts.backends[self.model.name]
        plan = plan_attempt(self.outbox.log, request, self.model, can_continue=backend.can_continue)
        if plan.needs_reset:
            self._push(Reset("restarted"))
        try:
            async with asyncio.timeout(None) as self._stop_scope:
                if self._stop is not None:
                    return
                stream = backend.stream(request, prefix=plan.prefix, seed=self.id)
                async with aclosing(stream):
                    async for items in stream:
                        self._timeline.note_connected(self.parts.clock())
                        if not items and self.outbox.is_settled:
                            continue
                        is_first = self._timeline.first_token_s is None
                        for item in items:
                            self._push(item)
                        is_urgent = is_first or self._end is not None
                        self.parts.appender.offer(self, is_urgent=is_urgent)
                        await self._wait_for_room()
                        await meter.note(self.outbox.log_bytes)
        except TimeoutError:
            if self._stop is None:
                raise
        finally:
            self._stop_scope = None

    def _push(self, item: BackendItem) -> None:
        if isinstance(item, Finish):
            self._push_end(End("completed", item.reason, usage=self._counts(), extra=item.extra))
            return
        if isinstance(item, Usage):
            self._usage = item
        elif isinstance(item, Token):
            self._timeline.note_token(item, self.parts.clock())
        self.outbox.push(item)
        bytes_max = self.parts.settings.answer_bytes_max
        if self.outbox.log_bytes + self.outbox.bytes_unsent > bytes_max:
            message = f"the answer is longer than {bytes_max} bytes"
            raise BackendError("answer_too_large", message, retryable=False)

    def _push_end(self, end: End) -> None:
        self._end = end
        self.outbox.push(end)

    def _counts(self) -> Counts | None:
        if (usage := self._usage) is None:
            return None
        return Counts(usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, usage.extra)

    async def _wait_for_room(self) -> None:
        """Wait while too much is unsent, so that a slow Redis slows the backend down."""
        while self.outbox.bytes_unsent > UNSENT_BYTES_MAX and self._stop is None:
            self._progress.clear()
            await self._progress.wait()

    def _is_final(self, begun: Begun, error: BackendError) -> bool:
        """Count a failed attempt; return whether no other attempt follows."""
        self.parts.counters["attempts_failed"] += 1
        is_last = begun.failures + 1 >= self.parts.settings.attempts_max
        return is_last or not error.retryable or self.model.on_takeover == "fail"

    def _failed_end(self, begun: Begun, error: BackendError) -> End:
        code, message, usage = error.code, error.message, self._counts()
        if error.retryable and self.model.on_takeover != "fail":
            message = f"given up after {begun.failures + 1} failures; the last: {code}: {message}"
            code = "attempts_exhausted"
        retryable, upstream = error.retryable, error.upstream
        return failed(code, message, retryable=retryable, usage=usage, upstream=upstream)

    # Ways out. Each returns how the attempt ended, for the log line.

    async def _finish(self, end: End) -> str:
        """Write the end, then take the generation off the queue."""
        self.parts.appender.offer(self, is_urgent=True)
        await self._settle()
        self._count_loss()
        if self.outbox.stopped != "ended":
            return self.outbox.stopped or "outage"
        await self._leave()
        return end.status if end.error is None else end.error.code

    async def _give_back(self, error: BackendError | None) -> str:
        """Leave without an end: stopped by a drain, an outage or another holder, or failed."""
        if self.outbox.stopped is None and self._stop != "outage":
            self.parts.appender.offer(self, is_urgent=True)
            await self._settle()
        self._count_loss()
        if self.outbox.stopped == "ended":
            await self._leave()
            return "ended elsewhere"
        if self.outbox.stopped is not None or self._stop == "outage":
            return self.outbox.stopped or "outage"
        return await self._release(error)

    async def _release(self, error: BackendError | None) -> str:
        """Release the generation, then queue it again: at once, or after a failure later."""
        store, queue = self.parts.store, self.parts.queue
        self.is_giving_back = True
        outcome = await store.release(
            self.id, self.outbox.token, self.outbox.attempt, has_failed=error is not None
        )
        self.outbox.abandon("fenced")
        if not isinstance(outcome, Released):
            return type(outcome).__name__.lower()
        if error is None:
            self.parts.counters["handed_over"] += 1
            await put_back(store, self.id, self.ticket.priority, self.ticket.model)
        else:
            pause_ms = self._retry_pause_ms(outcome, error)
            await queue.try_later(self.ticket, await store.now_ms() + pause_ms)
        await queue.acknowledge(self.delivery)
        return "handed over" if error is None else f"to be tried again: {error.code}"

    def _retry_pause_ms(self, outcome: Released, error: BackendError) -> int:
        own_s = min(RETRY_PAUSE_S * 2 ** (outcome.failures - 1), RETRY_PAUSE_MAX_S)
        is_batch = self.ticket.priority == "batch"
        wait_s_max = self.parts.settings.queue_wait_s
        pause_s = retry_pause_s(
            own_s, error.retry_after_s,
            failures=outcome.failures, is_batch=is_batch, wait_s_max=wait_s_max,
        )  # fmt: skip
        return int(1000 * pause_s)

    def _count_loss(self) -> None:
        if self.outbox.stopped in ("fenced", "lost"):
            self.parts.counters["leases_lost"] += 1
            log.warning("lease lost", extra={"generation_id": self.id, "how": self.outbox.stopped})

    async def _settle(self) -> None:
        """Wait until the outbox has nothing left to send."""
        while not self.outbox.is_settled and self._stop != "outage":
            self._progress.clear()
            await self._progress.wait()

    async def _leave(self) -> None:
        """Take an ended generation off the queue and out of the indexes. May be repeated."""
        charge = self._meter.final_call(self.outbox.log_bytes) if self._meter else None
        try:
            await self.parts.queue.leave(
                self.delivery, self.id, self.parts.store.retention_ms, charge
            )
        except Unavailable:
            pass  # the worker that claims the entry finds the end, and does this again

    def _log_ending(self, begun: Begun, ending: str) -> None:
        self.parts.counters["generations"] += 1
        self.parts.counters["pieces"] += self._timeline.pieces
        fields = self._timeline.log_fields(begun, self.parts.store.lease_ms, self.parts.clock())
        log.info("generation left", extra=fields | {"model": self.ticket.model, "ending": ending})
