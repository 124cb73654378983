"""How many entries one read of a log asks for. Pure."""

from __future__ import annotations

from api.hub.feed import Feed

PAGE_ENTRIES_MAX = 1_000
PAGE_ENTRIES_MIN = 8
PAGE_ENTRIES_FIRST = 256  # of the first page, when the size of the entries is unknown
PAGE_BYTES = 262_144  # a page has about this size, as far as the entries read so far show


def page_entries(feed: Feed) -> int:
    """Return the number of entries of the next page, by the size of those in the copy."""
    if not feed.count:
        return PAGE_ENTRIES_FIRST
    fitting = PAGE_BYTES * len(feed.raws) // max(1, feed.bytes_kept)
    return max(PAGE_ENTRIES_MIN, min(PAGE_ENTRIES_MAX, fitting))
