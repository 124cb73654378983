"""The generations that a sampler knows, and the pages that filters cut from them. Pure.

A generation is known from a report of its worker, from an index of the queue, or from its meta.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from api.console.details import Details
from api.console.rows import (
    Filter,
    LiveRuns,
    Row,
    RowPage,
    cut,
    cut_unfinished,
    detail_row,
    queued_rows,
)
from api.console.watcher import Watcher
from shared.console.queue_state import PartitionState
from shared.log.ids import is_generation_id
from shared.log.records import ENDED


class Table:
    """The generations of one sampler.

    Attributes:
        live: what workers report.
        others: rows of generations that no worker reports.
        readers: how many each generation has.
        details: what meta says.
        recent: running generations that the index names, while no worker has reported.
    """

    def __init__(self) -> None:
        self.live = LiveRuns()
        self.others: dict[str, Row] = {}
        self.readers: dict[str, int] = {}
        self.details = Details()
        self.recent: list[str] = []

    def page(self, watcher: Watcher, recent_ids: Sequence[str]) -> RowPage:
        """Return the rows that a page shows, and note which details it lacks.

        Args:
            recent_ids: the newest generations of owners, for a page of ended ones.
        """
        page = self._cut(watcher, recent_ids)
        if page.unfinished is None:
            page = page._replace(unfinished=len(self.unfinished_of(watcher)))
        return page

    def unfinished_of(self, watcher: Watcher) -> list[str]:
        """Return the unfinished generations that the filter of a watcher shows, the oldest first.

        They are as many as the sampler knows: docs/console.md says which.
        """
        wanted, live = watcher.wanted, self.live.by_id
        is_open = wanted.is_open
        found = {
            run.id: run.created_at_ms
            for run, worker in live.values()
            if is_open or wanted.shows_run(run, worker)
        }
        named = [*(watcher.ids or ()), *self._searched(wanted)]
        read = (detail_row(name, detail) for name in named if (detail := self.details.get(name)))
        for row in (*self.others.values(), *read):
            if row.id not in live and row.state not in ENDED and wanted.shows(row):
                found[row.id] = row.created_at_ms or 0
        return sorted(found, key=lambda name: found[name])

    def unread_of(self, watcher: Watcher) -> list[str]:
        """Return the generations that a filter may show, and whose details may have changed."""
        named = [*self.others, *(watcher.ids or ()), *self._searched(watcher.wanted)]
        ids = dict.fromkeys(each for each in named if each not in self.live.by_id)
        return [each for each in ids if self.details.lacks(each)]

    def _searched(self, wanted: Filter) -> list[str]:
        return [wanted.search] if is_generation_id(wanted.search) else []

    def _cut(self, watcher: Watcher, recent_ids: Sequence[str]) -> RowPage:
        wanted = watcher.wanted
        if is_generation_id(wanted.search):
            return self._found([wanted.search], wanted)
        if wanted.state == "ended" or (wanted.owner and watcher.ids is not None):
            ids = watcher.ids if watcher.ids is not None else recent_ids
            return self._found(ids, wanted)
        page = cut_unfinished(self.live, self.others, self.readers, wanted)
        self.details.want(row.id for row in page.rows if row.owner is None)
        return page

    def _found(self, ids: Sequence[str], wanted: Filter) -> RowPage:
        """Return a page of generations by id: of an owner, of a search, or ended ones."""
        rows: list[Row] = []
        unknown: list[str] = []
        stale: list[str] = []  # ran or waited when read, and are not in the reports any more
        for generation_id in ids:
            if generation_id in self.live.by_id:
                rows.append(self.live.row(generation_id, self.readers.get(generation_id, 0)))
            elif (row := self.others.get(generation_id)) is not None and row.owner is not None:
                rows.append(row)
            elif generation_id not in self.details:
                unknown.append(generation_id)
            elif (detail := self.details[generation_id]) is not None:
                rows.append(detail_row(generation_id, detail))
                if detail.status not in ENDED:
                    stale.append(generation_id)
        self.details.want([*unknown, *stale])
        # An id that is not read yet may pass the filter: it counts, so that pages can be reached.
        page = cut(rows, wanted)
        return page._replace(total=page.total + len(unknown))

    def make_rows(self, states: Iterable[PartitionState], now_ms: int) -> None:
        """Make the rows of generations that no worker reports."""
        self.others = queued_rows(states, self.details, self.readers, now_ms)
        for generation_id in self.recent:
            detail = self.details.get(generation_id)
            if generation_id not in self.others and detail is not None:
                self.others[generation_id] = detail_row(generation_id, detail)
