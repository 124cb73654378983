"""Parts are read several at once and come in order; an absent part fails in its turn."""

from __future__ import annotations

import asyncio

import pytest

from jobs.batch import read_ahead
from jobs.batch.read_ahead import read_in_order
from shared.errors import FilesUnavailable
from tests.support.wait import until


class Files:
    """Objects whose reads wait until the test lets them go on."""

    def __init__(self, objects: dict[str, list[bytes | Exception]]) -> None:
        self.objects = objects
        self.begun: list[str] = []
        self.pieces = 0
        self.may_go_on = asyncio.Event()

    async def read_object(self, name, start=0):
        self.begun.append(name)
        await self.may_go_on.wait()
        for piece in self.objects[name]:
            if isinstance(piece, Exception):
                raise piece
            self.pieces += 1
            yield piece


async def read(files, *, some: list[bytes]) -> None:
    try:
        async with asyncio.TaskGroup() as tasks:
            async for piece in read_in_order(files, list(files.objects), tasks):
                some.append(piece)  # noqa: PERF401 - those before an error are kept
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


async def test_some_objects_are_read_at_once_and_come_in_order(monkeypatch):
    monkeypatch.setattr(read_ahead, "AHEAD", 3)
    files, found = Files({f"{n}": [b"%d" % n, b","] for n in range(10)}), []
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(read(files, some=found))
        await until(lambda: len(files.begun) == 3, 5.0, "three reads")
        files.may_go_on.set()

    assert b"".join(found) == b"0,1,2,3,4,5,6,7,8,9,"
    assert files.begun == [str(n) for n in range(10)]


async def test_large_objects_are_not_in_memory_as_a_whole(monkeypatch):
    monkeypatch.setattr(read_ahead, "AHEAD", 3)
    files = Files({f"{n}": [b"x"] * 100 for n in range(5)})
    files.may_go_on.set()
    async with asyncio.TaskGroup() as tasks:
        pieces = read_in_order(files, list(files.objects), tasks)
        async for count, _ in aenumerate(pieces):
            waiting = files.pieces - count
            assert waiting <= 3 * (read_ahead.PIECES + 1)
    assert files.pieces == 500


async def aenumerate(pieces):
    count = 0
    async for piece in pieces:
        count += 1
        yield count, piece


@pytest.mark.parametrize("error", [FileNotFoundError("2"), FilesUnavailable("no disk")])
async def test_an_object_that_cannot_be_read_fails_behind_the_earlier_ones(error):
    objects = {"0": [b"0"], "1": [b"1"], "2": [error], "3": [b"3"]}
    files, found = Files(objects), []
    files.may_go_on.set()

    with pytest.raises(type(error)):
        await read(files, some=found)

    assert found == [b"0", b"1"]
