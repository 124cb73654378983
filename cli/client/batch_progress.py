"""How far something is, on a terminal as a bar, elsewhere as a line now and then.

Rate and time left come from the last half minute, and not from what was there before one looked: a
log that is read again comes all at once. Knows no network and no batch.
"""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from shared.text.plain_text import plain_line

REPLAY_S = 1.0  # what comes within it had happened before
WINDOW_S = 30.0
SAMPLE_S = 0.5
DRAW_S = 0.1
LINE_S = 5.0
BAR_WIDTH_MAX = 40
CLEAR = "\r\x1b[K"


class Pace:
    """How fast it goes, and how long it will take."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()
        self._began_s: float | None = None

    def add(self, now_s: float, current: int) -> None:
        if self._began_s is None:
            self._began_s = now_s
        if self._samples and current < self._samples[-1][1]:
            self._samples.clear()  # it begins anew, or is another stage
        if now_s - self._began_s < REPLAY_S:
            self._samples.clear()
        elif self._samples and now_s - self._samples[-1][0] < SAMPLE_S:
            return
        self._samples.append((now_s, current))
        while now_s - self._samples[0][0] > WINDOW_S and len(self._samples) > 2:
            self._samples.popleft()

    def rate(self, now_s: float, current: int) -> float:
        """Return how many a second; 0: nothing can be said yet."""
        if not self._samples or now_s - self._samples[0][0] < SAMPLE_S:
            return 0.0
        since_s, before = self._samples[0]
        return max(current - before, 0) / (now_s - since_s)


class Bar:
    """Shows how far it is.

    Args:
        out: a terminal gets a bar that is drawn over, anything else gets lines.
        unit: makes text of a count.
        clock: seconds, from any start.
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
        self._pace = Pace()
        self._stage = ""
        self._shown_s = -LINE_S
        self._is_drawn = False

    def show(self, stage: str, current: int, total: int) -> None:
        """Say how far `stage` is; what comes too soon after the last is left out."""
        stage = plain_line(stage)
        now_s = self._clock()
        if stage != self._stage:
            self._pace, self._shown_s = Pace(), now_s - LINE_S
        self._stage = stage
        self._pace.add(now_s, current)
        is_soon = now_s - self._shown_s < (DRAW_S if self._is_terminal else LINE_S)
        if is_soon and current < total:
            return
        self._shown_s = now_s
        rate = self._pace.rate(now_s, current)
        if self._is_terminal:
            self.out.write(CLEAR + self._drawn(stage, current, total, rate))
            self._is_drawn = True
        else:
            self.out.write(" ".join(self._words(stage, current, total, rate)) + "\n")
        self.out.flush()

    def note(self, text: str) -> None:
        """Say something on a line of its own."""
        self.out.write(f"{CLEAR if self._is_drawn else ''}{plain_line(text)}\n")
        self._is_drawn = False
        self.out.flush()

    def close(self) -> None:
        """Leave the last state standing."""
        if self._is_drawn:
            self.out.write("\n")
            self.out.flush()
        self._is_drawn = False

    def _words(self, stage: str, current: int, total: int, rate: float) -> list[str]:
        percent = [f"{100 * current / total:.0f} %"] if total else []
        pace = [f"{self._unit(rate)}/s" if rate >= 10 else f"{rate:.1f}/s"] if rate else []
        left = [f"{span((total - current) / rate)} left"] if rate and total > current else []
        of = f"/{self._unit(total)}" if total else ""
        return [stage, f"{self._unit(current)}{of}", *percent, *pace, *left]

    def _drawn(self, stage: str, current: int, total: int, rate: float) -> str:
        first, *words = self._words(stage, current, total, rate)
        text = "  ".join(words)
        room = shutil.get_terminal_size().columns - len(first) - len(text) - 6
        width = min(BAR_WIDTH_MAX, room)
        if width < 5 or not total:
            return f"{first}  {text}"
        full = min(width, width * current // total)
        return f"{first} [{'#' * full}{'-' * (width - full)}]  {text}"


def span(seconds: float) -> str:
    """Return a time as a person says it."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3_600} h {whole % 3_600 // 60:02} min"


def megabytes(count: float) -> str:
    return f"{count / 1_000_000:.1f} MB"
