"""Pages of listings whose indexes name generations that have expired."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

from api.resources.listings import INDEX_READS_MAX, PAGE_GENERATIONS, ListingRoutes
from shared.config.credentials import Identity, Share
from shared.log.records import Meta
from tests.support.hub_harness import HubHarness, make_meta


class Index:
    """The index of a session, and the metas of the generations that have not expired."""

    def __init__(self) -> None:
        self.times_ms: dict[str, int] = {}
        self.known: dict[str, Meta] = {}
        self.reads = 0

    def add(self, number: int, *, is_expired: bool = False, per_ms: int = 1) -> None:
        """Add so many generations, each newer than those before, or `per_ms` at one time."""
        for n in range(number):
            name = f"gen_{len(self.times_ms):010d}"
            newest = max(self.times_ms.values(), default=1_000)
            self.times_ms[name] = newest + (n % per_ms == 0)
            if not is_expired:
                created_at_ms = self.times_ms[name]
                self.known[name] = make_meta(name, created_at_ms=created_at_ms)

    async def zrevrangebyscore(
        self, _: str, highest: str, lowest: str, *, num: int, **options: Any
    ) -> list[tuple[bytes, float]]:
        assert lowest == "-inf" and options["start"] == 0
        self.reads += 1
        before_ms = float(highest.removeprefix("(").removeprefix("+"))
        rows = [(ms, name) for name, ms in self.times_ms.items() if ms < before_ms]
        found = [(name.encode(), float(ms)) for ms, name in sorted(rows, reverse=True)[:num]]
        return found if options.get("withscores") else [each[0] for each in found]

    async def metas(self, ids: Sequence[str]) -> list[Meta | None]:
        return [self.known.get(name) for name in ids]

    async def page(
        self, before_ms: int | None = None, identity: Identity | None = None
    ) -> dict[str, Any]:
        async with HubHarness() as harness:
            harness.log.metas = self.metas  # type: ignore[attr-defined]
            routes = ListingRoutes(harness.node(redis=self))
            viewer = identity or Identity("anonymous")
            return await routes.session_content("chat", viewer, before_ms)

    async def pages(self) -> list[list[str]]:
        """Follow `next_before` to the end; return the ids of each page."""
        found: list[list[str]] = []
        before_ms: int | None = None
        for _ in count():
            page = await self.page(before_ms)
            found.append([item["id"] for item in page["generations"]])
            before_ms = page["next_before"]
            if before_ms is None:
                return found
        raise AssertionError


async def test_one_expired_generation_ends_no_listing() -> None:
    index = Index()
    index.add(300)
    index.add(1, is_expired=True)

    pages = await index.pages()

    assert [len(page) for page in pages] == [100, 100, 100]
    assert sum(pages, []) == sorted(index.known, reverse=True)


async def test_a_running_generation_below_many_expired_ones_is_active() -> None:
    index = Index()
    index.add(1)
    index.add(PAGE_GENERATIONS + 1, is_expired=True)

    page = await index.page()

    assert page["active"] == list(index.known) and page["next_before"] is None


async def test_a_page_reads_a_bounded_part_of_the_index_and_names_the_rest() -> None:
    index = Index()
    index.add(1)
    index.add(INDEX_READS_MAX * PAGE_GENERATIONS + 1, is_expired=True)

    assert (await index.page())["generations"] == []
    assert index.reads == INDEX_READS_MAX
    assert await index.pages() == [[], list(index.known)]


async def test_pages_do_not_end_within_a_millisecond() -> None:
    index = Index()
    for part in range(6):
        index.add(90, is_expired=part % 2 == 1, per_ms=7)

    pages = await index.pages()

    assert sorted(sum(pages, [])) == sorted(index.known)
    assert all(len(page) <= PAGE_GENERATIONS for page in pages)


async def test_a_share_learns_nothing_of_other_sessions_of_its_maker() -> None:
    index = Index()
    index.add(1_500)
    shared = next(iter(index.known))
    index.known["gen_other"] = make_meta("gen_other", session="other")

    def of(share: Share) -> Identity:
        return Identity("anonymous", share=share)

    other_session = await index.page(identity=of(Share("trs_1", "", "other")))
    other = await index.page(identity=of(Share("trs_1", "gen_other", "")))
    assert index.reads == 0
    for page in (other_session, other):
        assert (page["generations"], page["next_before"]) == ([], None)
    index.known[shared] = make_meta(shared, session="chat")
    page = await index.page(identity=of(Share("trs_1", shared, "")))
    assert [item["id"] for item in page["generations"]] == [shared]
