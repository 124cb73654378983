"""Measures the time from a prompt to the first token of its answer at this node.

A prompt that this node accepts is expected. When its log is opened here, a watch looks at each
change of the copy until the first token; then the watch is over, so later tokens cost nothing.

A log that is opened later may hold tokens already, and nobody knows when they came. Then nothing is
measured, unless the log was opened together with the prompt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from api.hub.contracts import ReadingOutcome
from api.hub.position import Position
from api.hub.relay import Relay
from shared.log.event_bytes import END_PREFIX
from shared.log.ids import START

EXPECTED_MAX = 5_000  # accepted prompts whose logs are not open yet; the oldest are forgotten
TOGETHER_S = 0.25  # a log that is opened so soon after its prompt was opened with it
TOKEN = b'{"type":"token"'

Observe = Callable[[str, float], None]


class FirstTokens:
    """The first tokens of one node.

    Args:
        clock: seconds.

    Attributes:
        observe: takes a model and seconds; None: nothing is measured.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.observe: Observe | None = None
        self._clock = clock
        self._expected: dict[str, tuple[str, float]] = {}

    def expect(self, generation_id: str, model: str) -> None:
        """Note that a prompt has come, before it is accepted."""
        if self.observe is None:
            return
        if len(self._expected) >= EXPECTED_MAX:
            del self._expected[next(iter(self._expected))]
        self._expected[generation_id] = model, self._clock()

    def watch(self, relay: Relay) -> None:
        """Watch a log that has just been opened, if its prompt is expected."""
        expected = self._expected.pop(relay.generation_id, None)
        if expected is not None and self.observe is not None:
            model, since = expected
            is_together = self._clock() - since <= TOGETHER_S
            watch = _Watch(relay, lambda: self._found(model, since), is_together=is_together)
            relay.individual_readers.add(watch)

    def _found(self, model: str, since: float) -> None:
        if self.observe is not None:
            self.observe(model, self._clock() - since)


class _Watch:
    """Looks for the first token; a `Reader` that reads nothing."""

    def __init__(self, relay: Relay, found: Callable[[], None], *, is_together: bool) -> None:
        self.position = Position(START, 0.0)
        self._relay = relay
        self._found = found
        self._counts = is_together  # whether a token that is found now has just come
        self._seen = 0
        self._is_over = False

    def wake(self) -> None:
        """Look at the entries since the last look."""
        if self._is_over:
            return
        feed = self._relay.feed
        raws = feed.raws[max(0, self._seen - feed.base) :]
        if any(raw.startswith(TOKEN) for raw in raws):
            if self._counts:
                self._found()
            self._stop()
        elif (
            feed.is_ended
            or feed.base > self._seen
            or any(raw.startswith(END_PREFIX) for raw in raws)
        ):
            self._stop()
        elif raws:
            self._seen, self._counts = feed.count, True
            # So that the relay may free these entries when memory is short.
            self.position.seq, self.position.epoch = feed.count, feed.epoch

    def break_off(self, outcome: ReadingOutcome) -> None:
        """Do nothing: it has no connection."""

    def _stop(self) -> None:
        # The relay is going through its readers, so the watch leaves a moment later.
        self._is_over = True
        asyncio.get_running_loop().call_soon(self._relay.individual_readers.discard, self)
