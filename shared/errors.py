"""Every error this system raises on purpose.

* TailraceError
    * ConfigurationError        start-up only; the process must not run
    * RequestError              the client's request cannot be served; carries an HTTP status
        * CursorInvalid         not an event id that this system could have issued
        * NotFound              no such generation, or not the asker's
        * Expired               known, but past its retention
        * TooLarge              a file beyond its limit
        * OwnerFilesFull        its owner keeps as much as one owner may
        * StorageFull           the disk of the files has too little room
        * Draining              this process stops: another one answers
    * BackendError              a model backend failed; the attempt is over
    * LeaseLost                 somebody else runs this batch, or nobody need; leaves no job
    * Unavailable               Redis cannot be reached or refuses; repeating is safe
        * FilesUnavailable      the same of where files lie

`code` is the stable name that clients see; `retryable`: whether the same thing again can help.
Expected endings of a generation are events in its log, not exceptions. The codes are listed in
docs/protocol.md.
"""

from __future__ import annotations

from shared.text.redaction import redact

QUOTED_CHARACTERS_MAX = 4_000  # of what a backend says: enough for a credential to end in it
MESSAGE_CHARACTERS_MAX = 600  # of a backend's error, as clients see it


class TailraceError(Exception):
    """Base class of all errors defined here."""

    code = "internal"
    retryable = False


class ConfigurationError(TailraceError):
    """A setting is missing, malformed or contradicts another."""

    code = "configuration"


class RequestError(TailraceError):
    """A request that is answered with a 4xx or 5xx.

    Args:
        status: the HTTP status.
        code: stable name, lower case with underscores.
        message: for a person; says what to do.
        retry_after_s: seconds for the `Retry-After` header, when waiting can help.
    """

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
    """413 and not 409 or 429: clients repeat those by themselves, and would send the file again."""

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
    """This process stops and takes nothing new; another one answers."""

    def __init__(self) -> None:
        super().__init__(
            503,
            "draining",
            "this node is stopping: ask again, another one answers",
            retryable=True,
            retry_after_s=1,
        )


class BackendError(TailraceError):
    """A backend failed; ends the attempt.

    Its message is what clients and logs are shown, and it may quote what a model server has sent.
    So this is the one place where credentials are taken out of it, whatever backend raises it; and
    only then is it cut, so that no half of one is left.

    Args:
        code: `upstream_error`, `upstream_timeout`, `upstream_refused`, `answer_too_large`, …
        retryable: another attempt can help (not after a 4xx other than 408 and 429).
        retry_after_s: what the backend asked for, seconds.
    """

    def __init__(
        self, code: str, message: str, *, retryable: bool = True, retry_after_s: float | None = None
    ) -> None:
        message = redact(message[:QUOTED_CHARACTERS_MAX])[:MESSAGE_CHARACTERS_MAX]
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable
        self.retry_after_s = retry_after_s


class LeaseLost(TailraceError):
    """The caller is no longer the holder of what it runs: it must write nothing more."""


class Unavailable(TailraceError):
    """Redis did not answer, or refused for lack of memory. The call may have happened."""

    code = "unavailable"
    retryable = True


class FilesUnavailable(Unavailable):
    """Where files lie did not answer, or refused."""
