"""What `tailrace trace` prints of a story: on terminals of several widths, in a pipe, as JSON."""

from __future__ import annotations

import argparse
import io
import json
import re
from typing import Any, get_args

import pytest

from cli.client.client import RequestRefused
from cli.client.trace import axis, console, details, show, span, trace
from shared.config.settings import Settings
from shared.timeline.moment import What
from tests.unit.cli.client.test_terminal import Terminal

ID = "gen_0123456789abcdefghjkmnpqrs"
ONE, TWO = "gpu-1-812-9c0a4f", "gpu-2-44-01b7de"
STORY: list[dict[str, Any]] = [
    {"at": 100.0, "what": "accepted", "node": "web-1-5e2c91aa"},
    {"at": 100.0, "what": "queued", "lane": "interactive", "partition": "q"},
    {"at": 100.5, "what": "begun", "worker": ONE, "attempt": 1, "waited_s": 0.5},
    {"at": 101.0, "what": "first_token", "worker": ONE, "attempt": 1},
    {"at": 104.0, "what": "begun", "worker": TWO, "attempt": 1795255095694, "waited_s": 0.1},
    {"at": 104.0, "what": "takeover", "worker": TWO, "attempt": 1795255095694, "taken_from": ONE},
    {"at": 105.0, "what": "readers", "node": "web-2", "joined": 2, "left": 1, "readers": 1},
    {"at": 110.0, "what": "end", "status": "completed"},
]
COLOUR = re.compile(r"\x1b\[")


def printed(
    monkeypatch: pytest.MonkeyPatch, *, width: int = 0, story: list[dict[str, Any]] = STORY
) -> str:
    """Return what is printed on a terminal of this width; 0: into a pipe."""
    out = Terminal() if width else io.StringIO()
    if width:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("TERM", "xterm-256color")
    show(story, ID, console(out))
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 200])
def test_every_line_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    lines = re.sub(r"\x1b\[[0-9;]*m", "", printed(monkeypatch, width=width)).splitlines()

    assert max(map(len, lines)) <= width
    words = "".join(lines)
    assert all(moment["what"].replace("_", " ") in words for moment in STORY)


def test_each_moment_is_a_row_with_its_time_attempt_and_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    title, head, *rows = printed(monkeypatch).splitlines()

    assert title.startswith(f"{ID}: accepted 1970-01-01 00:01:40 UTC, 10.0 s in all")
    assert head.split() == ["AFTER", "WHAT", "TRY", "WHERE", "DETAILS"]
    cells = [re.split(r"  +", row.strip()) for row in rows]
    assert cells[2][0] == "0.500 s" and cells[2][2:] == ["begun", "1", ONE, "waited 0.500 s"]
    assert cells[5][2:] == ["takeover", "2", TWO, f"from {ONE}, whose lease ran out"]
    assert cells[6][2:] == ["readers", "web-2", "2 joined, 1 left, 1 here now"]
    assert len(rows) == len(STORY)


def test_a_terminal_gets_colours_and_a_pipe_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert COLOUR.search(printed(monkeypatch, width=120))
    assert not COLOUR.search(printed(monkeypatch))


def test_no_color_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", printed(monkeypatch, width=120))


def test_names_of_the_server_cannot_write_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    story = [{"at": 1.0, "what": "begun", "worker": "w\x1b]0;title\x07[bold]x[/bold]"}]

    text = printed(monkeypatch, story=story)

    assert "\x1b" not in text and r"w\x1b]0;title\x07[bold]x[/bold]" in text


@pytest.mark.parametrize("what", get_args(What))
def test_every_moment_can_be_shown_without_its_members(what: str) -> None:
    assert isinstance(details({"what": what}), str)


def test_the_mark_stays_on_the_axis() -> None:
    assert axis(0.0, 0.0, 5) == "●····"
    assert axis(5.0, 10.0, 5) == "··●··"
    assert axis(10.0, 10.0, 5) == "····●"


def test_spans_are_short_for_people() -> None:
    assert [span(value) for value in (0.0123, 12.34, 754.0)] == ["0.012 s", "12.3 s", "12 min 34 s"]


# Asking a node


def run_trace(monkeypatch: pytest.MonkeyPatch, answer: Any, *, is_json: bool) -> int:
    async def timeline(self: Any, generation_id: str) -> Any:
        assert generation_id == ID
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("cli.client.client.Client.timeline", timeline)
    return trace(Settings(), argparse.Namespace(id=ID, json=is_json))


def test_as_json_the_answer_of_the_node_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_trace(monkeypatch, STORY, is_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {"data": STORY}


def test_an_unknown_generation_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = RequestRefused(404, "not_found", "no such generation")

    assert run_trace(monkeypatch, refusal, is_json=False) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "tailrace: no such generation; `tailrace ps` lists the running generations\n"
    )
