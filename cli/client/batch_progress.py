"""Shows progress: as a bar on a terminal, otherwise as occasional lines.

Rate and remaining time are estimated from the last `WINDOW_S`. The first second is ignored, because
a log that is read from its start brings all earlier progress at once. Knows no network and no
batch.
"""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from shared.text.plain_text import plain_line

REPLAY_S = 1.0  # events in the first second are earlier progress
WINDOW_S = 30.0  # the rate is the mean over this time
SAMPLE_S = 0.5  # between two samples of the progress
DRAW_S = 0.1  # between two drawings of the bar
LINE_S = 5.0  # between two lines, if the output is no terminal
BAR_WIDTH_MAX = 40  # columns
RATE_WITH_FRACTION_MAX = 10  # a smaller rate is shown with one decimal
CLEAR_LINE = "\r\x1b[K"


class RateEstimate:
    """The rate of a growing count."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()
        self._began_s: float | None = None

    def add(self, now_s: float, current: int) -> None:
        """Note the count at a time."""
        if self._began_s is None:
            self._began_s = now_s
        if self._samples and current < self._samples[-1][1]:
            self._samples.clear()  # the count started again
        if now_s - self._began_s < REPLAY_S:
            self._samples.clear()
        elif self._samples and now_s - self._samples[-1][0] < SAMPLE_S:
            return
        self._samples.append((now_s, current))
        while now_s - self._samples[0][0] > WINDOW_S and len(self._samples) > 2:
            self._samples.popleft()

    def rate(self, now_s: float, current: int) -> float:
        """Return the count per second; 0: not known yet."""
        if not self._samples or now_s - self._samples[0][0] < SAMPLE_S:
            return 0.0
        since_s, before = self._samples[0]
        return max(current - before, 0) / (now_s - since_s)


class ProgressBar:
    """Shows the progress of one stage after the other.

    Args:
        out: a terminal gets a bar that is redrawn; any other file gets lines.
        unit: formats a count.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        out: Any,
        unit: Callable[[float], str] = lambda count: f"{count:,.0f}",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.out = out
        self._unit = unit
        self._clock = clock
        self._is_terminal = out.isatty()
        self._rate = RateEstimate()
        self._stage = ""
        self._shown_s = -LINE_S
        self._is_drawn = False

    def show(self, stage: str, current: int, total: int) -> None:
        """Show the progress of `stage`; calls shortly after the last output are skipped."""
        stage = plain_line(stage)
        now_s = self._clock()
        if stage != self._stage:
            self._rate, self._shown_s = RateEstimate(), now_s - LINE_S
        self._stage = stage
        self._rate.add(now_s, current)
        is_soon = now_s - self._shown_s < (DRAW_S if self._is_terminal else LINE_S)
        if is_soon and current < total:
            return
        self._shown_s = now_s
        rate = self._rate.rate(now_s, current)
        if self._is_terminal:
            self.out.write(CLEAR_LINE + self._bar(stage, current, total, rate))
            self._is_drawn = True
        else:
            self.out.write(" ".join(self._parts(stage, current, total, rate)) + "\n")
        self.out.flush()

    def note(self, text: str) -> None:
        """Print a message on a line of its own."""
        self.out.write(f"{CLEAR_LINE if self._is_drawn else ''}{plain_line(text)}\n")
        self._is_drawn = False
        self.out.flush()

    def close(self) -> None:
        """End the line of the bar, so that the last state stays visible."""
        if self._is_drawn:
            self.out.write("\n")
            self.out.flush()
        self._is_drawn = False

    def _parts(self, stage: str, current: int, total: int, rate: float) -> list[str]:
        percent = [f"{100 * current / total:.0f} %"] if total else []
        is_large = rate >= RATE_WITH_FRACTION_MAX
        per_s = [f"{self._unit(rate)}/s" if is_large else f"{rate:.1f}/s"] if rate else []
        left = [f"{span((total - current) / rate)} left"] if rate and total > current else []
        of_total = f"/{self._unit(total)}" if total else ""
        return [stage, f"{self._unit(current)}{of_total}", *percent, *per_s, *left]

    def _bar(self, stage: str, current: int, total: int, rate: float) -> str:
        first, *parts = self._parts(stage, current, total, rate)
        text = "  ".join(parts)
        room = shutil.get_terminal_size().columns - len(first) - len(text) - 6
        width = min(BAR_WIDTH_MAX, room)
        if width < 5 or not total:
            return f"{first}  {text}"
        full = min(width, width * current // total)
        return f"{first} [{'#' * full}{'-' * (width - full)}]  {text}"


def span(seconds: float) -> str:
    """Return a duration for a person, for example `3 min 05 s`."""
    rounded = max(0, round(seconds))
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3_600:
        return f"{rounded // 60} min {rounded % 60:02} s"
    return f"{rounded // 3_600} h {rounded % 3_600 // 60:02} min"


def megabytes(count: float) -> str:
    """Format a number of bytes as MB."""
    return f"{count / 1_000_000:.1f} MB"
