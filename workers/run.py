"""The life of one generation in one worker: begin, stream, and one of several ways out.

    the generation …                          the queue entry is …
    has its end (here or elsewhere)           acknowledged
    was drained: the run releases it          acknowledged; a new entry is put on `resume`
    failed and may be retried: released       acknowledged; a new entry is put on `later`
    met an outage of its server: released     the same, and no failure is counted
    was never created                         acknowledged after `ABSENT_ENTRY_DROP_S`
    is held by another worker                 kept, and tried again when the lease may be over
    has another holder now, or Redis is away  left to be claimed by another worker

Invariant: after every way out, another worker can continue from what is in Redis.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Literal

from shared.config.models import Model
from shared.errors import BackendError, Unavailable
from shared.log.events import Counts, End, Start
from shared.log.records import Absent, Begun, Ended, Held, Released
from shared.log.request import Request, decode_request
from shared.queue.extension import extend_begun
from shared.queue.lanes import Delivery, LaneEntry, put_back
from workers import source
from workers.backends import Backend, BackendItem, Finish
from workers.begin import become_holder, open_outbox
from workers.deadline import Deadline
from workers.failures.failed_attempt import FailedAttempt
from workers.failures.outage import Postponed
from workers.parts import WorkerParts
from workers.running_note import RunningNote
from workers.story import HANDED_OVER
from workers.takeover.upstream_stop import stop_upstream, stop_upstream_of_ended
from workers.timeline import AttemptTimeline
from workers.writing.outbox import Outbox
from workers.writing.owner_meter import OwnerMeter, late_records
from workers.writing.usage import AnswerUsage

log = logging.getLogger(__name__)

UNSENT_BYTES_MAX = 1_048_576  # with more unsent, Redis is slower than the backend: stop reading it

StopReason = Literal["drain", "outage", "not holder", "deadline"]


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
    is_superseded: bool = False  # another worker has taken the generation
    request: Request | None = None
    _outbox: Outbox | None = None
    _stop: StopReason | None = None
    _stop_scope: asyncio.Timeout | None = None  # set while the backend streams
    _progress: asyncio.Event = field(default_factory=asyncio.Event)
    _postponed: Postponed | None = None  # set if the attempt met an outage of the model server
    _usage: AnswerUsage = field(init=False)  # set when the stream starts
    _end: End | None = None  # set once the end is in the outbox
    _source: source.Source | None = None  # set when the backend is asked
    _meter: OwnerMeter | None = None
    timeline: AttemptTimeline = field(default_factory=lambda: AttemptTimeline(0.0))

    @property
    def id(self) -> str:
        return self.ticket.id

    @property
    def model(self) -> Model:
        return self.parts.models[self.ticket.model]

    @property
    def _backend(self) -> Backend:
        return source.writing_backend(self.parts, self.model, self.outbox.log)

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
        return source.can_hand_over(self.parts, self.model, self.outbox.log, self.request)

    def usage_if_cancelled(self) -> Counts | None:
        """Return the counts so far, for a grace that ends at a renewal; None: nothing to say."""
        if self.request is None or self.begun is None or self.begun.meta.grace_s is None:
            return None
        return self._usage.at_cancel()

    def stop(self, reason: StopReason) -> None:
        """Stop the backend soon. Output that is already generated is still written, if allowed."""
        is_first = self._stop is None
        if is_first or reason == "outage":
            self._stop = reason
        self._progress.set()
        if is_first and self._stop_scope is not None:
            at_s = asyncio.get_running_loop().time()
            if self._outbox is not None and self._outbox.stopped == "ended":
                # Cancelled: the server may be about to report what the answer took.
                at_s += 0.0 if self._usage.is_reported else self.parts.settings.cancel_usage_s
            self._stop_scope.reschedule(at_s)

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
            if (begun := await self._begin()) is None:
                return
            self.begun = begun
            note = await self._open_outbox(begun)
            with self.parts.health.start(self.model.name, self.id) as call:
                self.timeline.call = call
                error = await self._stream(begun)
                call.close(error, tokens=self.timeline.pieces, is_abandoned=self._stop is not None)
            await note.settle(has_ended=self._end is not None)
            if self._end is not None:
                ending = await self._finish(self._end)
            else:
                ending = await self._give_back(error)
            self._log_ending(begun, ending)
            if ending == "ended elsewhere" or (self._end and self._end.status == "failed"):
                await stop_upstream(self._backend, self.outbox.log)
        except Unavailable as exc:
            # Nothing is lost: the lease runs out, and a worker that reaches Redis claims the entry.
            log.warning("run abandoned", extra={"generation_id": self.id, "reason": str(exc)})

    # Begin

    async def _begin(self) -> Begun | None:
        """Become the holder. None: this worker cannot, and the run has nothing left to do."""
        match await become_holder(
            self.parts, self.ticket, survives_worker=self.model.on_takeover != "fail",
            is_claimed=self.delivery.is_claimed, is_stopped=lambda: self._stop is not None,
            writes_start=self.model.route is None,
        ):  # fmt: skip
            case Begun() as begun:
                return begun
            case Ended():
                await self._leave()
                backends = source.backends_of(self.parts, self.model)
                await stop_upstream_of_ended(backends, self.parts.store, self.id)
            case Held(wait_ms):
                # Never acknowledge here. If this process stood still after its read, another
                # worker may have claimed this very entry and hold the generation through it.
                self.held_ms = wait_ms
            case Absent():
                await self.parts.queue.acknowledge(self.delivery)
        return None

    async def _open_outbox(self, begun: Begun) -> RunningNote:
        """Prepare to write: read the earlier entries, make the outbox, start the running note."""
        self.timeline = AttemptTimeline.of(begun, self.parts, source.backend_name(self.model))
        self._outbox = await open_outbox(self.parts, self.id, begun)
        await extend_begun(self.parts.store, begun)
        return RunningNote(self.parts, self.ticket, begun.meta.created_at_ms)

    # Stream

    async def _stream(self, begun: Begun) -> BackendError | None:
        """Stream until the end, a failure or a `stop`; return the failure of the attempt, or None.

        If no other attempt may follow, the failure is also in the outbox, as the end.
        """
        self.request = request = decode_request(begun.meta.request)
        whole, pricing = self._backend.counts_whole, self.parts.stages.pricing_of(self.model)
        self._usage = AnswerUsage(self.outbox.log, request, counts_whole=whole, pricing=pricing)
        self._meter = OwnerMeter(self.parts.store, begun)
        deadline = Deadline(self.parts, begun, self.timeline.began_s)
        error: BackendError | None = None
        try:
            with deadline.watch(lambda: self.stop("deadline")):
                await self._read_backend(request, self._meter)
            if self._end is None and self._stop is None:
                error = BackendError("upstream_error", "the backend stopped in mid-answer")
        except BackendError as exc:
            error = exc
        if self._end is None and self._stop == "deadline":
            self._push_end(deadline.end(self._usage.at_cancel()))
        # After `Finish` a failure of the backend changes nothing: the answer is complete.
        if self._end is None and error is not None:
            await self._judge(self._failed(begun, error))
        return error

    def _failed(self, begun: Begun, error: BackendError) -> FailedAttempt:
        return FailedAttempt(self.parts.settings, self.model, self.ticket, begun, error)

    async def _judge(self, attempt: FailedAttempt) -> None:
        """Let the generation wait for its server, or count the failure, and end if it is final."""
        has_answered = self.timeline.connected_s is not None
        if attempt.may_wait:
            now_ms = await self.parts.store.now_ms()
            self._postponed = attempt.server_wait(has_answered=has_answered, now_ms=now_ms)
        is_postponed = self._postponed is not None
        self.parts.count(attempt.report(is_postponed=is_postponed), self.id)
        if not is_postponed and attempt.is_final:
            self._push_end(attempt.end(self._usage.at_end()))

    async def _read_backend(self, request: Request, meter: OwnerMeter) -> None:
        """Move events from the backend to the outbox until the backend is done or `stop` is called.

        The generator is read to its own end, also after `Finish`: its connection can be used again
        only then.

        Raises:
            BackendError: the attempt has failed.
        """
        assert self.begun is not None
        self._source = source.open_source(
            self.parts, self.begun, request,
            outbox=self.outbox, usage=self._usage, late=self._push_late,
        )  # fmt: skip
        try:
            async with asyncio.timeout(None) as self._stop_scope:
                if self._stop is not None:
                    return
                async with aclosing(self._source.read()) as stream:
                    async for items in stream:
                        self.timeline.note_connected(self.parts.clock())
                        if self.outbox.stopped == "ended" and self._end is None:
                            if self._usage.read_on(items):  # cancelled: nothing is written
                                return
                            continue
                        if not items and self.outbox.is_settled:
                            continue
                        is_first = self.timeline.first_token_s is None
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

    def _push_late(self, items: Sequence[BackendItem]) -> None:
        """Push what the seam held back; too long an answer is noticed at the next push."""
        if self._stop is None:
            with suppress(BackendError):
                for item in items:
                    self._push(item)
            self.parts.appender.offer(self, is_urgent=True)

    def _push(self, item: BackendItem) -> None:
        if isinstance(item, Finish):
            usage = self._usage.at_cancel() if item.is_cut else self._usage.at_end()
            self._push_end(End("completed", item.reason, usage, None, item.extra, item.cached_at))
            return
        now_s = self.parts.clock()
        self.timeline.note_item(item, now_s)
        if (event := self._usage.note(item, now_s)) is not None:
            self.outbox.push(event)
        bytes_max = self.parts.settings.answer_bytes_max
        if self.outbox.log_bytes + self.outbox.bytes_unsent > bytes_max:
            message = f"the answer is longer than {bytes_max} bytes"
            raise BackendError("answer_too_large", message, retryable=False)

    def _push_end(self, end: End) -> None:
        if self.outbox.lacks_start:  # no backend of the route has spoken
            self.outbox.push(Start(self.outbox.attempt, self.ticket.model))
        for event in self._source.flush() if self._source is not None else ():
            self.outbox.push(event)
        self._push_usage(is_end=True)
        self._end = end
        self.outbox.push(end)

    def _push_usage(self, *, is_end: bool = False) -> None:
        if (usage := self._usage.take_last(is_end=is_end)) is not None:
            self.outbox.push(usage)

    async def _wait_for_room(self) -> None:
        """Wait while too much is unsent, so that a slow Redis slows the backend down."""
        while self.outbox.bytes_unsent > UNSENT_BYTES_MAX and self._stop is None:
            self._progress.clear()
            await self._progress.wait()

    # Ways out. Each returns how the attempt ended, for the log line.

    async def _finish(self, end: End) -> str:
        """Write the end, then take the generation off the queue."""
        self.parts.appender.offer(self, is_urgent=True)
        await self._settle()
        self._count_loss()
        if self.outbox.stopped != "ended":
            return self.outbox.stopped or "outage"
        if end.status == "completed" and self._source is not None:
            await self._source.finished()
        await self._leave()
        return end.status if end.error is None else end.error.code

    async def _give_back(self, error: BackendError | None) -> str:
        """Leave without an end: stopped by a drain, an outage or another holder, or failed."""
        if self.outbox.stopped is None and self._stop != "outage":
            self._push_usage()
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
            self.id, self.outbox.token, self.outbox.attempt,
            has_failed=error is not None and self._postponed is None,
        )  # fmt: skip
        self.outbox.abandon("fenced")
        if not isinstance(outcome, Released):
            return type(outcome).__name__.lower()
        self.timeline.story.released_ms = outcome.at_ms
        if error is None:
            self.parts.count("handed_over", self.id)
            await put_back(store, self.id, self.ticket.priority, self.ticket.model)
        else:
            assert self.begun is not None
            failed = self._failed(self.begun, error)
            waiting = self._postponed or failed.next_try(outcome.failures)
            self.timeline.story.again_s = waiting.pause_s
            at_ms = await store.now_ms() + int(1000 * waiting.pause_s)
            await queue.try_later(waiting.ticket, at_ms)
        await queue.acknowledge(self.delivery)
        if self._postponed is not None:
            return "waits for the model server"
        return HANDED_OVER if error is None else f"to be tried again: {error.code}"

    def _count_loss(self) -> None:
        self.is_superseded = self.outbox.stopped == "fenced"
        if self.outbox.stopped in ("fenced", "lost"):
            self.parts.count("leases_lost", self.id)
            log.warning("lease lost", extra={"generation_id": self.id, "how": self.outbox.stopped})

    async def _settle(self) -> None:
        """Wait until the outbox has nothing left to send."""
        while not self.outbox.is_settled and self._stop != "outage":
            self._progress.clear()
            await self._progress.wait()

    async def _leave(self) -> None:
        """Take an ended generation off the queue and out of the indexes. May be repeated."""
        meter, queue, store = self._meter, self.parts.queue, self.parts.store
        # While Redis is away: the worker that claims the entry finds the end, and does this again.
        with suppress(Unavailable):
            if meter is not None:
                await meter.note_spent(self.outbox.attempt, self._end, self._usage.spent())
                records = meter.final_records(self.outbox.log_bytes, self._usage.spent)
            else:
                records = await late_records(store, self.id) if self.delivery.is_claimed else []
            fields = meter.fields if meter is not None else None
            await queue.leave(self.delivery, self.id, store.retention_ms, records, fields=fields)

    def _log_ending(self, begun: Begun, ending: str) -> None:
        fields = self.timeline.leave(begun, self.parts, ending, self._end)
        fields |= self._source.log_fields() if self._source is not None else {}
        log.info("generation left", extra=fields | {"model": self.ticket.model, "ending": ending})
