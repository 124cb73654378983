"""The interface that every backend has. A worker streams answers from a backend.

Invariant: a backend turns one request into lists of events and ends with exactly one `Finish`, or
raises `BackendError`. It knows no logs, attempts, leases or Redis; the worker turns `Finish` into
`end`, joins tokens and assigns ids.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from shared.audio.media import AudioFormat
from shared.errors import MESSAGE_CHARACTERS_MAX, BackendError
from shared.log.events import AnyEvent, FinishReason
from shared.log.request import Request
from shared.text.redaction import redact

# Members of `params` that make the answer structured output.
STRUCTURED = (
    "guided_json",
    "guided_regex",
    "guided_grammar",
    "guided_choice",
    "structured_outputs",
)


class Finish(NamedTuple):
    """The answer is complete: the backend has sent its finish reason, and no event follows.

    Attributes:
        reason: the finish reason for the log.
        unknown_reason: the backend's own word if we do not know it; for the log line.
        extra: for `End.extra`.
        is_cut: the answer was ended here and not by the model server, which reports no counts then.
        cached_at: when the stored answer was made that this answer repeats, Unix seconds; 0: the
            answer is new.
    """

    reason: FinishReason
    unknown_reason: str = ""
    extra: dict[str, Any] | None = None
    is_cut: bool = False
    cached_at: int = 0


BackendItem = AnyEvent | Finish


class SetUpFault(BackendError):
    """A failure that no client can mend, but the operator: a key, a URL, a certificate, a server.

    Attributes:
        advice: for the operator, with what to do. Only logs and the doctor may show it, because it
            may name hosts, ports and files.
    """

    def __init__(
        self, code: str, message: str, advice: str, *, retryable: bool, is_outage: bool = False
    ) -> None:
        super().__init__(code, message, retryable=retryable, is_outage=is_outage)
        self.advice = redact(advice)[:MESSAGE_CHARACTERS_MAX]


class Backend(Protocol):
    """One model that a worker can stream from.

    Attributes:
        can_continue: whether `stream` accepts a prefix of plain answer text.
        counts_whole: `Usage` and `max_tokens` of a continuation are of the whole answer. False:
            both are of one request, as servers count.
    """

    @property
    def can_continue(self) -> bool: ...

    @property
    def counts_whole(self) -> bool: ...

    def stream(
        self, request: Request, *, prefix: str, seed: str, form: str
    ) -> AsyncGenerator[list[BackendItem], None]:
        """Yield the events of each read of the upstream, in order.

        An empty list means that the upstream has answered the request. The last item of the last
        list is `Finish`. `aclose()` or a cancellation closes the upstream connection at once, so
        that the server stops generating.

        Args:
            prefix: the answer text so far; only given if `can_continue`.
            form: how a request asks this server to continue `prefix`, one of the kind's `styles`.
            seed: the generation's id; the same seed gives the same answer if the backend can.

        Raises:
            BackendError: the attempt has failed. Events yielded before remain valid.
        """
        ...

    async def aclose(self) -> None:
        """Close the idle connections. May be repeated."""
        ...


class AudioSource(Protocol):
    """The audio input of one attempt. Each iteration reads the input from its start.

    The iteration yields the bytes of the chunks in order, waits for the client where there are
    none, and ends when the input is complete. The request for the next chunk confirms the bytes
    before; then the client may send as many again.

    Attributes:
        format: what the bytes are.
    """

    @property
    def format(self) -> AudioFormat: ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Read the input.

        Raises (in a step):
            BackendError: the client has sent nothing for too long.
        """
        ...


@runtime_checkable
class AudioBackend(Protocol):
    """A backend that answers requests with an audio input."""

    def transcribe(
        self, request: Request, audio: AudioSource, *, prefix: str, seed: str, form: str
    ) -> AsyncGenerator[list[BackendItem], None]:
        """Do what `Backend.stream` does, with the audio input of the request."""
        ...


def is_plain(params: Mapping[str, Any]) -> bool:
    """Whether a partial answer to a request with these `params` may be continued as text.

    Structured output and log probabilities start again instead: the server would start its grammar
    anew in the middle, and would report probabilities for the second part only.
    """
    if any(params.get(name) for name in (*STRUCTURED, "logprobs", "top_logprobs")):
        return False
    response_format = params.get("response_format")
    return not response_format or response_format == {"type": "text"}
