"""Results that are done and do not count yet: gathered, then written and committed together. Pure.

A result counts when its object is written and its line has left the flight, which is one step in
Redis. So each line stands in the output once, whoever dies between.
"""

from __future__ import annotations

from jobs.batch.result import Result
from shared.batches.lease import Commit, InFlightLine, flight_words, letter
from shared.batches.record import DeadLetter
from shared.log.events import Data, Progress, encode

RESULTS_MAX = 250
BYTES_MAX = 4_194_304
AGE_S_MAX = 0.5


class Gathering:
    """Collects what one commit will carry."""

    def __init__(self, total: int, counted: int) -> None:
        """Args: counted: how many lines are done already."""
        self.output = bytearray()
        self.error = bytearray()
        self.lines: list[int] = []
        self._total = total
        self._counted = counted
        self._clear()

    def _clear(self) -> None:
        self.output.clear()
        self.error.clear()
        self.lines = []
        self._again: dict[str, str] = {}  # flight by line
        self._dead: list[str] = []
        self._events: list[str] = []
        self._completed = self._failed = 0
        self._usage = [0, 0, 0]
        self._model = ""
        self._cursor = (0, 0, 0)
        self._since_s = 0.0

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def is_empty(self) -> bool:
        return not self.lines and not self._again and self._cursor == (0, 0, 0)

    def is_due(self, now_s: float) -> bool:
        if self.is_empty:
            return False
        is_large = len(self.output) + len(self.error) >= BYTES_MAX
        return len(self.lines) >= RESULTS_MAX or is_large or now_s - self._since_s >= AGE_S_MAX

    def add(
        self, at: InFlightLine, custom_id: str, generation_id: str, result: Result, now_s: float
    ) -> None:
        """Take the result of a line, good or not."""
        self._leave(at, now_s)
        if result.is_good:
            self._completed += 1
            self.output += result.raw
        else:
            self._failed += 1
            self.error += result.raw
            dead = DeadLetter(at.line, at.offset, at.length, custom_id, result.code)
            self._dead.append(letter(dead))
        self._usage = [a + b for a, b in zip(self._usage, result.usage, strict=True)]
        self._model = self._model or result.model
        value = {"custom_id": custom_id, "line": at.line, "status": result.status}
        named = {"generation": generation_id} if generation_id else {}
        self._say(encode(Data("line", value | named)))

    def drop(self, at: InFlightLine, now_s: float) -> None:
        """Take a line out of the flight without a result: the batch is cancelled."""
        self._leave(at, now_s)

    def ask_again(self, at: InFlightLine, now_s: float) -> None:
        """Write down that a line is asked once more."""
        self._touch(now_s)
        self._again[str(at.line)] = flight_words(at)

    def pass_over(self, before: int, line: int, offset: int, now_s: float) -> None:
        """Move the cursor from `before` on: the lines that it passes have their results here."""
        self._touch(now_s)
        self._cursor = (before, line, offset)

    def commit(self, name: str, parts: list[str]) -> Commit:
        """Return what is to be committed, and begin anew."""
        self._counted += self._completed + self._failed
        if self._completed + self._failed:
            self._say(encode(progress(self._counted, self._total)))
        before, line, offset = self._cursor
        prompt, output, total = self._usage
        commit = Commit(
            name=name,
            parts=parts,
            done=[str(number) for number in self.lines],
            again=[word for pair in self._again.items() for word in pair],
            dead=self._dead,
            completed=self._completed,
            failed=self._failed,
            usage=(prompt, output, total),
            model=self._model,
            events=self._events,
            before=before,
            line=line,
            offset=offset,
        )
        self._clear()
        return commit

    def _leave(self, at: InFlightLine, now_s: float) -> None:
        self._touch(now_s)
        self.lines.append(at.line)
        self._again.pop(str(at.line), None)  # asked again, and done, since the last commit

    def _touch(self, now_s: float) -> None:
        if self.is_empty:
            self._since_s = now_s

    def _say(self, event: bytes) -> None:
        self._events.append(event.decode())


def progress(done: int, total: int, stage: str = "in_progress") -> Progress:
    """Return how far a batch is."""
    share = round(100 * done / total, 1) if total else 0.0
    return Progress(stage, done, total, share)
