"""The proxy breaks connections where it is told to, and only there."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.proxy import Proxy
from tests.support.wait import until


@pytest.fixture
async def echo():
    """A server that sends back each piece, and remembers all of it."""
    received = bytearray()

    async def serve(reader, writer):
        try:
            while data := await reader.read(1024):
                received.extend(data)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    server.received = received
    server.port = server.sockets[0].getsockname()[1]
    yield server
    server.close()


async def is_broken(reader) -> bool:
    try:
        return await asyncio.wait_for(reader.read(1), 5) == b""
    except ConnectionResetError:
        return True


async def test_it_passes_everything_on(echo):
    async with Proxy("127.0.0.1", echo.port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"hello")

        assert await reader.readexactly(5) == b"hello"
        writer.close()


async def test_it_cuts_in_mid_request(echo):
    async with Proxy("127.0.0.1", echo.port) as proxy:
        proxy.cut_after(3, "up")
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"hello")

        await until(lambda: len(echo.received) >= 3, 5)
        writer.close()

        assert bytes(echo.received) == b"hel"


async def test_it_cuts_in_mid_reply_and_the_request_has_arrived(echo):
    async with Proxy("127.0.0.1", echo.port) as proxy:
        proxy.cut_after(2, "down")
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"hello")
        try:
            got = await reader.read(100)
        except ConnectionResetError:
            got = b""

        assert got in (b"", b"he")  # a reset may overtake the last bytes
        assert bytes(echo.received) == b"hello"
        assert await is_broken(reader)
        writer.close()


async def test_after_one_cut_new_connections_flow(echo):
    async with Proxy("127.0.0.1", echo.port) as proxy:
        proxy.cut_after(1, "up")
        first, first_writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        first_writer.write(b"x")
        await until(lambda: proxy.cuts, 5)
        second, second_writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        second_writer.write(b"hello")

        assert await second.readexactly(5) == b"hello"
        first_writer.close()
        second_writer.close()


async def test_a_lost_reply(echo):
    async with Proxy("127.0.0.1", echo.port) as proxy:
        proxy.lose_replies()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"hello")

        assert await is_broken(reader)
        assert bytes(echo.received) == b"hello"
        writer.close()


async def test_a_stall_holds_back_and_then_delivers(echo):
    async with Proxy("127.0.0.1", echo.port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        proxy.stall()
        writer.write(b"hello")
        reading = asyncio.ensure_future(reader.readexactly(5))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not echo.received

        proxy.flow()

        assert await asyncio.wait_for(reading, 5) == b"hello"
        writer.close()


async def test_refusing_breaks_open_and_new_connections(echo):
    async with Proxy("127.0.0.1", echo.port) as proxy:
        old, old_writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        old_writer.write(b"x")
        await old.readexactly(1)

        await proxy.refuse()

        new, new_writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await is_broken(old)
        assert await is_broken(new)
        old_writer.close()
        new_writer.close()


async def test_a_target_that_is_gone_breaks_the_connection():
    async with Proxy("127.0.0.1", 1) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)

        assert await is_broken(reader)
        writer.close()


async def test_it_leads_to_another_port_from_the_next_connection_on(echo):
    async with Proxy("127.0.0.1", 1) as proxy:
        proxy.lead_to(echo.port)
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"hello")

        assert await reader.readexactly(5) == b"hello"
        writer.close()
