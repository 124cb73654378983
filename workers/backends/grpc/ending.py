"""The last items of an answer over gRPC: tool calls, counts and the finish reason. Pure."""

from __future__ import annotations

from workers.backends.contract import BackendItem, Finish
from workers.backends.reading.finish_reasons import Reason, gave_up, reason_of
from workers.backends.reading.tools import ToolCalls
from workers.backends.reading.usage import UsageCounter


def end_answer(word: str, tools: ToolCalls, usage: UsageCounter) -> list[BackendItem]:
    """Return the items that end an answer.

    Args:
        word: the server's finish reason; empty: the server says none.

    Raises:
        BackendError: the reason means that the server gave up.
    """
    reason = reason_of(word) or Reason("stop", "stop")
    if reason.outcome == "failed":
        raise gave_up(word)
    items: list[BackendItem] = [*tools.finish()]
    if (counts := usage.event()) is not None:
        items.append(counts)
    has_calls = reason.outcome == "stop" and len(tools) > 0
    outcome = "tool_calls" if has_calls else reason.outcome
    items.append(Finish(outcome, "" if reason.is_known else reason.word))
    return items
