"""The usage of one answer as a worker writes it: whole counts, and not more often than needed.

Servers that report running counts do so in every chunk. The log gets the first report, so that the
prompt's tokens are known whatever happens to this worker, then one per `USAGE_EVERY_S`, and the
last. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

from shared.log.events import AnyEvent, Counts, Event, Usage, decode_known
from shared.log.records import Entry
from shared.log.request import Request
from shared.log.tally import Tally, count_prompt
from workers.writing.pricing import Pricing

USAGE_EVERY_S = 1.0


class AnswerUsage:
    """The tokens of one answer, in one attempt.

    Args:
        log: the entries of earlier attempts.
        counts_whole: the backend's counts are of the whole answer, also when it continues.
        pricing: the prices of the model; None: it has none, and nothing is estimated for the end.

    Attributes:
        given: the tokens of the answer before this attempt, reported or counted.
        is_reported: the server has reported counts in this attempt.
    """

    def __init__(
        self,
        log: Sequence[Entry],
        request: Request,
        *,
        counts_whole: bool,
        pricing: Pricing | None = None,
    ) -> None:
        self._tally = Tally()
        for _, raw in log:
            self._tally.add(decode_known(raw))
        self._tally.begin_attempt()
        self.given = self._tally.completion_tokens
        self._request = request
        self._counts_whole = counts_whole
        self._pricing = pricing
        self._waiting: Usage | None = None  # reported, and not written
        self._written_s = -math.inf
        self._has_begun = False
        self.is_reported = False

    @property
    def completion_tokens(self) -> int:
        """The tokens of the answer so far, reported or counted."""
        return self._tally.completion_tokens

    def begin_request(self, *, counts_whole: bool) -> None:
        """Note that what follows is of a new request, perhaps to another server."""
        self._tally.begin_attempt()
        self._counts_whole = counts_whole

    def note(self, event: AnyEvent, now_s: float) -> AnyEvent | None:
        """Return the event to write; None: a running count that is not written now."""
        self._has_begun = True
        if not isinstance(event, Usage):
            self._tally.add(event)
            return event
        self.is_reported = True
        whole = event if self._counts_whole else self._tally.whole(event)
        if whole == self._tally.usage and self._waiting is None:
            return None
        self._tally.add(whole)
        self._waiting = whole
        if now_s - self._written_s < USAGE_EVERY_S:
            return None
        self._written_s = now_s
        return self.take_last()

    def read_on(self, items: Sequence[object]) -> bool:
        """Count items that come after a cancel, none of which is written.

        Returns:
            whether the server has reported its counts, or has said all.
        """
        for item in items:
            if not isinstance(item, Event):
                return True  # the backend's `Finish`
            self.note(cast(AnyEvent, item), 0.0)
        return self.is_reported

    def take_last(self, *, is_end: bool = False) -> Usage | None:
        """Return the counts that are not written yet, to be written before an end or a release.

        Args:
            is_end: the answer ends, so the counts may be estimated, if the model wants this.
        """
        waiting, self._waiting = self._waiting, None
        pricing = self._pricing
        if pricing is None:
            return waiting
        if waiting is None and is_end and self._tally.usage is None and pricing.estimates:
            if (counts := self._counted()) is not None:
                total = counts.total_tokens
                waiting = Usage(counts.prompt_tokens, counts.completion_tokens, total, counts.extra)
        return None if waiting is None else pricing.price_usage(waiting)

    def at_end(self) -> Counts | None:
        """Return the counts for an end of this worker; None: the server reports none."""
        if self._pricing is not None and self._pricing.estimates:
            return self.at_cancel()
        if self._tally.usage is None and (self._has_begun or not self.given):
            return None
        return self._priced(self._tally.counts(count_prompt(self._request)))

    def at_cancel(self) -> Counts | None:
        """Return the counts so far for a cancel; None: the answer has no token."""
        counts = self._counted()
        return None if counts is None else self._priced(counts)

    def _counted(self) -> Counts | None:
        if not self._tally.completion_tokens:
            return None
        return self._tally.counts(count_prompt(self._request))

    def _priced(self, counts: Counts) -> Counts:
        return counts if self._pricing is None else self._pricing.price(counts)

    def spent(self) -> Counts | None:
        """Return the tokens of the answer so far, reported or counted; None: it took none."""
        return self.at_cancel() or self.at_end()
