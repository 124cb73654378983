"""The answer of a scripted model server, before a wire encodes it. Pure.

`steps` turns a `Script` into the parts of an answer; each kind's wire encodes these parts as its
real servers do. Token i of an answer has i in its text (tests/support/upstream_script.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tests.support.upstream_script import Cut, Pause, Script, token

TOOL_NAME = "look_up"
TOOL_ARGUMENTS = ('{"query', '":"', "流", '"}')


class Text(NamedTuple):
    text: str


class Thought(NamedTuple):
    text: str


class ToolUse(NamedTuple):
    """A whole call; a wire that has fragments sends `arguments` piece by piece."""

    name: str
    arguments: tuple[str, ...]


class Done(NamedTuple):
    """The answer is complete.

    Attributes:
        reason: `stop`, `length`, `tool_calls`, or a script's own word.
        text_tokens, thought_tokens: that this request has generated.
    """

    reason: str
    text_tokens: int
    thought_tokens: int


class Broken(NamedTuple):
    """The server breaks here, in the wire's own form.

    Attributes:
        kind: `error`, `error_field`, `garbage` or `huge_line`: see `Script.fault`.
    """

    kind: str


Part = Text | Thought | ToolUse | Done | Broken | Pause | Cut


def parts(
    script: Script, prompt: str, *, start: int, max_tokens: int | None, is_faulty: bool
) -> Iterator[Part]:
    """Give the parts of an answer from token `start` on.

    Args:
        max_tokens: what the request allows; None: the whole answer.
        is_faulty: whether this request meets the script's fault.
    """
    stop = min(script.tokens, start + (max_tokens or script.tokens))
    yield Pause(script.first_delay_s)
    thoughts = script.reasoning if start == 0 else 0
    for number in range(thoughts):
        yield Thought(f" thought{number}")
    fault_at = min(max(script.fault_at, start), stop) if is_faulty and script.fault else -1
    for number in range(start, stop):
        if number == fault_at:
            yield _fault(script.fault)
            return
        if script.delay_s:
            yield Pause(script.delay_s)
        yield Text(token(prompt, number))
    if fault_at == stop:
        yield _fault(script.fault)
        return
    reason = script.finish_reason if stop == script.tokens else "length"
    if script.tool_call:
        yield ToolUse(TOOL_NAME, TOOL_ARGUMENTS)
        reason = "tool_calls"
    yield Done(reason, stop - start, thoughts)


def _fault(kind: str) -> Part:
    match kind:
        case "eof" | "cut":
            return Cut(is_clean=kind == "eof")
        case "stall":
            return Pause(None)
    return Broken(kind)
