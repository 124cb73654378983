"""A walk goes on where its last part stopped, and begins anew after its end or a failure."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from shared.errors import FilesUnavailable
from shared.files import walk as walk_module
from shared.files.objects import ObjectInfo
from shared.files.walk import Walk


class Objects:
    """A store whose listing fails at the name `broken`."""

    def __init__(self, *names: str) -> None:
        self.names = names

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        for name in self.names:
            if name == "broken":
                raise FilesUnavailable("no disk")
            yield ObjectInfo(name, 1, 0.0)


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk_module, "PART_S", 0.0)


async def names(walk: Walk) -> list[str]:
    return [info.name async for info in walk.part()]


async def test_each_part_goes_on_behind_the_last_one_in_any_order() -> None:
    walk = Walk(Objects("c", "a", "b"), "")  # type: ignore[arg-type]

    assert [await names(walk) for _ in range(5)] == [["c"], ["a"], ["b"], [], ["c"]]


async def test_a_part_has_time_for_many_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk_module, "PART_S", 60.0)
    walk = Walk(Objects("c", "a", "b"), "")  # type: ignore[arg-type]

    assert [await names(walk) for _ in range(2)] == [["c", "a", "b"]] * 2


async def test_a_caller_that_fails_at_an_object_gets_the_next_one() -> None:
    """Otherwise one object that cannot be deleted would hide all objects behind it."""
    walk = Walk(Objects("a", "b"), "")  # type: ignore[arg-type]
    async for info in walk.part():
        assert info.name == "a"
        break

    assert await names(walk) == ["b"]


async def test_after_a_failure_the_walk_begins_anew() -> None:
    walk = Walk(Objects("a", "broken"), "")  # type: ignore[arg-type]
    assert await names(walk) == ["a"]
    with pytest.raises(FilesUnavailable):
        await names(walk)

    assert await names(walk) == ["a"]
