"""What a person at a terminal sees of the roles' logs."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from cli.up.output import open_screen
from cli.up.short_lines import COLUMNS, ShortLines
from shared.config.settings import Settings

CLOCK = "12:34:56"
ID = "gen_8qpq6vpg55r73dqafqq2r4k24c"
SGR = re.compile(r"\x1b\[\d+m")
LEFT = {"generation_id": ID, "ending": "completed", "attempt": 1, "pieces": 30, "took_s": 1.033}
LONG = "the backend answered 500: " + "CUDA out of memory " * 12


def line_of(event: str, level: str = "info", **data: Any) -> bytes:
    frame = {"time": "2026-11-29T05:58:28.540Z", "level": level, "role": "worker"}
    return json.dumps({**frame, "event": event, "logger": "workers.run", **data}).encode()


def shown(line: bytes, name: str = "worker 1", **given: Any) -> list[str]:
    return ShortLines(is_coloured=False, **given).of_role(name, line, CLOCK)


def test_the_end_of_an_attempt_is_one_line_with_its_figures() -> None:
    (line,) = shown(line_of("generation left", **LEFT))

    assert line[8:] == f" worker 1   {ID} completed, attempt 1, 30 pieces, 1.0 s"


def test_a_request_is_one_line() -> None:
    (line,) = shown(line_of("request", method="GET", path="/docs", status=200), "api 8000")

    assert line.endswith(" api 8000   GET /docs 200")


def test_a_request_that_is_repeated_is_shown_once() -> None:
    lines = ShortLines(is_coloured=False)
    docs = line_of("request", method="GET", path="/docs", status=200)
    page = line_of("request", method="GET", path="/", status=200)
    counts = [len(lines.of_role("api 8000", each, CLOCK)) for each in (docs, docs, page, docs)]

    assert counts == [1, 0, 1, 1]


@pytest.mark.parametrize("columns", [40, 80, 100, 300])
@pytest.mark.parametrize("level", ["info", "warning", "error"])
def test_no_line_is_wider_than_the_terminal_or_100_columns(columns: int, level: str) -> None:
    line = line_of("attempt failed", level, reason=LONG, url="http://gpu-7.example.org:8000/v1")

    for coloured in (False, True):
        lines = ShortLines(is_coloured=coloured, columns=columns).of_role("worker 1", line, CLOCK)
        assert max(len(SGR.sub("", each)) for each in lines) <= min(columns, COLUMNS)


def test_a_warning_is_shown_whole_and_begins_with_its_reason() -> None:
    url = "http://gpu-7.example.org:8000/v1"
    lines = shown(line_of("attempt failed", "warning", url=url, reason=LONG))
    text = " ".join(line[20:].strip() for line in lines)

    assert text.startswith("attempt failed: the backend answered 500: CUDA")
    assert text.count("CUDA out of memory") == 12
    assert f"url={url}" in text


def test_a_traceback_is_shown_below_its_line() -> None:
    first, *rest = shown(line_of("request failed", "error", traceback="Traceback:\n  File x\nE"))

    assert "request failed" in first
    assert [line.strip() for line in rest] == ["Traceback:", "File x", "E"]


def test_the_ready_line_of_a_role_is_left_to_the_supervisor() -> None:
    assert shown(b"tailrace worker ready: vm-17-abc") == []


@pytest.mark.parametrize(
    "line", [b"Segmentation fault", b"{not json", b"[1]", b'{"a": 1}', b"\xff"]
)
def test_another_line_is_shown_as_a_warning(line: bytes) -> None:
    (shown_line,) = shown(line)

    assert shown_line.startswith(f"{CLOCK} worker 1   ")


def test_control_characters_do_not_reach_the_terminal() -> None:
    (line,) = shown(line_of("request", method="GET", path="/\x1b[31m\r\n", status=404))

    assert line.isprintable()


class Terminal:
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("log", "environ", "is_short", "is_coloured"),
    [
        ("", {}, True, True),
        ("", {"NO_COLOR": "1"}, True, False),
        ("", {"NO_COLOR": ""}, True, True),
        ("", {"TERM": "dumb"}, True, False),
        ("text", {}, False, False),
        ("json", {}, False, False),
    ],
)
def test_a_terminal_gets_short_lines_and_no_color_is_kept(
    monkeypatch: pytest.MonkeyPatch,
    log: str,
    environ: dict[str, str],
    is_short: bool,
    is_coloured: bool,
) -> None:
    said: list[str] = []
    monkeypatch.setattr("cli.up.output.sys.stderr", Terminal())
    monkeypatch.setattr("cli.up.output.write_lines", lambda *lines, **_: said.extend(lines))
    screen = open_screen(Settings(log=log), "up", environ)
    screen.say("worker 1 (pid 7) was killed by SIGKILL; again in 0.1 s")

    assert (screen.is_short, bool(SGR.search(said[0]))) == (is_short, is_coloured)
    assert "worker 1 (pid 7) was killed by SIGKILL" in said[0]
