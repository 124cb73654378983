"""Turns the messages of a request into pieces of a prompt. Pure.

The model's chat template is applied to placeholders instead of the real texts. So the marks of the
template become special tokens of the model, and the same marks in a text of a user stay text. So a
user cannot end the user's turn within a message and begin a turn of the system.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

# Characters of the private use area: no template has them.
_PLACEHOLDER = re.compile("\ue000([0-9]+)\ue001")

Turn = tuple[str, str]  # role and text
Apply = Callable[[Sequence[Turn]], str]


class Part(NamedTuple):
    """A part of the prompt.

    Attributes:
        is_marks: the text is of the template, so its marks are special tokens.
    """

    text: str
    is_marks: bool


class PromptRefused(Exception):
    """The model cannot be asked this; the text says why, for the client."""


def render(turns: Sequence[Turn], apply: Apply) -> list[Part]:
    """Return the parts of the prompt, which ends where the model's turn begins.

    Args:
        apply: the model's chat template, which opens the turn of the assistant.

    Raises:
        PromptRefused: the template leaves a message out.
    """
    rendered = apply([(role, f"\ue000{number}\ue001") for number, (role, _) in enumerate(turns)])
    parts: list[Part] = []
    seen: set[int] = set()
    for number, text in enumerate(_PLACEHOLDER.split(rendered)):
        if number % 2:
            seen.add(int(text))
            text = turns[int(text)][1]
        if text:
            parts.append(Part(text, is_marks=number % 2 == 0))
    for number, (role, _) in enumerate(turns):
        if number not in seen:
            raise PromptRefused(f"the model's chat template has no place for a message of {role!r}")
    return parts


def read_turns(messages: Sequence[dict[str, Any]], system: str) -> list[Turn]:
    """Return role and text of each message.

    Args:
        system: the system message if the client has sent none; empty: none.

    Raises:
        PromptRefused: a message holds something other than text.
    """
    turns = [(_role_of(message), _text_of(message)) for message in messages]
    if system and all(role != "system" for role, _ in turns):
        turns.insert(0, ("system", system))
    return turns


def _role_of(message: dict[str, Any]) -> str:
    role = message.get("role")
    # The first is OpenAI's newer name. Results of tools are read as words of the user, because a
    # template without tools has no turn for them.
    names = {"developer": "system", "tool": "user", "function": "user"}
    return names.get(str(role), str(role))


def _text_of(message: dict[str, Any]) -> str:
    content = message.get("content")
    if content is None:
        return ""  # a turn that only calls tools
    if isinstance(content, str):
        return content
    texts: list[str] = []
    for part in content if isinstance(content, list) else [content]:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("text", "input_text", "output_text", "refusal"):
            raise PromptRefused(f"this model reads text only, and a message has a part {kind!r}")
        texts.append(str(part.get("text") or part.get("refusal") or ""))
    return "\n".join(texts)
