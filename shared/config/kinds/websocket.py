"""The kind `websocket`: servers that stream one answer over one WebSocket.

    worker → server    {"messages": […], "model": …, …}
    server → worker    {"token": "…"} …, {"done": true}, or {"error": "…"}

A server with other messages is described by two small tables of the models file: `request` and
`answer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from shared.config.kinds.spec import KindSpec
from shared.errors import ConfigurationError

PATH_STEPS_MAX = 16
# A text of the table `request` that is one of these is replaced.
PLACES = ("$messages", "$prompt", "$model", "$params")


class Path(NamedTuple):
    """Where a value stands in a message.

    Attributes:
        steps: names of members, and numbers of list items.
        equal: the value that counts; None: any that is not empty.
    """

    steps: tuple[str | int, ...]
    equal: str | None = None


# The parts of an answer, with the usual place of each part.
ANSWER: Mapping[str, Path] = {
    name: Path((name,))
    for name in ("token", "reasoning", "tool_calls", "usage", "finish_reason", "done", "error")
}
CLOSE = "close"  # the value of `done` for servers that close the connection (1000) at the end


def check_request(value: Any, where: str) -> dict[str, Any]:
    """Check the member `request`: the message to send.

    Raises:
        ConfigurationError: it is no table, or has no place for the prompt.
    """
    if not isinstance(value, dict):
        raise ConfigurationError(f"{where}: must be a table")
    if not {"$messages", "$prompt"} & set(_texts(value)):
        raise ConfigurationError(f'{where}: must have "$messages" or "$prompt" as a value')
    for text in _texts(value):
        if text.startswith("$") and text not in PLACES:
            raise ConfigurationError(f"{where}: {text!r} is none of {', '.join(PLACES)}")
    return value


def check_answer(value: Any, where: str) -> dict[str, Path]:
    """Check the member `answer`: where the parts of an answer stand in the server's messages.

    Raises:
        ConfigurationError: an unknown part, or no path.
    """
    if not isinstance(value, dict):
        raise ConfigurationError(f"{where}: must be a table")
    paths: dict[str, Path] = {}
    for name, text in value.items():
        if name not in ANSWER:
            raise ConfigurationError(f"{where}: unknown member {name!r}")
        if not isinstance(text, str) or not text:
            raise ConfigurationError(f"{where}.{name}: must be a path, for example data.text")
        if (name, text) == ("done", CLOSE):
            paths[name] = Path(())
            continue
        path, is_condition, equal = text.partition("=")
        steps = tuple(int(step) if step.isdecimal() else step for step in path.split("."))
        if not all(path.split(".")) or len(steps) > PATH_STEPS_MAX:
            raise ConfigurationError(
                f"{where}.{name}: must have names with dots between them, at most {PATH_STEPS_MAX}"
            )
        paths[name] = Path(steps, equal if is_condition else None)
    return paths


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for inner in value.values() for text in _texts(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in _texts(inner)]
    return [value] if isinstance(value, str) else []


WEBSOCKET = KindSpec(
    name="websocket",
    schemes=("ws", "wss"),
    has_rules=True,
    styles=("trailing",),
    members={"request": check_request, "answer": check_answer},
)
