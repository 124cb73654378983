"""Maps the finish reasons of all known servers to ours. One table, pure.

Servers differ in case and in separators, so words are compared in lower case with `_`. An unknown
word counts as `stop`, and the reader keeps the word. If a server sends two reasons, the more
telling one counts: `content_filter`, `length`, `tool_calls`, an unknown word, `stop`, in this
order.
Sources: the API references of OpenAI, Azure, Anthropic, Gemini, Mistral, Zhipu, DeepSeek, TGI.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from shared.errors import BackendError
from shared.log.events import FinishReason
from shared.text.redaction import redact

Outcome = FinishReason | Literal["failed"]

_WORDS: dict[Outcome, tuple[str, ...]] = {
    "stop": (
        "stop", "end_turn", "stop_sequence", "eos_token", "eos", "end", "done", "complete",
        "completed", "finish", "finished",
    ),
    "length": (
        "length", "max_tokens", "max_token", "max_output_tokens", "max_completion_tokens",
        "max_new_tokens", "max_length", "model_length", "model_context_window_exceeded",
        "context_length", "context_length_exceeded", "context_window_exceeded", "token_limit",
        "limit",
    ),
    "tool_calls": ("tool_calls", "tool_call", "tool_use", "function_call", "function_calls"),
    "content_filter": (
        "content_filter", "content_filtered", "content_filtering", "safety", "recitation",
        "blocklist", "blocked", "prohibited_content", "spii", "language", "image_safety",
        "image_prohibited_content", "image_recitation", "model_armor", "refusal", "sensitive",
        "guardrail_intervened", "guardrails", "moderation", "policy_violation", "error_toxic",
    ),
    # The server gave the answer up, or the answer is not usable.
    "failed": (
        "error", "abort", "aborted", "cancel", "cancelled", "canceled", "failed", "failure",
        "interrupted", "timeout", "network_error", "server_error", "internal_error",
        "engine_error", "connection_error", "unknown_error", "user_cancel", "error_limit",
        "insufficient_system_resource", "malformed_function_call", "malformed_tool_call",
        "malformed_response", "malformed_model_output", "malformed_tool_use", "invalid_tool_call",
        "unexpected_tool_call", "too_many_tool_calls", "missing_thought_signature", "no_image",
        "image_other",
    ),
}  # fmt: skip
_BY_WORD = {word: outcome for outcome, words in _WORDS.items() for word in words}
_NOT_YET = ("", "null", "none", "unspecified")  # some servers send the member in every chunk
# The higher number is the more telling reason; an unknown word has `_UNKNOWN_RANK`.
_RANKS: dict[Outcome, int] = {
    "stop": 0, "tool_calls": 2, "length": 3, "content_filter": 4, "failed": 5,
}  # fmt: skip
_UNKNOWN_RANK = 1
WORD_CHARS_MAX = 100


class Reason(NamedTuple):
    """The meaning of a server's finish reason.

    Attributes:
        outcome: our reason, or `failed`.
        word: the server's own word, cut to `WORD_CHARS_MAX`.
        is_known: False: `outcome` is `stop`, because nothing is known about the word.
    """

    outcome: Outcome
    word: str
    is_known: bool = True

    @property
    def rank(self) -> int:
        return _RANKS[self.outcome] if self.is_known else _UNKNOWN_RANK


def reason_of(value: object) -> Reason | None:
    """Return the meaning of a `finish_reason` member; None: the answer is not finished."""
    if not isinstance(value, str):
        return None
    word = value.strip().lower().replace("-", "_").replace(" ", "_")
    word = word.removeprefix("finish_reason_")
    if word in _NOT_YET:
        return None
    outcome = _BY_WORD.get(word)
    if outcome is None:
        # The word reaches clients, and a server may quote our key in it.
        return Reason("stop", redact(value)[:WORD_CHARS_MAX], is_known=False)
    return Reason(outcome, value[:WORD_CHARS_MAX])


def more_telling(old: Reason | None, new: Reason) -> Reason:
    """Return the reason that counts if a server sends both."""
    return new if old is None or new.rank > old.rank else old


def gave_up(word: str) -> BackendError:
    """Return the failure for a finish reason with the outcome `failed`."""
    return BackendError("upstream_error", f"the backend gave up: finish_reason {word!r}")
