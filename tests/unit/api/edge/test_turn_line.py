"""The line: so many turns, a part for each owner, owners in turn, and a bound on who waits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from api.edge.turn_line import OWNER_WAITING_MAX, WAITING_MAX, TurnLine, TurnTicket


class Asking:
    """Tickets of some owners, and what was decided of each."""

    def __init__(self, at_once: int, owner_max: int) -> None:
        self.line = TurnLine(at_once, owner_max)
        self.decided: list[tuple[str, bool]] = []

    def ask(self, owner: str) -> TurnTicket:
        ticket = TurnTicket(owner, lambda has_turn: self.decided.append((owner, has_turn)))
        self.line.enter(ticket)
        return ticket

    def having(self) -> list[str]:
        return [owner for owner, has_turn in self.decided if has_turn]


def test_one_owner_has_a_part_of_the_turns() -> None:
    asking = Asking(4, 2)
    for owner in "aaaabb":
        asking.ask(owner)
    assert asking.having() == ["a", "a", "b", "b"]


def test_owners_take_turns_whoever_asked_more_often() -> None:
    asking = Asking(1, 1)
    tickets = {0: asking.ask("x")}
    waiting = [asking.ask(owner) for owner in "aaaabbc"]
    asking.line.leave(tickets[0])
    for _ in range(6):
        running = next(ticket for ticket in waiting if ticket.is_running)
        asking.line.leave(running)
    assert asking.having() == ["x", "a", "b", "c", "a", "b", "a", "a"]


def test_who_asks_for_too_many_is_refused_and_nobody_else() -> None:
    asking = Asking(1, 1)
    asking.ask("a")
    for _ in range(OWNER_WAITING_MAX + 3):
        asking.ask("a")
    assert asking.decided.count(("a", False)) == 3
    asking.ask("b")
    assert ("b", False) not in asking.decided


def test_a_full_line_is_shortened_where_it_is_longest() -> None:
    asking = Asking(1, 1)
    asking.ask("x")
    owners = [f"owner {number}" for number in range(WAITING_MAX // OWNER_WAITING_MAX)]
    for owner in owners:
        for _ in range(OWNER_WAITING_MAX):
            asking.ask(owner)
    for _ in range(WAITING_MAX - len(owners) * OWNER_WAITING_MAX):
        asking.ask("few")
    asking.ask("late")
    refused = [owner for owner, has_turn in asking.decided if not has_turn]
    assert len(refused) == 1 and refused[0] in owners


def test_a_turn_is_wanted_by_who_could_have_it() -> None:
    asking = Asking(3, 2)
    for owner in "aab":
        asking.ask(owner)
    assert not asking.line.is_wanted("a")
    asking.ask("c")
    assert asking.line.is_wanted("a") and asking.line.is_wanted("b")

    asking = Asking(3, 2)
    for owner in "aaa":
        asking.ask(owner)
    assert asking.line.is_wanted("a") and not asking.line.is_wanted("b")


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=200))
def test_turns_are_neither_lost_nor_given_twice(steps: list[tuple[str, bool]]) -> None:
    asking, held = Asking(3, 2), list[TurnTicket]()
    for owner, enters in steps:
        if enters or not held:
            held.append(asking.ask(owner))
        else:
            asking.line.leave(held.pop(len(held) // 2))
        running = [ticket.owner for ticket in held if ticket.is_running]
        wanting = {ticket.owner for ticket in held if not ticket.is_running}
        assert len(running) <= 3 and all(running.count(one) <= 2 for one in "abcd")
        if len(running) < 3:
            assert all(running.count(one) == 2 for one in wanting)
