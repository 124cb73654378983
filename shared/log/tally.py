"""Counts the tokens of an answer over all its attempts. Pure.

A model server reports the tokens of one request, so after a takeover its report lacks what earlier
attempts generated, and its prompt holds the answer so far. The `usage` events of a log count the
whole answer since the last `reset`: the prompt of the first attempt, and the completions of all.

What no server has reported is counted here, from the pieces and the characters in the log, and is
marked: `"estimated": true` in `extra`. A `reset` makes everything before it void, also its tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from shared.log.events import AnyEvent, Counts, Reasoning, Reset, Token, ToolCall, Usage
from shared.log.request import Request

ESTIMATED = "estimated"
# Where servers report the part of the prompt that they had in a cache: a member of an object of
# `usage`, or a member of `usage` itself.
_CACHED_IN = ("prompt_tokens_details", "input_tokens_details")
_CACHED = ("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens")
# Tokens of English text have 4 to 5 characters. The estimate of an answer is rather too low:
# a count that is too high would end a continued answer before its `max_tokens`.
PROMPT_CHARS_PER_TOKEN = 4
ANSWER_CHARS_PER_TOKEN = 6


class Tally:
    """The tokens of one answer so far.

    Attributes:
        usage: the newest counts of the whole answer; None: no server has reported any.
    """

    usage: Usage | None

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self.usage = None
        self._pieces = self._chars = 0  # after `usage`
        self._before: tuple[Usage | None, int] = (None, 0)  # when the attempt began

    def add(self, event: AnyEvent | None) -> None:
        """Add an event of the log, or one that is about to be written to it."""
        if isinstance(event, Token | Reasoning):  # the usual case: no `match`, which costs twice
            text = event.text
        elif isinstance(event, ToolCall):
            text = event.arguments
        else:
            if isinstance(event, Usage):
                self.usage, self._pieces, self._chars = event, 0, 0
            elif isinstance(event, Reset):
                self._forget()
            return
        if text:
            self._pieces += 1
            self._chars += len(text)

    def add_text(self, text: str) -> int:
        """Add a text that is not empty; return the tokens before it. Cheaper than `add`."""
        pieces, chars = self._pieces, self._chars
        self._pieces, self._chars = pieces + 1, chars + len(text)
        counted = chars // ANSWER_CHARS_PER_TOKEN
        counted = pieces if pieces > counted else counted
        return counted if self.usage is None else counted + self.usage.completion_tokens

    def begin_attempt(self) -> None:
        """Note that what follows is of a new request to the server."""
        self._before = self.usage, self.completion_tokens

    @property
    def completion_tokens(self) -> int:
        """The tokens of the answer so far, reported or counted."""
        reported = self.usage.completion_tokens if self.usage is not None else 0
        return reported + self._counted

    @property
    def _counted(self) -> int:
        return max(self._pieces, self._chars // ANSWER_CHARS_PER_TOKEN)

    def whole(self, reported: Usage) -> Usage:
        """Return the counts of the whole answer after a server's report of this attempt."""
        before, given = self._before
        if not given:
            return reported
        is_estimated = before is None or before.completion_tokens != given or is_marked(before)
        if before is None:
            # The prompt of a continuation holds the answer so far, unless the server says less.
            prompt = reported.prompt_tokens - given
            prompt = prompt if prompt > 0 else reported.prompt_tokens
        else:
            prompt = before.prompt_tokens
            if is_estimated and not is_marked(before) and reported.prompt_tokens > prompt:
                # The server has counted the answer so far as a part of its prompt.
                given, is_estimated = reported.prompt_tokens - prompt, False
        completion = given + reported.completion_tokens
        extra = _marked(reported.extra) if is_estimated else reported.extra
        return Usage(prompt, completion, prompt + completion, extra)

    def counts(self, prompt_tokens: int) -> Counts:
        """Return the counts so far, for an answer that no server's report ends.

        Args:
            prompt_tokens: of the request, counted; used if no server has reported them.
        """
        usage = self.usage
        prompt = usage.prompt_tokens if usage is not None else prompt_tokens
        completion = self.completion_tokens
        if usage is not None and completion == usage.completion_tokens:
            return as_counts(usage)
        extra = _marked(usage.extra if usage is not None else None)
        return Counts(prompt, completion, prompt + completion, extra)


def as_counts(usage: Usage) -> Counts:
    """Return the member `usage` of an `end`."""
    return Counts(usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, usage.extra)


def is_marked(usage: Usage | Counts) -> bool:
    """Whether a part of these counts was counted here."""
    return bool(usage.extra and usage.extra.get(ESTIMATED) is True)


def cached_tokens(extra: Mapping[str, Any]) -> int:
    """Return how many tokens of the prompt the server had in a cache."""
    places = [extra, *(extra.get(name) for name in _CACHED_IN)]
    for place in places:
        if isinstance(place, dict):
            for name in _CACHED:
                value = place.get(name)
                if type(value) is int and value > 0:
                    return value
    return 0


def count_prompt(request: Request) -> int:
    """Count the tokens of a request, from the characters of its texts."""
    chars = 0
    for message in request.messages:
        content = message.get("content")
        if isinstance(content, str):
            chars += len(content)
        elif content:
            parts = [p.get("text") for p in content if isinstance(p, dict)]
            chars += sum(len(text) for text in parts if isinstance(text, str))
    return -(-chars // PROMPT_CHARS_PER_TOKEN)


# Members of `params` that bound the length of an answer. The models file renames them later.
LIMITS = ("max_tokens", "max_completion_tokens", "min_tokens")


def rest_of(request: Request, given: int) -> Request | None:
    """Return the request for the rest of an answer; None: nothing may follow.

    Args:
        given: the tokens of the answer so far.
    """
    rest = {
        name: max(value - given, 0)
        for name in LIMITS
        if type(value := request.params.get(name)) is int and value > 0
    }
    if any(rest.get(name) == 0 for name in LIMITS[:2]):
        return None
    if not rest:
        return request
    return msgspec.structs.replace(request, params={**request.params, **rest})


def _marked(extra: dict[str, Any] | None) -> dict[str, Any]:
    return {**(extra or {}), ESTIMATED: True}
