"""What the runs of a worker measure over all answers, for the charts of the console."""

from __future__ import annotations

from dataclasses import dataclass, field

from shared.console.histogram import Counts, add


@dataclass(slots=True)
class WorkerFigures:
    """Sums since the worker started.

    Attributes:
        tokens: pieces of text that backends gave, also those of answers that still run.
        first_tokens: from the acceptance of a generation to the first token of its answer.
        gaps: the longest pause of each answer that ended within a report of the worker.
    """

    tokens: int = 0
    first_tokens: Counts = field(default_factory=dict)
    gaps: Counts = field(default_factory=dict)

    def note_first_token(self, seconds: float) -> None:
        """Count the first token of an answer, `seconds` after its acceptance."""
        add(self.first_tokens, seconds)

    def note_gap(self, seconds: float) -> None:
        """Count the longest pause of one answer since the last report."""
        add(self.gaps, seconds)
