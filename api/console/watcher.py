"""One open page of the console, as the sampler knows it."""

from __future__ import annotations

from api.console.rows import Filter


class Watcher:
    """One open page.

    Attributes:
        wanted: the filter of its table.
        ids: the newest generations of the owner that the filter names; None: it names none, or
            they are not read yet.
        is_page: False: an action asks once; it does not count among the open pages.
        opened_at: the number of the picture before this page was opened.
    """

    def __init__(self, wanted: Filter, opened_at: int = 0, *, is_page: bool = True) -> None:
        self.wanted = wanted
        self.is_page = is_page
        self.opened_at = opened_at
        self.ids: list[str] | None = None
        self.is_new = True
