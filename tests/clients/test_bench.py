"""The package resumable-stream of two benches: npm installs it, and it loses no text."""

from __future__ import annotations

from bench import fan_out, reconnect
from bench.support import resumable
from bench.support.setup import open_setup


async def test_resumable_stream_delivers_the_exact_text() -> None:
    assert resumable.install() == ""

    async with open_setup(is_quick=True) as setup:  # a text that is not exact raises
        assert await fan_out.by_resumable(setup, fan_out.QUICK) > 0
        assert len(await reconnect.by_resumable(setup, reconnect.QUICK)) == reconnect.QUICK.readers
