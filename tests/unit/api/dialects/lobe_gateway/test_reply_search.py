"""The search for a client's reply in a log of which this node has trimmed the beginning."""

from __future__ import annotations

from api.dialects.lobe_gateway.replies import _Search
from shared.log.event_bytes import LOST
from tests.support.hub_harness import HubHarness


async def test_a_search_is_over_when_redis_has_lost_the_trimmed_entries() -> None:
    async with HubHarness() as hub_harness:
        meta = hub_harness.log.create()
        hub_harness.log.tokens("a", "b", "c")
        async with hub_harness.hub.reading(meta) as relay:
            await relay.wait_settled()
            relay.trim()
            search = _Search(relay, "tool_result", "call_1")
            hub_harness.log.lose()
            assert not search.is_over()
            relay.end_unlogged(LOST)

            assert search.is_over() and search.found is None
