"""Describes a kind of backend for the common suite.

The suite is tests/integration/backends/test_every_kind.py. A kind plugs in with one `TriedKind` in
tests/support/kinds/__init__.py: a server that speaks its real wire, and what stands where in a
request of its wire.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from shared.config.settings import Settings
from tests.support.openai_streams import Recorded
from tests.support.upstream import Call
from workers.backends.reading.answer_reader import AnswerReader

# What a kind can do; the suite leaves out the tests of what it cannot.
#   reasoning, tools, pictures    events and request parts
#   max_tokens, stop, params      the members of `params` reach the server, translated where needed
#   usage                         the server reports counts
#   continuation                  a partial answer is continued, in the first of the kind's forms
#   status                        errors are HTTP statuses with a body, or have one in the wire
#   errors                        the wire has an error in mid-answer
#   lines                         TAILRACE_UPSTREAM_LINE_BYTES_MAX bounds a line or message
Ability = Literal[
    "reasoning", "tools", "pictures", "max_tokens", "stop", "params", "usage", "continuation",
    "status", "errors", "lines",
]  # fmt: skip


class KindServer(Protocol):
    """A server that speaks the wire of a kind. The prompt is a script: see `Script`.

    Attributes:
        calls: every request for an answer; `Call.left` is set when its client has gone early.
    """

    calls: list[Call]

    @property
    def base_url(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedKind:
    """A kind, as the suite tries it.

    Attributes:
        name: the value of `backend`.
        variant: of several wires of one kind.
        serve: starts a server on a free port.
        members: of `Model`, beside `backend` and `base_url`.
        can: what the kind can do.
        in_body: the place of a member of `params` in the body that the server gets; None: absent.
        pictures: the pictures in such a body, each as (media type, base64).
        reader: makes a reader of bytes; None: the kind reads messages.
        streams: of real servers, by name, with what a reader makes of them.
    """

    name: str
    serve: Callable[[], AbstractAsyncContextManager[KindServer]]
    can: frozenset[Ability]
    members: Mapping[str, Any] = field(default_factory=dict)
    in_body: Callable[[dict[str, Any], str], Any] = lambda body, name: body.get(name)
    pictures: Callable[[dict[str, Any]], list[tuple[str, str]]] = lambda body: []
    reader: Callable[[Settings], AnswerReader] | None = None
    streams: Mapping[str, Recorded] = field(default_factory=dict)
    variant: str = ""

    @property
    def title(self) -> str:
        return " ".join(filter(None, (self.name, self.variant)))
