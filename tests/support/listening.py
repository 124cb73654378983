"""How a server of the tests stops listening without leaving a socket open."""

from __future__ import annotations

import asyncio

ACCEPT_TURNS = 5


async def stop_listening(server: asyncio.Server) -> None:
    """Accept no more connections, and let the handlers of those that were accepted begin.

    The caller ends the handlers. A connection that asyncio is accepting needs four turns of the
    loop to start its handler. Python 3.11 leaves its socket open if the server closes meanwhile:
    a warning in whichever test runs when the garbage collector finds the socket.
    """
    loop = asyncio.get_running_loop()
    for listener in server.sockets:
        loop.remove_reader(listener.fileno())
    for _ in range(ACCEPT_TURNS):
        await asyncio.sleep(0)
    server.close()
