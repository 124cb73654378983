"""Gathers results until one commit carries them. Pure.

A result counts when its object is written and its line has left the flight; the latter is one step
in Redis. So each line is in the output once, even if a process dies in between.
"""

from __future__ import annotations

from jobs.batch.result import Result
from shared.batches.lease import Commit, InFlightLine, encode_dead_letter, flight_words
from shared.batches.record import FailedLine
from shared.log.events import Data, Progress, encode

RESULTS_MAX = 250  # results of one commit
BYTES_MAX = 4_194_304  # bytes from which on a commit is due
AGE_S_MAX = 0.5  # age of the oldest result from which on a commit is due


class Gathering:
    """Collects the results of the next commit.

    Args:
        total: the number of lines of the batch.
        counted: the number of lines with a committed result.
    """

    def __init__(self, total: int, counted: int) -> None:
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
        self._again: dict[str, str] = {}  # line number -> flight, of lines to try again
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
        """Whether it is time to commit, by number, size and age of the results."""
        if self.is_empty:
            return False
        is_large = len(self.output) + len(self.error) >= BYTES_MAX
        return len(self.lines) >= RESULTS_MAX or is_large or now_s - self._since_s >= AGE_S_MAX

    def add(
        self, at: InFlightLine, custom_id: str, generation_id: str, result: Result, now_s: float
    ) -> None:
        """Add the result of a line."""
        self._leave(at, now_s)
        if result.is_good:
            self._completed += 1
            self.output += result.raw
        else:
            self._failed += 1
            self.error += result.raw
            dead = FailedLine(at.line, at.offset, at.length, custom_id, result.code)
            self._dead.append(encode_dead_letter(dead))
        self._usage = [a + b for a, b in zip(self._usage, result.usage, strict=True)]
        self._model = self._model or result.model
        value = {"custom_id": custom_id, "line": at.line, "status": result.status}
        link = {"generation": generation_id} if generation_id else {}
        self._add_event(encode(Data("line", value | link)))

    def drop(self, at: InFlightLine, now_s: float) -> None:
        """Remove a line from the flight without a result, because the batch is cancelled."""
        self._leave(at, now_s)

    def ask_again(self, at: InFlightLine, now_s: float) -> None:
        """Record another try of a line."""
        self._touch(now_s)
        self._again[str(at.line)] = flight_words(at)

    def pass_over(self, before: int, line: int, offset: int, now_s: float) -> None:
        """Move the cursor from `before` to `line`; the lines between have their results here."""
        self._touch(now_s)
        self._cursor = (before, line, offset)

    def commit(self, name: str, parts: list[str]) -> Commit:
        """Return the commit of everything gathered, and start with an empty one."""
        self._counted += self._completed + self._failed
        if self._completed + self._failed:
            self._add_event(encode(progress(self._counted, self._total)))
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

    def _add_event(self, event: bytes) -> None:
        self._events.append(event.decode())


def progress(done: int, total: int, stage: str = "in_progress") -> Progress:
    """Return the progress event of a batch."""
    share = round(100 * done / total, 1) if total else 0.0
    return Progress(stage, done, total, share)
