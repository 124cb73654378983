"""The client's requests about owners: their usage, and forgetting them. Knows no terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from cli.client.client import Client


class AccountClient(Client):
    """A client of an API node that can also report usage and forget owners."""

    async def usage(self, query: Mapping[str, str]) -> list[dict[str, Any]]:
        """Return the rows of a report of usage, of all pages.

        If the rows are not divided by owner, the rows of all pages are added up.

        Raises as `create` does.
        """
        found: dict[tuple[Any, ...], dict[str, Any]] = {}
        after: str | None = ""
        while after is not None:
            page = await self._persist("GET", f"/v1/usage?{_encoded(query, after)}")
            for row in page["data"]:
                key = (row["owner"], row["model"], row["day"])
                found[key] = _sum(found.get(key), row)
            after = page.get("next_after")
        return [found[key] for key in sorted(found, key=lambda key: [part or "" for part in key])]

    async def forget(
        self, owner: str, *, keeps_usage: bool, on_step: Callable[[Counter[str]], None]
    ) -> Counter[str]:
        """Forget an owner: repeat all steps until they find nothing; return the counts.

        Args:
            on_step: called after each step with the numbers so far.

        Raises as `create` does.
        """
        total: Counter[str] = Counter()
        while True:
            found: Counter[str] = Counter()
            async for deleted in self._walk(owner, keeps_usage=keeps_usage):
                found += deleted
                on_step(total + found)
            total += found
            if not found:
                return total

    async def _walk(self, owner: str, *, keeps_usage: bool) -> AsyncIterator[Counter[str]]:
        query = {"usage": "keep"} if keeps_usage else {}
        after: str | None = ""
        while after is not None:
            path = f"/v1/owners/{quote(owner, safe='')}?{_encoded(query, after)}"
            step = await self._persist("DELETE", path)
            yield Counter(step["deleted"])
            after = step["next"]


def _encoded(query: Mapping[str, str], after: str) -> str:
    return urlencode({**query, "after": after} if after else dict(query))


def _sum(old: dict[str, Any] | None, row: dict[str, Any]) -> dict[str, Any]:
    if old is None:
        return row
    return {
        name: old[name] + value if isinstance(value, int | float) else value
        for name, value in row.items()
    }
