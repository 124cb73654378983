"""What meta says about the generations that rows show: which are lacking, and which are known.

Workers report owner and model of what they run. Of waiting and ended generations only meta has
them, so they are read for the rows that pages show, and remembered. Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from api.console.limits import DETAILS_KEPT, ROWS_PER_PAGE
from api.console.rows import Detail
from shared.log.records import ENDED
from shared.redis import keys
from shared.redis.client import Command

FIELDS = ("status", "owner", "model", "priority", "created", "attempt", "ended", "end")


class Details(Mapping[str, Detail | None]):
    """The details by generation id; None: there is no such generation."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Detail | None] = OrderedDict()
        self._wanted: list[str] = []

    def __getitem__(self, generation_id: str) -> Detail | None:
        return self._known[generation_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def want(self, ids: Iterable[str]) -> None:
        """Note the generations of a page whose details are unknown, or may have changed."""
        self._wanted += list(ids)[: 2 * ROWS_PER_PAGE]

    def take_wanted(self, count: int) -> list[str]:
        """Return at most `count` ids whose details are to be read, and forget the others."""
        ids = list(dict.fromkeys(each for each in self._wanted if self.lacks(each)))
        self._wanted = []
        return ids[: max(0, count)]

    def take(self, generation_id: str, reply: Any) -> None:
        """Keep the reply for a command of `command`."""
        if isinstance(reply, Exception):
            return
        self._known[generation_id] = read_detail(reply)
        self._known.move_to_end(generation_id)
        while len(self._known) > DETAILS_KEPT:
            self._known.popitem(last=False)

    def lacks(self, generation_id: str) -> bool:
        """Whether the details are unknown, or those of a generation that may have ended since."""
        detail = self._known.get(generation_id)
        return detail is None or detail.status not in ENDED


def command(generation_id: str) -> Command:
    """Return the command that reads the details of a generation."""
    return ("HMGET", keys.meta(generation_id), *FIELDS)


class _End(msgspec.Struct):
    error: dict[str, Any] | None = None


_ends = msgspec.json.Decoder(_End)


def read_detail(reply: Sequence[bytes | None]) -> Detail | None:
    """Decode the values of `FIELDS`; None: the generation is gone."""
    status, owner, model, priority, created, attempt, ended, end = reply
    if status is None or status == b"sealed":
        return None
    error = _ends.decode(end).error if end else None
    return Detail(
        (owner or b"").decode(),
        (model or b"").decode(),
        (priority or b"interactive").decode(),
        int(created or 0),
        status.decode(),
        int(attempt or 0),
        int(ended or 0),
        None if error is None else str(error.get("code", "")),
    )
