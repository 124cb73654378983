"""What the runs of a worker measure over all answers, for the charts of the console."""

from __future__ import annotations

from dataclasses import dataclass, field

from shared.console.histogram import Counts, add
from shared.metrics.labels import BoundedLabel
from shared.queue.happenings import Happenings

MODELS_MAX = 10  # with histograms of their own; further ones count as `other`


@dataclass(slots=True)
class WorkerFigures:
    """Sums since the worker started.

    Attributes:
        tokens: pieces of text that backends gave, also those of answers that still run.
        first_tokens: from the acceptance of a generation to the first token of its answer.
        gaps: the longest pause of each answer that ended within a report of the worker.
        waits: by model: how long prompts waited before an attempt.
        runs: by model: how long attempts took.
        happenings: takeovers, losses and failures, with their generations.
    """

    tokens: int = 0
    first_tokens: Counts = field(default_factory=dict)
    gaps: Counts = field(default_factory=dict)
    waits: dict[str, Counts] = field(default_factory=dict)
    runs: dict[str, Counts] = field(default_factory=dict)
    happenings: Happenings = field(default_factory=Happenings)
    _models: BoundedLabel = field(default_factory=lambda: BoundedLabel(MODELS_MAX))

    def note_first_token(self, seconds: float) -> None:
        """Count the first token of an answer, `seconds` after its acceptance."""
        add(self.first_tokens, seconds)

    def note_gap(self, seconds: float) -> None:
        """Count the longest pause of one answer since the last report."""
        add(self.gaps, seconds)

    def note_wait(self, model: str, seconds: float) -> None:
        """Count how long a prompt has waited for an attempt that begins."""
        add(self.waits.setdefault(self._models.of(model), {}), seconds)

    def note_run(self, model: str, seconds: float) -> None:
        """Count how long an attempt took that is over."""
        add(self.runs.setdefault(self._models.of(model), {}), seconds)
