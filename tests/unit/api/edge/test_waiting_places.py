"""Places of clients that have not said who they are."""

from __future__ import annotations

from api.edge.waiting_places import IN_ALL_MAX, OF_ADDRESS_MAX, WaitingPlaces


def test_an_address_has_a_bound_and_others_are_not_affected() -> None:
    places = WaitingPlaces()

    assert all(places.take("a") for _ in range(OF_ADDRESS_MAX))
    assert not places.take("a")
    assert places.take("b")
    places.give_back("a")
    assert places.take("a")


def test_all_addresses_together_have_a_bound_and_leave_nothing_behind() -> None:
    places = WaitingPlaces()
    for number in range(IN_ALL_MAX):
        assert places.take(str(number))

    assert not places.take("one more")
    for number in range(IN_ALL_MAX):
        places.give_back(str(number))
    assert len(places) == 0 and not places._taken
