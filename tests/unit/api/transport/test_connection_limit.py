"""The connection that is closed at the limit, and the limit for one address."""

from __future__ import annotations

import logging

import pytest

from api.transport.connection_limit import LOG_INTERVAL_S, ConnectionLimit
from api.transport.peer import TrustedProxies

HERE, THERE, PROXY = "203.0.113.7", "198.51.100.1", "10.0.0.1"


class FakeConnection:
    """A connection that records its eviction."""

    def __init__(self) -> None:
        self.is_evicted = False

    def evict(self) -> None:
        self.is_evicted = True


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def add(limit: ConnectionLimit, count: int, host: str | None = HERE) -> list[FakeConnection]:
    connections = [FakeConnection() for _ in range(count)]
    for connection in connections:
        assert limit.add(connection, host) is None
    return connections


def test_the_longest_idle_connection_is_closed_first(clock: Clock) -> None:
    limit = ConnectionLimit(connections_max=3, now=clock)
    first, second, third = add(limit, 3)
    limit.mark_busy(first)
    limit.mark_idle(first)
    add(limit, 1)

    assert [connection.is_evicted for connection in (first, second, third)] == [False, True, False]
    add(limit, 2)
    assert first.is_evicted and third.is_evicted
    assert len(limit) == 3


def test_busy_connections_stay_and_the_new_connection_is_refused(clock: Clock) -> None:
    limit = ConnectionLimit(connections_max=2, now=clock)
    connections = add(limit, 2)
    for connection in connections:
        limit.mark_busy(connection)
    refused = FakeConnection()
    error = limit.add(refused, HERE)

    assert error is not None and (error.status, error.retry_after_s) == (503, 1)
    assert not any(connection.is_evicted for connection in connections)
    # A refused connection is idle until the peer has read the refusal: it is closed next.
    limit.add(FakeConnection(), HERE)
    assert refused.is_evicted and len(limit) == 3


def test_a_removed_connection_does_not_count_and_is_not_closed_again(clock: Clock) -> None:
    limit = ConnectionLimit(connections_max=2, now=clock)
    first, second = add(limit, 2)
    limit.remove(first)
    limit.remove(first)
    limit.mark_idle(first)
    add(limit, 1)

    assert not (first.is_evicted or second.is_evicted)


def test_a_websocket_replaces_its_handshake_and_is_not_idle(clock: Clock) -> None:
    limit = ConnectionLimit(connections_max=1, now=clock, address_max=1)
    (request,) = add(limit, 1)
    socket = FakeConnection()
    limit.replace(request, socket)

    assert limit.add(FakeConnection(), THERE) is not None
    assert not (request.is_evicted or socket.is_evicted)
    limit.mark_idle(socket)
    limit.add(FakeConnection(), THERE)
    assert not socket.is_evicted  # the refused connection has been idle for longer
    limit.add(FakeConnection(), THERE)
    assert socket.is_evicted


def test_the_log_has_one_line_per_interval_with_the_counts(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    limit = ConnectionLimit(connections_max=2, now=clock)
    add(limit, 50)
    assert len(caplog.records) == 1

    clock.now_s += LOG_INTERVAL_S
    add(limit, 5)
    assert [record.getMessage() for record in caplog.records] == ["connections full"] * 2
    assert caplog.records[1].closed == 48  # type: ignore[attr-defined]


def test_one_address_has_at_most_address_max_connections(clock: Clock) -> None:
    limit = ConnectionLimit(connections_max=100, now=clock, address_max=2)
    first, _ = add(limit, 2)
    add(limit, 1, THERE)
    refused = FakeConnection()
    error = limit.add(refused, HERE)

    assert error is not None and (error.status, error.code) == (429, "rate_limited")
    limit.remove(refused)
    assert limit.add(FakeConnection(), HERE) is not None, "the refused connection was not counted"
    limit.remove(first)
    add(limit, 1)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", None, PROXY])
def test_loopback_and_proxies_have_no_address_limit(clock: Clock, host: str | None) -> None:
    limit = ConnectionLimit(
        connections_max=100, now=clock, address_max=2, peers=TrustedProxies.read(PROXY)
    )

    add(limit, 50, host)


def test_requests_through_a_proxy_count_for_the_forwarded_address(clock: Clock) -> None:
    limit = ConnectionLimit(
        connections_max=100, now=clock, address_max=2, peers=TrustedProxies.read(PROXY)
    )
    headers = [(b"x-forwarded-for", HERE.encode())]

    assert limit.forwarded_address(THERE, headers) is None, "not a proxy: its connections count"
    address = limit.forwarded_address(PROXY, headers)
    assert address == HERE
    assert [limit.acquire(HERE) for _ in range(3)] == [True, True, False]
    limit.release(HERE)
    assert limit.acquire(HERE)


def test_without_a_limit_no_address_is_counted(clock: Clock) -> None:
    limit = ConnectionLimit(connections_max=100, now=clock, peers=TrustedProxies.read(PROXY))

    add(limit, 50)
    assert limit.forwarded_address(PROXY, [(b"x-forwarded-for", HERE.encode())]) is None
