"""One picture of `tailrace top`: its lines, its width, its sparklines."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest

from cli.client.client import RequestRefused
from cli.client.top import SAMPLES, TOKENS, Lines, Picture, _once, frame, sparkline, take
from cli.client.trace import console
from tests.unit.cli.client.test_terminal import Terminal

GENERATION = {
    "id": "gen_0123456789abcdefghjkmnpqrs", "status": "running", "model": "demo", "attempt": 1,
    "owner": "alice", "worker": "gpu-1-812-9c0a4f", "attempts": 2, "created_at": 0, "waited_s": 0.5,
}  # fmt: skip
WORKERS: dict[str, Any] = {
    "workers": [
        {"id": "gpu-1-812-9c0a4f", "slots": 100, "running": 7, "draining": False, "seen_s": 0.4},
    ],
    "queue": {"interactive": 3, "batch": 0, "running": 7, "later": 1},
    "oldest_s": {"interactive": 2.5, "batch": 0.0},
    "jobs": {"oldest_due": "webhooks", "oldest_due_s": 75.0, "beat_s": {"polled": 1.0}},
}


def picture(at_s: float = 0.0, tokens: float | None = 0.0, many: int = 1) -> Picture:
    return Picture(at_s, [GENERATION] * many, WORKERS, tokens)


def shown(found: Picture, lines: Lines, *, width: int, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", "24")
    out = console(Terminal())
    out.print(frame(found, lines, out))
    return re.sub(r"\x1b\[[0-9;]*m", "", out.file.getvalue())  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [80, 200])
def test_a_picture_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    lines = Lines()
    for second in range(90):
        lines.add(picture(second, 40.0 * second, many=50))

    rows = shown(picture(many=50), lines, width=width, monkeypatch=monkeypatch).splitlines()

    assert max(map(len, rows)) <= width and len(rows) <= 24
    text = "\n".join(rows)
    assert "1 workers, 100 slots" in text and "3 interactive" in text and "7/100" in text
    assert "waiting longest: interactive 2.500 s" in text
    assert "webhooks due for 75s" in text
    assert re.search(r"tokens/s +40 +█+", text)
    assert re.search(r"and \d+ more", text)


def test_many_workers_leave_room_for_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = [
        WORKERS["workers"][0] | {"id": f"dead-{n:02}", "seen_s": 60.0, "running": 0}
        for n in range(30)
    ]
    found = WORKERS | {"workers": [*dead, *WORKERS["workers"]]}
    lines = Lines()
    for second in range(3):
        lines.add(Picture(second, [], found, 40.0 * second))

    text = shown(Picture(3, [GENERATION], found, 120.0), lines, width=80, monkeypatch=monkeypatch)

    assert len(text.splitlines()) <= 24
    assert GENERATION["id"] in text
    assert "gpu-1-812-9c0a4f  working" in text, "those that work come before the dead ones"
    assert "and 26 more" in text


def test_the_rate_of_tokens_is_never_negative_when_a_worker_goes() -> None:
    lines = Lines()
    for at_s, tokens in enumerate([1_000.0, 0.0, 50.0]):
        lines.add(picture(at_s, tokens))

    assert list(lines.values["tokens/s"]) == [0.0, 50.0]


def test_a_sparkline_has_one_bar_for_each_of_the_last_values() -> None:
    assert sparkline([0.0, 4.0, 8.0]) == "▁▄█"
    assert sparkline([0.0, 0.0]) == "▁▁"
    lines = Lines()
    for second in range(2 * SAMPLES):
        lines.add(picture(second, 0.0))
    assert len(lines.values["running"]) == SAMPLES


def test_the_tokens_of_all_workers_are_read_from_the_metrics() -> None:
    text = (
        'tailrace_worker_total{what="tokens",worker="a"} 12.0\n'
        'tailrace_worker_total{what="pieces",worker="a"} 99.0\n'
        'tailrace_worker_total{what="tokens",worker="b"} 30.0\n'
    )

    assert TOKENS.findall(text) == ["12.0", "30.0"]


class FakeClient:
    def __init__(self, *, is_operator: bool) -> None:
        self.is_operator = is_operator

    async def workers(self) -> dict[str, Any]:
        if not self.is_operator:
            raise RequestRefused(403, "forbidden", "no")
        return WORKERS

    async def metrics(self) -> str:
        return 'tailrace_worker_total{what="tokens",worker="a"} 12.0\n'

    async def generations(self, session: str, *, of_all: bool = False) -> list[dict[str, Any]]:
        assert of_all is self.is_operator
        return [GENERATION]


async def test_without_an_operators_key_only_the_own_generations_are_shown() -> None:
    found = await take(FakeClient(is_operator=False))  # type: ignore[arg-type]

    assert (found.generations, found.workers, found.tokens) == ([GENERATION], {}, None)
    out = console(io.StringIO())
    out.print(frame(found, Lines(), out))
    assert "need an operator's key" in out.file.getvalue()  # type: ignore[attr-defined]


async def test_one_picture_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert await _once(FakeClient(is_operator=True), is_json=True) == 0  # type: ignore[arg-type]

    assert json.loads(capsys.readouterr().out) == {"generations": [GENERATION], **WORKERS}
