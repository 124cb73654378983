"""What the benches compare with and needs Node.js: it can be installed, and tells all of it."""

from __future__ import annotations

from bench.support.deployment import open_stage

from bench import fan_out, reconnect
from bench.support import resumable


async def test_resumable_stream_delivers_the_exact_text() -> None:
    assert resumable.install() == ""

    async with open_stage(is_quick=True) as harness:  # a text that is not exact raises
        assert await fan_out.by_resumable(harness, fan_out.QUICK) > 0
        assert (
            len(await reconnect.by_resumable(harness, reconnect.QUICK)) == reconnect.QUICK.readers
        )
