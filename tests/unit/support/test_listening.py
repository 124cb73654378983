"""A server that stops while it accepts a connection leaves no socket open."""

from __future__ import annotations

import asyncio
import gc
import socket

import pytest

from tests.support.listening import ACCEPT_TURNS
from tests.support.upstream import Upstream


@pytest.mark.parametrize("turns", range(ACCEPT_TURNS))
def test_a_connection_that_is_being_accepted_is_closed(turns: int) -> None:
    async def stop_while_accepting() -> socket.socket:
        async with Upstream() as upstream:
            client = socket.create_connection(("127.0.0.1", upstream.port))
            for _ in range(turns):
                await asyncio.sleep(0)
        return client

    with asyncio.run(stop_while_accepting()):
        gc.collect()  # an open socket is a warning here, and warnings are errors
