"""The fair queue: the limits on turns, the rotation of owners, the limits on waiting tickets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from api.edge.turn_queue import OWNER_WAITING_MAX, WAITING_MAX, TurnQueue, TurnTicket


class Requests:
    """Tickets of several owners in one queue, and the decision for each ticket."""

    def __init__(self, turns_max: int, owner_max: int) -> None:
        self.queue = TurnQueue(turns_max, owner_max)
        self.decided: list[tuple[str, bool]] = []

    def enter(self, owner: str) -> TurnTicket:
        ticket = TurnTicket(owner, lambda has_turn: self.decided.append((owner, has_turn)))
        self.queue.enter(ticket)
        return ticket

    def admitted(self) -> list[str]:
        return [owner for owner, has_turn in self.decided if has_turn]


def test_one_owner_gets_a_part_of_the_turns() -> None:
    requests = Requests(4, 2)
    for owner in "aaaabb":
        requests.enter(owner)
    assert requests.admitted() == ["a", "a", "b", "b"]


def test_owners_get_turns_in_rotation() -> None:
    requests = Requests(1, 1)
    tickets = {0: requests.enter("x")}
    waiting = [requests.enter(owner) for owner in "aaaabbc"]
    requests.queue.leave(tickets[0])
    for _ in range(6):
        running = next(ticket for ticket in waiting if ticket.is_running)
        requests.queue.leave(running)
    assert requests.admitted() == ["x", "a", "b", "c", "a", "b", "a", "a"]


def test_an_owner_with_too_many_tickets_is_refused_alone() -> None:
    requests = Requests(1, 1)
    requests.enter("a")
    for _ in range(OWNER_WAITING_MAX + 3):
        requests.enter("a")
    assert requests.decided.count(("a", False)) == 3
    requests.enter("b")
    assert ("b", False) not in requests.decided


def test_in_a_full_queue_the_owner_with_the_most_tickets_is_refused() -> None:
    requests = Requests(1, 1)
    requests.enter("x")
    owners = [f"owner {number}" for number in range(WAITING_MAX // OWNER_WAITING_MAX)]
    for owner in owners:
        for _ in range(OWNER_WAITING_MAX):
            requests.enter(owner)
    for _ in range(WAITING_MAX - len(owners) * OWNER_WAITING_MAX):
        requests.enter("few")
    requests.enter("late")
    refused = [owner for owner, has_turn in requests.decided if not has_turn]
    assert len(refused) == 1 and refused[0] in owners


def test_a_turn_is_contended_if_a_waiting_ticket_could_use_it() -> None:
    requests = Requests(3, 2)
    for owner in "aab":
        requests.enter(owner)
    assert not requests.queue.is_contended("a")
    requests.enter("c")
    assert requests.queue.is_contended("a") and requests.queue.is_contended("b")

    requests = Requests(3, 2)
    for owner in "aaa":
        requests.enter(owner)
    assert requests.queue.is_contended("a") and not requests.queue.is_contended("b")


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=200))
def test_no_turn_is_lost_or_given_twice(steps: list[tuple[str, bool]]) -> None:
    requests, held = Requests(3, 2), list[TurnTicket]()
    for owner, enters in steps:
        if enters or not held:
            held.append(requests.enter(owner))
        else:
            requests.queue.leave(held.pop(len(held) // 2))
        running = [ticket.owner for ticket in held if ticket.is_running]
        waiting_owners = {ticket.owner for ticket in held if not ticket.is_running}
        assert len(running) <= 3 and all(running.count(owner) <= 2 for owner in "abcd")
        if len(running) < 3:
            assert all(running.count(owner) == 2 for owner in waiting_owners)
