"""Reads the messages of one answer: events out. Pure.

The models file may say where the parts of an answer stand (`answer`). A message may have several
parts; a message without any, for example a status, is left out. An error wins over all else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from shared.config.kinds.websocket import ANSWER, Path
from shared.errors import BackendError
from shared.log.events import Reasoning, Token
from shared.log.extra import clean, is_empty
from workers.backends.contract import BackendItem, Finish
from workers.backends.openai.tool_fragments import read_fragment
from workers.backends.reading.failure import Address, failure_of, refusal
from workers.backends.reading.finish_reasons import Reason, gave_up, more_telling, reason_of
from workers.backends.reading.half_pairs import HalfPairs
from workers.backends.reading.json_object import CHECKED_BYTES_MIN, read_object
from workers.backends.reading.tools import ToolCalls
from workers.backends.reading.usage import UsageCounter

ADDRESS = Address("WebSocket", "it is the whole URL of the WebSocket, with its path")
NORMAL_CLOSES = (1000, 1005, None)
# The server goes away, restarts, or has no room now: another attempt may succeed.
AWAY_CLOSES = (1001, 1006, 1012, 1013, 1014)
# The server does not accept our message: unknown data, policy, too big, no extension.
REFUSING_CLOSES = (1002, 1003, 1007, 1008, 1009, 1010)
# Codes of applications: many servers use 4000 + an HTTP status.
STATUS_CLOSES = range(4400, 4600)


class MessageReader:
    """Reads one answer.

    Args:
        paths: of the models file; a part that it leaves out has its usual place.
        seed: part of the ids of tool calls that the server gives no id.

    Attributes:
        is_done: `Finish` was returned, or the last call raised.
        warnings: names of what was repaired or left out.
    """

    def __init__(self, paths: Mapping[str, Path] | None = None, *, seed: str = "") -> None:
        paths = {**ANSWER, **(paths or {})}
        self.is_done = False
        self.warnings: set[str] = set()
        self._token, self._reasoning = paths["token"], paths["reasoning"]
        self._rest = {name: paths[name] for name in ("tool_calls", "usage", "finish_reason")}
        self._error, self._done = paths["error"], paths["done"]
        self._token_name = self._token.steps[0] if len(self._token.steps) == 1 else None
        self._reason: Reason | None = None
        self._usage = UsageCounter()
        self._tools = ToolCalls(seed)
        self._halves = HalfPairs()

    def feed(self, message: bytes, items: list[BackendItem]) -> None:
        """Add the items of one message.

        Raises:
            BackendError: the server reports an error, or the message is no JSON object.
        """
        value = _decode(message)
        if len(value) == 1 and self._token_name in value and self._token.equal is None:
            self._say(Token, value[self._token_name], items)  # the usual case
            return
        if not is_empty(error := find(value, self._error)) and error is not False:
            raise _failure(error, value)
        self._say(Reasoning, find(value, self._reasoning), items)
        self._say(Token, find(value, self._token), items)
        self._take_rest(value, items)
        if self._done.steps and (done := find(value, self._done)) and done is not None:
            if isinstance(done, str) and self._done.equal is None:
                self._note(done)
            self._end(items)

    def feed_close(self, code: int | None, reason: str, items: list[BackendItem]) -> None:
        """Handle the server's close frame.

        Raises:
            BackendError: the answer is not complete.
        """
        if code in NORMAL_CLOSES and not self._done.steps:
            return self._end(items)
        raise _close_failure(code, reason)

    def _say(self, kind: type[Token | Reasoning], text: Any, items: list[BackendItem]) -> None:
        if not isinstance(text, str) or not text:
            return
        if not text.isascii() or self._halves:
            text = self._halves.join(kind, text)
            if not text:
                return
        items.append(kind(text))

    def _take_rest(self, value: dict[str, Any], items: list[BackendItem]) -> None:
        if isinstance(usage := find(value, self._rest["usage"]), dict):
            self._usage.add(usage)
        calls = find(value, self._rest["tool_calls"])
        for call in calls if isinstance(calls, list) else ():
            fragment = read_fragment(
                call, begun=len(self._tools), halves=self._halves, warnings=self.warnings
            )
            items += self._tools.read(fragment)
        self._note(find(value, self._rest["finish_reason"]))

    def _note(self, word: Any) -> None:
        if (reason := reason_of(word)) is None:
            return
        if reason.outcome == "failed":
            raise gave_up(reason.word)
        self._reason = more_telling(self._reason, reason)

    def _end(self, items: list[BackendItem]) -> None:
        left = ((kind, self._halves.release(kind)) for kind in (Reasoning, Token))
        items += [kind(text) for kind, text in left if text]
        items += self._tools.finish()
        if (usage := self._usage.event()) is not None:
            items.append(usage)
        reason = self._reason or Reason("stop", "stop")
        assert reason.outcome != "failed"
        has_calls = reason.outcome == "stop" and len(self._tools) > 0
        outcome = "tool_calls" if has_calls else reason.outcome
        items.append(Finish(outcome, "" if reason.is_known else reason.word))
        self.is_done = True


def find(value: Any, path: Path) -> Any:
    """Return the value at a path; None: there is none, or it is not the one that counts."""
    for step in path.steps:
        if isinstance(step, int) and isinstance(value, list):
            value = value[step] if step < len(value) else None
        elif isinstance(value, dict):
            value = value.get(str(step))
        else:
            return None
    if path.equal is not None:
        return True if str(value) == path.equal else None
    return value


def _decode(message: bytes) -> dict[str, Any]:
    if len(message) <= CHECKED_BYTES_MIN:
        try:
            value = msgspec.json.decode(message)
        except ValueError:
            value = None  # it may have NaN or a lone half of a character
        if isinstance(value, dict):
            return value
    return read_object(message, keeps_halves=True)


def _failure(error: Any, value: dict[str, Any]) -> BackendError:
    """Return the failure for an error that stands anywhere in a message."""
    if not isinstance(error, str | dict):
        rest, _ = clean({name: inner for name, inner in value.items() if name != "error"})
        error = rest or "the backend reports an error without a message"
    return failure_of(msgspec.json.encode({"error": clean(error)[0]}), ADDRESS)


def _close_failure(code: int | None, reason: str) -> BackendError:
    """Return the failure for a connection that the server closed before the end."""
    said = f": {reason}" if reason else ""
    if code in STATUS_CLOSES:
        assert code is not None
        body = msgspec.json.encode({"error": {"message": reason or f"close code {code}"}})
        status = code - 4000
        error = refusal(status, body, retry_after=None, now_s=0.0, address=ADDRESS)
        error.is_outage = error.retryable and status in (502, 503)
        return error
    if code in NORMAL_CLOSES:
        text = "the backend closed the connection without an end of the answer"
        return BackendError("upstream_error", f"{text}{said}")
    text = f"the backend closed the connection without an end of the answer (code {code}){said}"
    if code in REFUSING_CLOSES:
        return BackendError("upstream_refused", text, retryable=False)
    return BackendError("upstream_error", text, is_outage=code in AWAY_CLOSES)
