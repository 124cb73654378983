"""The rows of the console's table of generations: from reports, filtered, in pages. Pure.

Rows of running generations come from the workers' reports, rows of waiting ones from the indexes of
the queue, and rows of ended ones from meta. No row holds a piece of a prompt or of an answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import NamedTuple

import msgspec
from starlette.datastructures import QueryParams

from api.console.limits import PAGES_OF_ROWS_MAX, ROWS_PER_PAGE, SEARCH_CHARACTERS_MAX
from api.errors import request_error
from shared.console.queue_state import PartitionState
from shared.console.reports import LiveRun, NodeReport
from shared.log.records import ENDED

STATES = ("", "running", "queued", "ended")  # "": all unfinished


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """One generation. Times are Redis's clock, ms; members at their default are left out.

    Attributes:
        idle_ms: from the last output of the backend to the worker's report; None: none came yet.
        tokens_per_s: over the time between two reports of the worker; None: not known yet.
        waiting_ms: since it began to wait for a worker.
        error: the code of its error.
    """

    id: str
    state: str
    owner: str | None = None
    model: str | None = None
    backend: str | None = None
    priority: str | None = None
    worker: str | None = None
    attempt: int = 0
    readers: int = 0
    tokens: int | None = None
    tokens_per_s: float | None = None
    idle_ms: int | None = None
    waiting_ms: int | None = None
    created_at_ms: int | None = None
    ended_at_ms: int | None = None
    error: str | None = None


class Detail(NamedTuple):
    """The fields of meta. While the generation runs, only `status` and `attempt` change."""

    owner: str
    model: str
    priority: str
    created_at_ms: int
    status: str
    attempt: int = 0
    ended_at_ms: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows a page shows.

    Attributes:
        state: of `STATES`.
        search: the beginning of an id.
        page: from 1 on.
    """

    state: str = ""
    owner: str = ""
    model: str = ""
    worker: str = ""
    backend: str = ""
    search: str = ""
    page: int = 1

    @classmethod
    def read(cls, query: QueryParams) -> Filter:
        """Read the filter of a request.

        Raises:
            RequestError: 422 `invalid_request`.
        """
        texts = {
            name: query.get(name, "").strip()
            for name in ("state", "owner", "model", "worker", "backend", "search")
        }
        if texts["state"] not in STATES:
            raise request_error("invalid_request", "state must be running, queued or ended")
        if any(len(text) > SEARCH_CHARACTERS_MAX for text in texts.values()):
            limit = SEARCH_CHARACTERS_MAX
            raise request_error("invalid_request", f"a filter has at most {limit} characters")
        page = query.get("page") or "1"
        if not page.isascii() or not page.isdigit() or not 1 <= int(page) <= PAGES_OF_ROWS_MAX:
            message = f"page must be a number from 1 to {PAGES_OF_ROWS_MAX}"
            raise request_error("invalid_request", message)
        return cls(**texts, page=int(page))

    @property
    def is_open(self) -> bool:
        """Whether every unfinished generation passes."""
        return self == Filter(page=self.page)

    def shows_run(self, run: LiveRun, worker: str) -> bool:
        """Whether a running generation passes the filter."""
        return (
            self.state in ("", "running")
            and (not self.owner or run.owner == self.owner)
            and (not self.model or run.model == self.model)
            and (not self.worker or worker == self.worker)
            and (not self.backend or run.backend == self.backend)
            and (not self.search or run.id.startswith(self.search))
        )

    def shows(self, row: Row) -> bool:
        """Whether a row of the right state passes the filter."""
        return (
            (not self.state or row.state == self.state or self._shows_ended(row))
            and (not self.owner or row.owner == self.owner)
            and (not self.model or row.model == self.model)
            and (not self.worker or row.worker == self.worker)
            and (not self.backend or row.backend == self.backend)
            and (not self.search or row.id.startswith(self.search))
        )

    def _shows_ended(self, row: Row) -> bool:
        return self.state == "ended" and row.state in ENDED


class RowPage(NamedTuple):
    """One page of the table.

    Attributes:
        total: rows that pass the filter, as far as they are known.
        unfinished: those of them that have not ended; None: not counted.
    """

    rows: Sequence[Row]
    total: int
    page: int
    unfinished: int | None = None


def cut(rows: Iterable[Row], wanted: Filter) -> RowPage:
    """Return the rows of the wanted page.

    Args:
        rows: in the order in which they are shown.
    """
    found = [row for row in rows if wanted.shows(row)]
    start = (wanted.page - 1) * ROWS_PER_PAGE
    return RowPage(found[start : start + ROWS_PER_PAGE], len(found), wanted.page)


class LiveRuns:
    """The runs that workers report. Rows are made of those that a page shows, not of all.

    Attributes:
        by_id: each run with its worker. If two workers report a generation, the one with the higher
            attempt holds it.
    """

    def __init__(self) -> None:
        self.by_id: dict[str, tuple[LiveRun, str]] = {}
        self._now: dict[str, _Report] = {}
        self._before: dict[str, _Report] = {}

    def update(self, runs: Mapping[str, Sequence[LiveRun]], at_ms: Mapping[str, int]) -> None:
        """Take the newest reports.

        Args:
            at_ms: when each living worker reported; runs of other workers are left out.
        """
        reports: dict[str, _Report] = {}
        self.by_id = {}
        number = 0
        for worker, some in runs.items():
            if worker not in at_ms:
                continue
            own = {run.id: (run, worker) for run in some}
            report = reports[worker] = _Report(at_ms[worker], own)
            former = self._now.get(worker)
            if former is not None and former.at_ms != report.at_ms:
                self._before[worker] = former
            self.by_id.update(own)
            number += len(own)
        if len(self.by_id) != number:  # rare, and to look at each run costs as much as all the rest
            self._settle(reports.values())
        self._now = reports
        self._before = {name: each for name, each in self._before.items() if name in reports}

    def _settle(self, reports: Iterable[_Report]) -> None:
        """Let the higher attempt win, where two workers report a generation."""
        for report in reports:
            for name, pair in report.runs.items():
                if self.by_id[name][0].attempt < pair[0].attempt:
                    self.by_id[name] = pair

    def row(self, generation_id: str, readers: int) -> Row:
        """Return the row of a run that is in `by_id`."""
        run, worker = self.by_id[generation_id]
        return Row(
            run.id, "running", run.owner, run.model, run.backend, run.priority, worker,
            run.attempt, readers, run.tokens, self._rate(run, worker),
            None if run.idle_ms < 0 else run.idle_ms,
            created_at_ms=run.created_at_ms,
        )  # fmt: skip

    def _rate(self, run: LiveRun, worker: str) -> float | None:
        """Return the tokens per second from one report to the next; None: it is in one only."""
        before = self._before.get(worker)
        former = before.runs.get(run.id) if before else None
        if before is None or former is None or former[0].attempt != run.attempt:
            return None
        return round(
            (run.tokens - former[0].tokens) * 1000 / (self._now[worker].at_ms - before.at_ms), 1
        )


class _Report(NamedTuple):
    at_ms: int
    runs: dict[str, tuple[LiveRun, str]]


def cut_unfinished(
    live: LiveRuns, others: Mapping[str, Row], readers: Mapping[str, int], wanted: Filter
) -> RowPage:
    """Return the wanted page of unfinished generations, the newest first.

    Args:
        others: rows of generations that no worker reports: those that wait.
    """
    runs: Iterable[tuple[LiveRun, str]] = live.by_id.values()
    if not wanted.is_open:
        runs = (pair for pair in runs if wanted.shows_run(*pair))
    keys = [(run.created_at_ms, run.id) for run, _ in runs]
    keys += [
        (row.created_at_ms or 0, name)
        for name, row in others.items()
        if name not in live.by_id and wanted.shows(row)
    ]
    start = (wanted.page - 1) * ROWS_PER_PAGE
    shown = nlargest(start + ROWS_PER_PAGE, keys)[start:]
    rows = [
        live.row(name, readers.get(name, 0)) if name in live.by_id else others[name]
        for _, name in shown
    ]
    return RowPage(rows, len(keys), wanted.page, len(keys))


def queued_rows(
    partitions: Iterable[PartitionState],
    details: Mapping[str, Detail | None],
    readers: Mapping[str, int],
    now_ms: int,
) -> dict[str, Row]:
    """Return the rows of waiting generations by id: the oldest of each partition."""
    found: dict[str, Row] = {}
    for partition in partitions:
        for each in partition.queued:
            known = details.get(each.id)
            if known is not None and known.status in ENDED:
                continue  # it has been cancelled, and its entry is not taken off the lane yet
            found[each.id] = Row(
                each.id,
                "queued",
                known.owner if known else None,
                known.model if known else None,
                priority=each.priority,
                attempt=known.attempt if known else 0,
                readers=readers.get(each.id, 0),
                waiting_ms=max(0, now_ms - each.since_ms),
                created_at_ms=known.created_at_ms if known else each.since_ms,
            )
    return found


def detail_row(generation_id: str, detail: Detail) -> Row:
    """Return the row of a generation of which only meta is known."""
    return Row(
        generation_id, detail.status, detail.owner, detail.model, priority=detail.priority,
        attempt=detail.attempt, created_at_ms=detail.created_at_ms,
        ended_at_ms=detail.ended_at_ms or None, error=detail.error,
    )  # fmt: skip


def readers_of(nodes: Iterable[NodeReport]) -> dict[str, int]:
    """Return the readers of each generation over all nodes."""
    found: dict[str, int] = {}
    for node in nodes:
        for generation_id, count in node.readers_of.items():
            found[generation_id] = found.get(generation_id, 0) + count
    return found
