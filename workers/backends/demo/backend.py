"""The built-in demo backend: needs no model, gives repeatable answers, can fail and be continued.

Invariant: an answer is a fixed sequence of pieces, a function of prompt, seed and controls. Tests
rely on that: `expected_text` returns the text that a reader must have received, and an attempt that
continues finds its place in the sequence from the text alone. The pace is independent of the
sequence; tests can pass a clock and a sleep.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from itertools import chain, islice
from random import Random
from typing import Any

import msgspec

from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import BackendError
from shared.log.events import FinishReason, Reasoning, Token, ToolCall, Usage
from shared.log.request import Request
from workers.backends.contract import Backend, BackendItem, Finish
from workers.backends.demo import text as demo_text
from workers.backends.demo.controls import DemoControls, apply_params, parse_options
from workers.backends.http.upstream_http import UpstreamHttp

BATCH_MAX = 4  # pieces in one list when several are due
FIRST_TOKEN_S = 0.3  # default pause before the first token

Sleep = Callable[[float], Awaitable[None]]
Clock = Callable[[], float]


class DemoAnswer:
    """The answer to one request. Pure; the same in every process.

    Raises:
        BackendError: `params` has an invalid value; not retryable.
    """

    def __init__(self, request: Request, seed: str, options: DemoControls) -> None:
        self.controls = controls = apply_params(options, request.params)
        self.seed = seed if controls.seed is None else str(controls.seed)
        self.prompt = _last_user_text(request.messages)
        texts = [_text_of(message.get("content")) for message in request.messages]
        self.prompt_tokens = demo_text.count(texts)

    def pieces(self) -> Iterator[str]:
        """Yield the pieces of the text, at most `max_tokens`."""
        pieces = demo_text.answer(self.prompt, self.seed, self.controls.tokens)
        limit = self.controls.max_tokens
        return islice(pieces, limit)

    def items(self, prefix: str) -> Iterator[BackendItem | BackendError]:
        """Yield the items after `prefix`. A failure that the controls ask for is the last item."""
        reasoning = 0 if prefix else self.controls.reasoning_tokens
        yield from map(Reasoning, demo_text.thoughts(self.seed, reasoning))
        pieces = self.pieces()
        sent, rest = _skip(pieces, prefix)
        fails_after = self.controls.fails_after(sent)
        for piece in chain(rest, pieces):
            if sent == fails_after:
                break
            yield Token(piece)
            sent += 1
        # Also if the answer ended before the token at which it should fail.
        if fails_after is not None:
            yield self._failure()
            return
        yield from self._closing(sent, reasoning)

    def _closing(self, tokens: int, reasoning: int) -> Iterator[BackendItem]:
        finish: FinishReason = "length" if self._is_cut(tokens) else "stop"
        if self.controls.tool_call and finish == "stop":
            yield from _tool_call(self.controls.tool_call, self.prompt)
            finish = "tool_calls"
        count = tokens + reasoning  # of the whole answer, including the prefix
        yield Usage(self.prompt_tokens, count, self.prompt_tokens + count)
        yield Finish(finish)

    def _is_cut(self, tokens: int) -> bool:
        """Whether `max_tokens` has cut the answer."""
        if tokens != self.controls.max_tokens:
            return False
        uncut = demo_text.answer(self.prompt, self.seed, self.controls.tokens)
        return next(islice(uncut, tokens, None), None) is not None

    def _failure(self) -> BackendError:
        controls = self.controls
        message = f"the demo fails at token {controls.fail_at}, as it was told to"
        return BackendError(
            controls.fail_code,
            message,
            retryable=controls.fail_retryable,
            upstream=controls.fail_upstream,
        )


def expected_text(request: Request, seed: str, options: Mapping[str, Any] | None = None) -> str:
    """Return the complete text of an answer, however many attempts generate it.

    Args:
        seed: the generation's id; a seed in `params` or `options` replaces it.
        options: the options of the model in the models file.
    """
    return "".join(DemoAnswer(request, seed, parse_options(options or {}, "options")).pieces())


class DemoBackend:
    """The demo backend of one model.

    Args:
        clock: seconds, monotonic; default: the loop's.

    Raises:
        ConfigurationError: an option of the model is invalid.
    """

    counts_whole = True

    def __init__(self, model: Model, *, clock: Clock | None = None, sleep: Sleep = asyncio.sleep):
        self.can_continue = model.may_continue
        self._options = parse_options(model.options, f"models.{model.name}")
        self._clock = clock
        self._sleep = sleep

    async def stream(
        self, request: Request, *, prefix: str, seed: str, form: str = ""
    ) -> AsyncGenerator[list[BackendItem], None]:
        """See `Backend.stream`. The pieces before a failure are yielded first."""
        answer = DemoAnswer(request, seed, self._options)
        schedule = _PieceSchedule(answer, self._clock or asyncio.get_running_loop().time)
        batch: list[BackendItem] = []
        for item in answer.items(prefix):
            if isinstance(item, BackendError):
                if batch:
                    yield batch
                raise item
            if not isinstance(item, Usage | Finish):
                wait_s = schedule.wait_s()
                if wait_s > 0 or len(batch) >= BATCH_MAX:
                    if batch:
                        yield batch
                        batch = []
                    await self._sleep(wait_s)
                schedule.advance()
            batch.append(item)
        yield batch

    async def aclose(self) -> None:
        """Do nothing: the demo has no connections."""


def build(
    model: Model, settings: Settings, http: UpstreamHttp, environ: Mapping[str, str]
) -> Backend:
    """Build the backend of a model: see workers/backends/kinds.py."""
    return DemoBackend(model)


class _PieceSchedule:
    """When each piece is due. A late piece does not delay the next: a busy loop keeps the rate."""

    def __init__(self, answer: DemoAnswer, clock: Clock) -> None:
        controls = answer.controls
        self._gap_s = 1 / controls.tokens_per_s if controls.tokens_per_s else 0.0
        self._random = Random(f"{answer.seed}/pace").random
        self._clock = clock
        first_s = controls.first_token_s
        if first_s is None:
            first_s = FIRST_TOKEN_S if self._gap_s else 0.0
        self._due_s = clock() + first_s

    def wait_s(self) -> float:
        return max(self._due_s - self._clock(), 0.0)

    def advance(self) -> None:
        if self._gap_s:
            self._due_s += self._gap_s * (0.5 + self._random())


def _skip(pieces: Iterator[str], prefix: str) -> tuple[int, tuple[str, ...]]:
    """Take the pieces that `prefix` already holds from `pieces`.

    A filter may have put signs in the place of letters, so each sign equals any character.

    Returns:
        their number, and the rest of a piece that the prefix holds only in part.

    Raises:
        BackendError: this answer does not begin with `prefix`.
    """
    count = at = 0
    while at < len(prefix):
        piece = next(pieces, "")
        there = prefix[at : at + len(piece)]
        if not piece or not (piece.startswith(there) or _is_masked(piece, there)):
            message = "the demo cannot continue a text that is not its own"
            raise BackendError("upstream_refused", message, retryable=False)
        at += len(piece)
        if at > len(prefix):
            return count, (piece[len(prefix) - at :],)
        count += 1
    return count, ()


def _is_masked(piece: str, there: str) -> bool:
    pairs = zip(piece, there, strict=False)
    return all(own == shown or not (shown.isalnum() or shown.isspace()) for own, shown in pairs)


def _tool_call(name: str, prompt: str) -> Iterator[ToolCall]:
    yield ToolCall(0, "call_demo", name)
    arguments = msgspec.json.encode({"query": demo_text.quote_of(prompt)}).decode()
    for piece in demo_text.split(arguments):
        yield ToolCall(0, arguments=piece)


def _last_user_text(messages: list[dict[str, Any]]) -> str:
    users = (m.get("content") for m in reversed(messages) if m.get("role") == "user")
    return _text_of(next(users, None))


def _text_of(content: Any) -> str:
    """Return the text of a message: a string, or the text parts of a list."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return " ".join(text for text in texts if isinstance(text, str))
