"""The built-in backend: needs nothing, says the same for the same seed, can fail and be continued.

The answer is a fixed sequence of pieces, a function of prompt, seed and controls. That is what
makes it a test instrument: `expected_text` tells anybody what a reader must have received, and a
worker that takes over finds its place in the sequence from the text alone. Pacing is apart from the
sequence; clock and sleep can be given.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from itertools import chain, islice
from random import Random
from typing import Any

import msgspec

from shared.config.models import Model
from shared.errors import BackendError
from shared.log.events import FinishReason, Reasoning, Token, ToolCall, Usage
from shared.log.request import Request
from workers.backends.contract import Finish, Item
from workers.backends.demo import text as demo_text
from workers.backends.demo.controls import Controls, parse_options, with_params

BATCH_MAX = 4  # pieces in one list when they are due faster than they can be handed on
FIRST_TOKEN_S = 0.3

Sleep = Callable[[float], Awaitable[None]]
Clock = Callable[[], float]


class Answer:
    """What will be said to one request: pure, and the same in every process.

    Raises:
        BackendError: `params` asks for what cannot be; not retryable.
    """

    def __init__(self, request: Request, seed: str, options: Controls) -> None:
        self.controls = controls = with_params(options, request.params)
        self.seed = seed if controls.seed is None else str(controls.seed)
        self.prompt = _last_words(request.messages)
        texts = [_text_of(message.get("content")) for message in request.messages]
        self.prompt_tokens = demo_text.count(texts)

    def pieces(self) -> Iterator[str]:
        """Give the pieces of the text, cut at `max_tokens`."""
        pieces = demo_text.answer(self.prompt, self.seed, self.controls.tokens)
        limit = self.controls.max_tokens
        return islice(pieces, limit)

    def items(self, prefix: str) -> Iterator[Item | BackendError]:
        """Give what is said after `prefix`; a failure comes as an item, and is the last."""
        thoughts = 0 if prefix else self.controls.reasoning_tokens
        yield from map(Reasoning, demo_text.thoughts(self.seed, thoughts))
        pieces = self.pieces()
        said, rest = _skip(pieces, prefix)
        fails_after = self.controls.fails_after(said)
        for piece in chain(rest, pieces):
            if said == fails_after:
                break
            yield Token(piece)
            said += 1
        # Also where the answer is shorter than it should have been before failing.
        if fails_after is not None:
            yield self._failure()
            return
        yield from self._closing(said, thoughts)

    def _closing(self, said: int, thoughts: int) -> Iterator[Item]:
        finish: FinishReason = "length" if self._is_cut(said) else "stop"
        if self.controls.tool_call and finish == "stop":
            yield from _tool_call(self.controls.tool_call, self.prompt)
            finish = "tool_calls"
        count = said + thoughts  # of the whole answer, also where another attempt began it
        yield Usage(self.prompt_tokens, count, self.prompt_tokens + count)
        yield Finish(finish)

    def _is_cut(self, said: int) -> bool:
        """Whether there would have been more to say."""
        if said != self.controls.max_tokens:
            return False
        whole = demo_text.answer(self.prompt, self.seed, self.controls.tokens)
        return next(islice(whole, said, None), None) is not None

    def _failure(self) -> BackendError:
        controls = self.controls
        message = f"the demo fails at token {controls.fail_at}, as it was told to"
        return BackendError(controls.fail_code, message, retryable=controls.fail_retryable)


def expected_text(request: Request, seed: str, options: Mapping[str, Any] | None = None) -> str:
    """Return the whole text that an answer must have, whoever generated which part of it.

    Args:
        seed: the generation's id, unless `params` or `options` name a seed.
        options: the model's, where it has any.
    """
    return "".join(Answer(request, seed, parse_options(options or {}, "options")).pieces())


class DemoBackend:
    """See the module; clock and sleep are the loop's unless given."""

    def __init__(self, model: Model, *, clock: Clock | None = None, sleep: Sleep = asyncio.sleep):
        self.can_continue = model.on_takeover == "continue"
        self._options = parse_options(model.options, f"models.{model.name}")
        self._clock = clock
        self._sleep = sleep

    async def stream(
        self, request: Request, *, prefix: str, seed: str
    ) -> AsyncGenerator[list[Item], None]:
        """See `Backend.stream`. A failure that was asked for comes after what was said before."""
        answer = Answer(request, seed, self._options)
        pace = _Pace(answer, self._clock or asyncio.get_running_loop().time)
        batch: list[Item] = []
        for item in answer.items(prefix):
            if isinstance(item, BackendError):
                if batch:
                    yield batch
                raise item
            if not isinstance(item, Usage | Finish):
                wait_s = pace.wait_s()
                if wait_s > 0 or len(batch) >= BATCH_MAX:
                    if batch:
                        yield batch
                        batch = []
                    await self._sleep(wait_s)
                pace.advance()
            batch.append(item)
        yield batch

    async def aclose(self) -> None:
        """Nothing is held."""


class _Pace:
    """When each piece is due. Late pieces are caught up with, so the rate holds on a busy loop."""

    def __init__(self, answer: Answer, clock: Clock) -> None:
        controls = answer.controls
        self._gap_s = 1 / controls.tokens_per_s if controls.tokens_per_s else 0.0
        self._random = Random(f"{answer.seed}/pace").random
        self._clock = clock
        first_s = controls.first_token_s
        if first_s is None:
            first_s = FIRST_TOKEN_S if self._gap_s else 0.0
        self._due = clock() + first_s

    def wait_s(self) -> float:
        return max(self._due - self._clock(), 0.0)

    def advance(self) -> None:
        if self._gap_s:
            self._due += self._gap_s * (0.5 + self._random())


def _skip(pieces: Iterator[str], prefix: str) -> tuple[int, tuple[str, ...]]:
    """Take from `pieces` what `prefix` already says; return how many, and the rest of a cut one.

    Raises:
        BackendError: this answer does not begin with `prefix`.
    """
    said = at = 0
    while at < len(prefix):
        piece = next(pieces, "")
        if not piece or not (prefix.startswith(piece, at) or piece.startswith(prefix[at:])):
            raise BackendError(
                "upstream_refused", "the demo never said what it is to continue", retryable=False
            )
        at += len(piece)
        if at > len(prefix):
            return said, (piece[len(prefix) - at :],)
        said += 1
    return said, ()


def _tool_call(name: str, prompt: str) -> Iterator[ToolCall]:
    yield ToolCall(0, "call_demo", name)
    arguments = msgspec.json.encode({"query": demo_text.quote_of(prompt)}).decode()
    for piece in demo_text.split(arguments):
        yield ToolCall(0, arguments=piece)


def _last_words(messages: list[dict[str, Any]]) -> str:
    users = (m.get("content") for m in reversed(messages) if m.get("role") == "user")
    return _text_of(next(users, None))


def _text_of(content: Any) -> str:
    """Return the text of a message: a string, or the text parts of a list."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return " ".join(text for text in texts if isinstance(text, str))
