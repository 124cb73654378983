"""Tests that are only worth something at full speed: asyncio without its debug mode for a while.

Debug mode keeps a stack with every future and handle. Where a test process has hundreds of readers,
or races what runs in it, that is ten times as slow, and the machine would decide the outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def full_speed() -> Iterator[None]:
    loop = asyncio.get_running_loop()
    was_debugging = loop.get_debug()
    loop.set_debug(False)
    try:
        yield
    finally:
        loop.set_debug(was_debugging)
