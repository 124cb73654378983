"""Who has to go when there is no room, and how many one address may have."""

from __future__ import annotations

import logging

import pytest

from api.transport.connection_limit import LOG_EVERY_S, Crowd
from api.transport.peer import Peers

HERE, THERE, PROXY = "203.0.113.7", "198.51.100.1", "10.0.0.1"


class Guest:
    """A connection that notes that it has to go."""

    def __init__(self) -> None:
        self.is_gone = False

    def evict(self) -> None:
        self.is_gone = True


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def entered(crowd: Crowd, count: int, host: str | None = HERE) -> list[Guest]:
    guests = [Guest() for _ in range(count)]
    for guest in guests:
        assert crowd.enter(guest, host) is None
    return guests


def test_the_longest_idle_goes_first(clock: Clock) -> None:
    crowd = Crowd(room=3, now=clock)
    first, second, third = entered(crowd, 3)
    crowd.work(first)
    crowd.rest(first)
    entered(crowd, 1)

    assert [guest.is_gone for guest in (first, second, third)] == [False, True, False]
    entered(crowd, 2)
    assert first.is_gone and third.is_gone
    assert len(crowd) == 3


def test_who_has_a_request_under_way_stays_and_the_new_one_is_refused(clock: Clock) -> None:
    crowd = Crowd(room=2, now=clock)
    guests = entered(crowd, 2)
    for guest in guests:
        crowd.work(guest)
    late = Guest()
    error = crowd.enter(late, HERE)

    assert error is not None and (error.status, error.retry_after_s) == (503, 1)
    assert not any(guest.is_gone for guest in guests)
    # A refused one only waits for its answer to be read: it is the next to go.
    crowd.enter(Guest(), HERE)
    assert late.is_gone and len(crowd) == 3


def test_who_has_left_takes_no_place_and_is_not_closed_again(clock: Clock) -> None:
    crowd = Crowd(room=2, now=clock)
    first, second = entered(crowd, 2)
    crowd.leave(first)
    crowd.leave(first)
    crowd.rest(first)
    entered(crowd, 1)

    assert not (first.is_gone or second.is_gone)


def test_a_socket_keeps_the_place_of_its_handshake_and_is_not_idle(clock: Clock) -> None:
    crowd = Crowd(room=1, now=clock, address_max=1)
    (request,) = entered(crowd, 1)
    socket = Guest()
    crowd.replace(request, socket)

    assert crowd.enter(Guest(), THERE) is not None
    assert not (request.is_gone or socket.is_gone)
    crowd.rest(socket)
    crowd.enter(Guest(), THERE)
    assert not socket.is_gone  # the one that was refused is idle for longer
    crowd.enter(Guest(), THERE)
    assert socket.is_gone


def test_one_line_in_the_log_has_what_a_minute_brought(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    crowd = Crowd(room=2, now=clock)
    entered(crowd, 50)
    assert len(caplog.records) == 1

    clock.now_s += LOG_EVERY_S
    entered(crowd, 5)
    assert [record.getMessage() for record in caplog.records] == ["connections full"] * 2
    assert caplog.records[1].closed == 48  # type: ignore[attr-defined]


def test_one_address_has_so_many_connections(clock: Clock) -> None:
    crowd = Crowd(room=100, now=clock, address_max=2)
    first, _ = entered(crowd, 2)
    entered(crowd, 1, THERE)
    refused = Guest()
    error = crowd.enter(refused, HERE)

    assert error is not None and (error.status, error.code) == (429, "rate_limited")
    crowd.leave(refused)
    assert crowd.enter(Guest(), HERE) is not None, "a refused one had no turn to give back"
    crowd.leave(first)
    entered(crowd, 1)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", None, PROXY])
def test_loopback_and_proxies_have_as_many_as_they_like(clock: Clock, host: str | None) -> None:
    crowd = Crowd(room=100, now=clock, address_max=2, peers=Peers.read(PROXY))

    entered(crowd, 50, host)


def test_through_a_proxy_requests_count_for_the_address_that_it_names(clock: Clock) -> None:
    crowd = Crowd(room=100, now=clock, address_max=2, peers=Peers.read(PROXY))
    headers = [(b"x-forwarded-for", HERE.encode())]

    assert crowd.forwarded(THERE, headers) is None, "no proxy: its connections count"
    address = crowd.forwarded(PROXY, headers)
    assert address == HERE
    assert [crowd.take(HERE) for _ in range(3)] == [True, True, False]
    crowd.give_back(HERE)
    assert crowd.take(HERE)


def test_nothing_is_counted_where_there_is_no_bound(clock: Clock) -> None:
    crowd = Crowd(room=100, now=clock, peers=Peers.read(PROXY))

    entered(crowd, 50)
    assert crowd.forwarded(PROXY, [(b"x-forwarded-for", HERE.encode())]) is None
