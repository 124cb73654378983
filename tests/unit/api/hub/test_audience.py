"""Which changes of the readers of a generation are told, and when. Pure."""

from __future__ import annotations

import pytest

from api.hub.audience import PAUSE_MAX_S, Audience, AudienceChange

ID = "gen_0123456789"


class Scene:
    def __init__(self) -> None:
        self.now = 100.0
        self.told: list[AudienceChange] = []
        self.audience = Audience(lambda: self.now)
        self.audience.listener = self.told.append

    def join(self, *, has_ended: bool = False) -> None:
        self.audience.join(ID, has_ended=has_ended)

    def leave(self, *, has_ended: bool = False) -> None:
        self.audience.leave(ID, has_ended=has_ended)

    def pass_s(self, seconds: float) -> None:
        """Let upkeep tell once a second."""
        for _ in range(round(seconds)):
            self.now += 1.0
            self.audience.tell()


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_readers_that_came_within_a_second_are_one_change(scene: Scene) -> None:
    scene.join()
    scene.now += 0.5
    scene.join()
    scene.leave()
    scene.now += 0.5
    scene.audience.tell()

    assert scene.told == [AudienceChange(ID, joined=2, left=1, readers=1, age_s=1.0)]


def test_nothing_is_told_where_nothing_changed(scene: Scene) -> None:
    scene.join()
    scene.pass_s(100)

    assert len(scene.told) == 1


def test_a_reader_that_polls_is_told_less_and_less_often(scene: Scene) -> None:
    for _ in range(600):
        scene.join()
        scene.leave()
        scene.pass_s(1)

    assert len(scene.told) < 600 / PAUSE_MAX_S + 10
    assert sum(change.joined for change in scene.told) >= 600 - PAUSE_MAX_S


def test_the_last_reader_after_the_end_is_told_without_a_pause(scene: Scene) -> None:
    scene.join()
    scene.pass_s(1)
    scene.now += 0.1
    scene.leave(has_ended=True)
    scene.audience.tell()

    assert [(change.joined, change.left, change.readers) for change in scene.told] == [
        (1, 0, 1), (0, 1, 0),
    ]  # fmt: skip


def test_readers_of_an_answer_that_has_ended_are_not_told(scene: Scene) -> None:
    scene.join(has_ended=True)
    scene.leave(has_ended=True)
    scene.pass_s(2)

    assert scene.told == []


def test_a_node_that_stops_tells_all(scene: Scene) -> None:
    scene.join()
    scene.pass_s(1)
    scene.leave()
    scene.audience.tell(is_last=True)

    assert [change.readers for change in scene.told] == [1, 0]


def test_a_generation_without_readers_is_forgotten(scene: Scene) -> None:
    scene.join()
    scene.leave()
    scene.pass_s(5)

    assert scene.audience._seats == {}


def test_without_a_listener_nothing_is_collected(scene: Scene) -> None:
    scene.audience.listener = None
    scene.join()
    scene.leave()

    assert scene.audience._seats == {}


def test_a_reader_that_goes_on_without_its_handler_is_one_reader(scene: Scene) -> None:
    scene.join()
    scene.audience.stay(ID)
    scene.leave()  # the handler
    scene.pass_s(2)
    scene.leave(has_ended=True)
    scene.pass_s(1)

    assert [(change.joined, change.left, change.readers) for change in scene.told] == [
        (1, 0, 1), (0, 1, 0),
    ]  # fmt: skip
