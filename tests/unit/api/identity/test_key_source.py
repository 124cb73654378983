"""The public keys of an issuer: a real HTTP server that rotates, dies, is slow or is broken."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from api.identity import key_source as key_source_module
from api.identity.key_set import KeySet
from api.identity.key_source import REFRESH_S, RETRY_S, KeySource
from shared.errors import ConfigurationError
from tests.support.issuer import Issuer, key_set, serve_keys
from tests.support.wait import until


class Watch:
    """A source with a clock of the test, and the sets that it gave."""

    def __init__(self, place: str) -> None:
        self.now_s = 1_000.0
        self.sets: list[list[str]] = []
        self.source = KeySource(place, self._note, lambda: self.now_s)

    def _note(self, keys: KeySet) -> None:
        self.sets.append([key.kid for key in keys.keys])

    async def after(
        self, seconds: float, look: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self.now_s += seconds
        await (look or self.source.look)()


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with serve_keys() as issuer:
        yield issuer


@pytest.fixture
def watch(issuer: Issuer) -> Watch:
    return Watch(issuer.url)


async def test_keys_are_fetched_at_the_start_and_again_after_five_minutes(
    issuer: Issuer, watch: Watch
) -> None:
    assert watch.source.problem
    await watch.after(0)
    await watch.after(REFRESH_S - 1)
    assert (issuer.asked, watch.sets, watch.source.problem) == (1, [["one"]], "")

    issuer.body = key_set("two")
    await watch.after(1)

    assert (issuer.asked, watch.sets) == (2, [["one"], ["two"]])


async def test_an_unchanged_set_is_not_given_again(issuer: Issuer, watch: Watch) -> None:
    for _ in range(3):
        await watch.after(REFRESH_S)

    assert (issuer.asked, watch.sets) == (3, [["one"]])


async def test_an_unknown_kid_asks_at_most_once_in_ten_seconds(
    issuer: Issuer, watch: Watch
) -> None:
    await watch.after(0)
    for _ in range(100):
        await watch.after(0.05, watch.source.look_for_unknown)
    assert issuer.asked == 1

    issuer.body = key_set("one", "two")
    await watch.after(RETRY_S - 4, watch.source.look_for_unknown)

    assert (issuer.asked, watch.sets[-1]) == (2, ["one", "two"])


async def test_requests_that_come_during_a_refresh_share_it(issuer: Issuer, watch: Watch) -> None:
    issuer.held = asyncio.Event()
    waiting = [asyncio.create_task(watch.source.look_for_unknown()) for _ in range(50)]
    await until(lambda: issuer.asked == 1, 5, "the request to the issuer")
    issuer.held.set()
    await asyncio.gather(*waiting)

    assert (issuer.asked, watch.sets) == (1, [["one"]])


@pytest.mark.parametrize(
    ("status", "content", "more"),
    [
        ("500 Internal Server Error", b"{}", ""),
        ("302 Found", b"", "location: http://127.0.0.1:1/\r\n"),
        ("200 OK", b"<html>", ""),
        ("200 OK", b"{}", ""),
        ("200 OK", b'{"keys": []}', ""),
        ("200 OK", b'{"keys": [7]}', ""),
        ("200 OK", b" " * 1_048_577, ""),
        ("200 OK", json.dumps({"keys": [{}] * 101}).encode(), ""),
        ("nonsense", b"", ""),
    ],
    ids=["500", "redirect", "html", "no-keys", "empty", "number", "huge", "many", "no-http"],
)
async def test_a_bad_answer_changes_nothing_and_is_tried_again_after_ten_seconds(
    issuer: Issuer, watch: Watch, status: str, content: bytes, more: str
) -> None:
    await watch.after(0)
    issuer.status, issuer.body, issuer.more = status, content, more
    await watch.after(REFRESH_S)
    assert watch.source.problem and watch.sets == [["one"]]

    issuer.status, issuer.body, issuer.more = "200 OK", key_set("two"), ""
    await watch.after(RETRY_S - 1)
    assert watch.source.problem
    await watch.after(1)

    assert (watch.source.problem, watch.sets) == ("", [["one"], ["two"]])


async def test_a_dead_issuer_keeps_the_old_keys_and_is_logged_once(
    issuer: Issuer, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    await watch.after(0)
    watch.source._place = "http://127.0.0.1:1/keys"
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await watch.after(REFRESH_S)

    assert watch.source.problem and watch.sets == [["one"]]
    assert [line.message for line in caplog.records] == ["token keys not refreshed"]


async def test_a_cancelled_refresh_lets_the_waiting_requests_go_on(
    issuer: Issuer, watch: Watch
) -> None:
    issuer.held = asyncio.Event()
    first, second = (asyncio.create_task(watch.source.look_for_unknown()) for _ in range(2))
    await until(lambda: issuer.asked == 1, 5, "the request to the issuer")

    first.cancel()
    await second

    assert (issuer.asked, watch.sets) == (1, [])


async def test_a_defect_in_the_reading_does_not_end_the_node(
    issuer: Issuer, watch: Watch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(text: bytes) -> KeySet:
        raise ZeroDivisionError

    await watch.after(0)
    issuer.body = key_set("two")
    monkeypatch.setattr(key_source_module, "read_key_set", fail)
    await watch.after(REFRESH_S)

    assert watch.source.problem and watch.sets == [["one"]]
    assert [line.message for line in caplog.records] == ["token keys not read"]


async def test_a_slow_issuer_is_given_up_and_a_stop_does_not_wait_for_it(
    issuer: Issuer, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_source_module, "FETCH_S", 0.01)
    issuer.held = asyncio.Event()
    await watch.after(0)
    assert "did not answer" in watch.source.problem

    monkeypatch.setattr(key_source_module, "FETCH_S", 60.0)
    refresh = asyncio.create_task(watch.after(RETRY_S))
    await until(lambda: issuer.asked == 2, 5, "the request to the issuer")
    refresh.cancel()

    with pytest.raises(asyncio.CancelledError):
        await refresh


async def test_a_file_is_read_at_the_start_and_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(key_set("one"))
    watch = Watch(str(path))
    assert (watch.sets, watch.source.problem) == ([["one"]], "")

    await watch.after(1)
    (tmp_path / "new").write_bytes(key_set("two"))
    (tmp_path / "new").replace(path)
    await watch.after(1)
    assert watch.sets == [["one"], ["two"]]

    path.unlink()
    await watch.after(1)
    assert watch.source.problem and watch.sets == [["one"], ["two"]]


@pytest.mark.parametrize("content", [None, b"", b"{}", b"secret"])
def test_a_file_that_cannot_be_used_stops_the_start(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "keys.json"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ConfigurationError, match="TAILRACE_JWT_JWKS") as caught:
        Watch(str(path))

    assert "secret" not in str(caught.value)
