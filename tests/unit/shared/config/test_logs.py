"""Log lines: their form, their data, and what they must not show."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from shared.config import logs
from shared.config.settings import Settings


class Stderr:
    """Return the lines logged so far."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    @property
    def text(self) -> str:
        self._text += self._capsys.readouterr().err
        return self._text

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Stderr]:
    """Collect log lines, and restore the loggers afterwards."""
    loggers = [logging.getLogger(name) for name in ("", *logs.OURS, *logs.LIBRARIES)]
    before = [(one.level, one.propagate, one.disabled) for one in loggers]
    yield Stderr(capsys)
    logging.captureWarnings(False)
    for one, state in zip(loggers, before, strict=True):
        level, one.propagate, one.disabled = state
        one.setLevel(level)
    root = logging.getLogger()
    ours = (logs.JsonFormatter, logs.TextFormatter)
    root.handlers[:] = [each for each in root.handlers if not isinstance(each.formatter, ours)]


def test_a_json_line_has_the_event_and_its_data(stderr: Stderr) -> None:
    logs.configure(Settings(log="json"), "worker")
    logging.getLogger("workers.run").info("generation ended", extra={"tokens": 3, "status": "ok"})

    (line,) = stderr.lines
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "role": "worker",
        "event": "generation ended",
        "logger": "workers.run",
        "tokens": 3,
        "status": "ok",
    }


def test_ids_come_from_the_context(stderr: Stderr) -> None:
    logs.configure(Settings(log="json"), "api")
    generation, request = logs.generation_id.set("gen_1"), logs.request_id.set("req_1")
    logging.getLogger("api").info("accepted")
    logs.generation_id.reset(generation)
    logs.request_id.reset(request)
    logging.getLogger("api").info("idle")

    with_ids, without = stderr.lines
    assert (with_ids["generation_id"], with_ids["request_id"]) == ("gen_1", "req_1")
    assert "generation_id" not in without


def test_data_cannot_replace_the_event(stderr: Stderr) -> None:
    logs.configure(Settings(log="json"), "api")
    logging.getLogger("api").info("accepted", extra={"level": "none", "event": "other"})

    (line,) = stderr.lines
    assert (line["level"], line["event"]) == ("info", "accepted")


def test_a_traceback_stays_in_its_line(stderr: Stderr) -> None:
    logs.configure(Settings(log="json"), "api")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("api").exception("failed")

    (line,) = stderr.lines
    assert "ValueError: two\nlines" in line["traceback"]


def test_text_is_one_line_that_no_client_can_split(stderr: Stderr) -> None:
    logs.configure(Settings(log="text"), "api")
    logging.getLogger("api").info("accepted", extra={"model": "a\n\x1b[2Jb", "took_s": 0.12345})

    (line,) = stderr.text.splitlines()
    assert "info    api    accepted" in line
    assert "model=a\\x0a\\x1b[2Jb" in line
    assert "took_s=0.1235" in line


def test_without_a_terminal_the_default_is_json(stderr: Stderr) -> None:
    logs.configure(Settings(), "jobs")
    logging.getLogger("workers").info("swept")

    assert stderr.lines[0]["event"] == "swept"


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize(
    "text",
    [
        "GET /v1/ws?access_token=SECRET HTTP/1.1",
        "GET /v1/ws?a=1&access_token=SECRET&b=2",
        "authorization: Bearer SECRET",
        "{'authorization': 'bearer SECRET'}",
        "(b'authorization', b'Bearer SECRET')",
        "?access_token=Bearer%20SECRET",
    ],
)
def test_credentials_are_never_shown(stderr: Stderr, form: str, text: str) -> None:
    logs.configure(Settings(log=form), "api")
    logging.getLogger("api").warning("odd request", extra={"line": text})
    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("api").exception("failed")

    assert "SECRET" not in stderr.text
    assert "***" in stderr.text


@pytest.mark.parametrize("name", ["uvicorn.access", "uvicorn.error", "websockets.server", "arq.x"])
def test_libraries_are_quiet_also_at_debug(stderr: Stderr, name: str) -> None:
    logs.configure(Settings(log="json", log_level="debug"), "api")
    logging.getLogger(name).debug("headers")
    logging.getLogger(name).info("GET /?access_token=x")

    assert stderr.text == ""


def test_access_lines_are_not_written_at_any_level(stderr: Stderr) -> None:
    logs.configure(Settings(log="json"), "api")
    logging.getLogger("uvicorn.access").critical("GET /")

    assert stderr.text == ""


def test_the_level_is_ours_alone(stderr: Stderr) -> None:
    logs.configure(Settings(log="json", log_level="debug"), "api")
    logging.getLogger("api.hub").debug("joined")
    logging.getLogger("redis").info("connected")

    assert [line["event"] for line in stderr.lines] == ["joined"]
