"""Places: their order, their form, and the chain of tags, which the scripts compute as well."""

from __future__ import annotations

import pytest

from shared.streams.place import ZERO, Place, after, parse_place, place_of_entry


def test_a_place_has_32_digits_and_orders_as_text() -> None:
    places = [ZERO, Place(1, 9), Place(2, 1), Place(10, 5), Place(10**15, 0)]

    assert str(Place(10, 5)) == "0000000000000010_0000000000000005"
    assert [str(place) for place in places] == sorted(str(place) for place in places)
    assert [parse_place(str(place)) for place in places] == places
    assert place_of_entry(b"10-5") == Place(10, 5)


@pytest.mark.parametrize(
    "text", ["", "-1", "now", "1_1", "0" * 16, "0" * 16 + "-" + "0" * 16, "٠" * 16 + "_" + "0" * 16]
)
def test_other_texts_are_no_places(text: str) -> None:
    assert parse_place(text) is None


def test_a_tag_depends_on_every_entry_before_it() -> None:
    one = after(after(ZERO, b"a"), b"b")

    assert one == after(after(ZERO, b"a"), b"b")
    assert one.end == 2
    others = [after(after(ZERO, b"x"), b"b"), after(ZERO, b"ab"), after(after(ZERO, b"a"), b"x")]
    assert len({one, *others}) == 4
    assert {place.end for place in others} == {2}
