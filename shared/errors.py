"""The errors that several packages raise or catch.

An error that only one module's callers catch is defined in that module.

* TailraceError
    * ConfigurationError        start-up only; the process must not run
    * RequestError              a client's request cannot be served; has an HTTP status
        * CursorInvalid         not an event id of this system
        * NotFound              absent, or of another owner
        * Expired               past its retention
        * TooLarge              a file is larger than its limit
        * OwnerFilesFull        the files of the owner reach a limit
        * StorageFull           the disk of the files has too little free space
        * Draining              this process stops
    * BackendError              a model backend failed; ends the attempt
    * LeaseLost                 another process runs this batch, or it has ended
    * Unavailable               Redis did not answer in time, or refused
        * FilesUnavailable      the file store did not answer, or refused

`code` is the stable name that clients see. `retryable` says whether the same request can succeed
later. Expected ends of a generation are events in its log, not exceptions. docs/protocol.md lists
the codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from shared.text.private_addresses import hide_private
from shared.text.redaction import redact

# A backend's text is cut to this length, redacted, then cut to `MESSAGE_CHARACTERS_MAX`. So a
# credential is redacted whole.
QUOTED_CHARACTERS_MAX = 4_000
MESSAGE_CHARACTERS_MAX = 600


class TailraceError(Exception):
    """Base class of all errors defined here."""

    code = "internal"
    retryable = False


class ConfigurationError(TailraceError):
    """A setting is missing, malformed or contradicts another."""

    code = "configuration"


class RequestError(TailraceError):
    """A request that gets a 4xx or 5xx response.

    Attributes:
        members: further members of the error object in the native shape.

    Args:
        status: the HTTP status.
        code: a stable name, lower case with underscores.
        message: for a person; says what to do.
        retry_after_s: the value of the `Retry-After` header, s, if waiting can help.
    """

    members: Mapping[str, object] = MappingProxyType({})

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retryable: bool = False,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retryable = retryable
        self.retry_after_s = retry_after_s


class CursorInvalid(RequestError):
    def __init__(self, text: str) -> None:
        super().__init__(
            400,
            "cursor_invalid",
            f"{text[:60]!r} is not an event id: send the last id you were given, for example 1-42",
        )


class NotFound(RequestError):
    def __init__(self, what: str = "generation") -> None:
        super().__init__(404, "not_found", f"no such {what}")


class Expired(RequestError):
    def __init__(self) -> None:
        super().__init__(410, "expired", "this generation is past its retention: start a new one")


class TooLarge(RequestError):
    def __init__(self, message: str) -> None:
        super().__init__(413, "body_too_large", message)


class OwnerFilesFull(RequestError):
    """413, because clients repeat 409 and 429 by themselves and would send the file again."""

    def __init__(self, message: str) -> None:
        super().__init__(413, "owner_files_full", message)


class StorageFull(RequestError):
    def __init__(self) -> None:
        super().__init__(
            503,
            "storage_full",
            "the disk of the files has too little room for uploads: ask again later, or tell the "
            "operator",
            retryable=True,
            retry_after_s=60,
        )


class Draining(RequestError):
    """This process stops and accepts no new work; another process does."""

    def __init__(self) -> None:
        super().__init__(
            503,
            "draining",
            "this node is stopping: ask again, another one answers",
            retryable=True,
            retry_after_s=1,
        )


class Refusal(msgspec.Struct, frozen=True, omit_defaults=True):
    """The error of a model server about this request, in the members of OpenAI's error object.

    Attributes:
        status: the HTTP status of the refusal, 400 to 599; None: the error came without a status.
        code, type, param: as the server sent them; None: absent, or not a text.
        message: the server's sentence, without credentials and cut.
    """

    message: str
    status: int | None = None
    code: str | None = None
    type: str | None = None
    param: str | None = None


def for_clients(text: str) -> str:
    """Return the text of a backend without credentials and without addresses in its network.

    The text is cut to `MESSAGE_CHARACTERS_MAX` afterwards: cutting first could leave half of a
    credential.
    """
    return hide_private(redact(text[:QUOTED_CHARACTERS_MAX]))[:MESSAGE_CHARACTERS_MAX]


class BackendError(TailraceError):
    """A backend failed, which ends the attempt.

    Clients and logs show the message, and it may quote a model server. So this class passes the
    message of every backend through `for_clients`.

    Args:
        code: `upstream_error`, `upstream_timeout`, `upstream_refused`, `answer_too_large`, …
        retryable: another attempt can succeed (not after a 4xx other than 408 and 429).
        is_outage: the server is away or restarts, which says nothing about the request.
        retry_after_s: the pause that the backend asked for, s.
        upstream: the model server's own error, for clients that can act on it.

    Attributes:
        status: the HTTP status with which the server refused the request; None: there is none.
    """

    status: int | None = None

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retryable: bool = True,
        is_outage: bool = False,
        retry_after_s: float | None = None,
        upstream: Refusal | None = None,
    ) -> None:
        message = for_clients(message)
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable
        self.is_outage = is_outage
        self.retry_after_s = retry_after_s
        self.upstream = upstream


class LeaseLost(TailraceError):
    """The caller no longer holds its batch, and must not write any more."""


class Unavailable(TailraceError):
    """Redis did not answer in time, or refused the call for now. The call may have happened."""

    code = "unavailable"
    retryable = True


class FilesUnavailable(Unavailable):
    """The file store did not answer, or refused the call."""
