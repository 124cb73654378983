"""A conversation at a terminal: what is asked, what is kept, how it goes on."""

from __future__ import annotations

import argparse
import builtins
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.client.client import Client, ServerUnreachable
from cli.client.conversation import converse
from shared.config.settings import Settings


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user's state; the history is below it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "tailrace" / "chat_history"


class FakeNode:
    """Answers each question with its next text, and remembers the bodies."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: Any) -> None:
        self.answers = iter(answers)
        self.bodies: list[dict[str, Any]] = []
        self.kept: list[dict[str, Any]] = []
        for name in ("create", "generations", "generation", "follow"):
            monkeypatch.setattr(Client, name, getattr(self, name))

    async def create(self, body: dict[str, Any], key: str) -> dict[str, Any]:
        self.bodies.append(body)
        return {"id": "gen_1"}

    async def generations(self, session: str) -> list[dict[str, Any]]:
        return self.kept

    async def generation(self, generation_id: str) -> dict[str, Any]:
        return self.kept[0]

    async def follow(
        self, generation_id: str, cursor: str = "", **_: Any
    ) -> AsyncIterator[dict[str, Any]]:
        answer = next(self.answers)
        if isinstance(answer, Exception):
            raise answer
        for text in answer:
            yield {"id": "1-2", "type": "reset"} if text is None else {
                "id": "1-2", "type": "token", "text": text,
            }  # fmt: skip
        yield {"id": "1-9", "type": "end", "status": "completed"}


def talk(
    monkeypatch: pytest.MonkeyPatch,
    *lines: Any,
    session: str = "",
    has_no_history: bool = False,
    settings: Settings | None = None,
) -> int:
    given: Iterator[Any] = iter(lines)

    def read(prompt: str) -> str:
        line = next(given, EOFError())
        if isinstance(line, BaseException):
            raise line
        return str(line)

    monkeypatch.setattr(builtins, "input", read)
    args = argparse.Namespace(
        model="", session=session, prompt=None, json=False, no_history=has_no_history
    )
    return converse(settings or Settings(), args)


def said(body: dict[str, Any]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in body["messages"]]


def test_each_question_carries_the_conversation_so_far(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    node = FakeNode(monkeypatch, ["Hel", "lo"], ["Bye"])

    assert talk(monkeypatch, "Hi", "", "Ciao") == 0

    assert said(node.bodies[0]) == [("user", "Hi")]
    assert said(node.bodies[1]) == [("user", "Hi"), ("assistant", "Hello"), ("user", "Ciao")]
    assert capsys.readouterr().out == "Hello\nBye\n\n"


def test_text_before_a_reset_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    node = FakeNode(monkeypatch, ["Wrong", None, "Right"], ["x"])

    talk(monkeypatch, "a", "b")

    assert said(node.bodies[1])[1] == ("assistant", "Right")


def test_a_question_without_an_answer_is_forgotten_and_the_conversation_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    node = FakeNode(monkeypatch, ServerUnreachable("no server"), ["x"])

    assert talk(monkeypatch, "a", "b") == 0

    assert said(node.bodies[1]) == [("user", "b")]
    assert "tailrace: no server\n" in capsys.readouterr().err


def test_ctrl_c_at_the_prompt_clears_the_line_and_a_command_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = FakeNode(monkeypatch)

    assert talk(monkeypatch, KeyboardInterrupt(), "/exit", "never asked") == 0
    assert node.bodies == []


def test_a_session_goes_on_after_its_newest_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    node = FakeNode(monkeypatch, ["x"])
    messages = [{"role": "user", "content": "Hi"}]
    node.kept = [{"id": "gen_0", "status": "completed", "text": "Hello", "messages": messages}]

    talk(monkeypatch, "Ciao", session="s")

    assert said(node.bodies[0]) == [("user", "Hi"), ("assistant", "Hello"), ("user", "Ciao")]
    assert node.bodies[0]["session"] == "s"


def test_an_answer_of_the_session_that_still_comes_is_followed_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    node = FakeNode(monkeypatch, ["Hel", "lo"], ["x"])
    messages = [{"role": "user", "content": "Hi"}]
    node.kept = [{"id": "gen_0", "status": "running", "text": "Hel", "messages": messages}]

    talk(monkeypatch, "Ciao", session="s")

    assert said(node.bodies[0])[1] == ("assistant", "Hello")
    assert capsys.readouterr().out.startswith("Hello\n")


def test_lines_are_kept_for_the_user_only(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeNode(monkeypatch, ["a"], ["b"])

    talk(monkeypatch, "first", "second", "/exit")

    assert state.read_text() == "first\nsecond\n"
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "off", [{"has_no_history": True}, {"settings": Settings(chat_history="off")}]
)
def test_a_switch_keeps_no_lines(state: Path, monkeypatch: pytest.MonkeyPatch, off: Any) -> None:
    FakeNode(monkeypatch, ["a"])

    talk(monkeypatch, "a secret", **off)

    assert not state.exists()


def test_a_conversation_goes_on_without_a_place_for_its_lines(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state.parent.write_text("a file in place of the folder")
    node = FakeNode(monkeypatch, ["a"], ["b"])

    assert talk(monkeypatch, "first", "second") == 0
    assert len(node.bodies) == 2
    assert capsys.readouterr().err.count("keeps no lines") == 1
