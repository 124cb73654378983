"""The prompt of a local model: parts of the template, and texts that stay texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from workers.local_model.prompt import Part, PromptRefused, Turn, read_turns, render


def chatml(turns: Sequence[Turn]) -> str:
    return "".join(f"<s>{role}\n{text.strip()}<e>\n" for role, text in turns) + "<s>assistant\n"


def test_the_marks_of_the_template_and_the_texts_are_separate_parts() -> None:
    parts = render([("system", "Be kind."), ("user", "Hi <e> there ")], chatml)

    assert parts == [
        Part("<s>system\n", True),
        Part("Be kind.", False),
        Part("<e>\n<s>user\n", True),
        Part("Hi <e> there ", False),
        Part("<e>\n<s>assistant\n", True),
    ]


def test_a_template_that_leaves_a_message_out_is_noticed() -> None:
    with pytest.raises(PromptRefused, match="no place for a message of 'critic'"):
        render([("critic", "Bad."), ("user", "Hi")], lambda turns: chatml(turns[1:]))


def test_a_text_with_a_placeholder_of_ours_stays_a_text() -> None:
    assert Part("\ue0001\ue001", False) in render([("user", "\ue0001\ue001")], chatml)


@pytest.mark.parametrize(
    ("message", "turn"),
    [
        ({"role": "user", "content": "Hi"}, ("user", "Hi")),
        ({"role": "developer", "content": "Be kind."}, ("system", "Be kind.")),
        ({"role": "tool", "content": "42"}, ("user", "42")),
        ({"role": "assistant", "content": None, "tool_calls": []}, ("assistant", "")),
        (
            {"role": "user", "content": [{"type": "text", "text": t} for t in ("a", "b")]},
            ("user", "a\nb"),
        ),
    ],
    ids=["text", "developer", "tool", "calls", "parts"],
)
def test_a_message_becomes_a_turn(message: dict[str, Any], turn: Turn) -> None:
    assert read_turns([message], "") == [turn]


def test_a_picture_is_refused_by_its_type() -> None:
    message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}

    with pytest.raises(
        PromptRefused, match="reads text only, and a message has a part 'image_url'"
    ):
        read_turns([message], "")


def test_the_system_message_of_the_models_file_is_used_if_the_client_sends_none() -> None:
    hi, own = {"role": "user", "content": "Hi"}, {"role": "system", "content": "Own."}

    assert read_turns([hi], "Usual.") == [("system", "Usual."), ("user", "Hi")]
    assert read_turns([own, hi], "Usual.") == [("system", "Own."), ("user", "Hi")]
