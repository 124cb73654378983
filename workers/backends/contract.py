"""What a worker streams from: the one shape that every backend has.

A backend turns one request into lists of events and ends with exactly one `Finish`, or raises
`BackendError`. It knows nothing of logs, attempts, leases or Redis; the worker turns `Finish` into
`end`, joins tokens and gives out ids.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any, NamedTuple, Protocol

from shared.log.events import AnyEvent, FinishReason
from shared.log.request import Request

# Members of `params` that make the answer something other than plain text.
STRUCTURED = (
    "guided_json",
    "guided_regex",
    "guided_grammar",
    "guided_choice",
    "structured_outputs",
)


class Finish(NamedTuple):
    """The backend's terminal marker was seen: the answer is whole, and nothing follows.

    Attributes:
        reason: as the log knows it.
        said: the backend's own word where it is not one that we know; for the log line.
    """

    reason: FinishReason
    said: str = ""


Item = AnyEvent | Finish


class Backend(Protocol):
    """One model that a worker can stream from.

    Attributes:
        can_continue: may go on from a prefix of plain answer text.
    """

    @property
    def can_continue(self) -> bool: ...

    def stream(
        self, request: Request, *, prefix: str, seed: str
    ) -> AsyncGenerator[list[Item], None]:
        """Yield what each read of the upstream gave, in order; an empty list: it has answered.

        Args:
            prefix: what of the answer's text stands already; only given where `can_continue`.
            seed: the generation's id; the same seed gives the same answer where that is possible.

        The last item of the last list is `Finish`. `aclose()` or a cancellation closes the
        upstream connection at once, which is what makes servers stop generating.

        Raises:
            BackendError: the attempt is over. What was yielded before it stands.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections; harmless when repeated."""
        ...


def is_plain(params: Mapping[str, Any]) -> bool:
    """Whether a partial answer to such a request may be continued as text.

    Structured output and log probabilities are restarted instead: a grammar would start anew in
    the middle, and a continued server reports probabilities for the second half only.
    """
    if any(params.get(name) for name in (*STRUCTURED, "logprobs", "top_logprobs")):
        return False
    response_format = params.get("response_format")
    return not response_format or response_format == {"type": "text"}
