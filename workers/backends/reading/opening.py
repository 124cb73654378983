"""Keeps the beginning of an answer until its first choice, or a whole document. Pure.

A server may send something else than a stream: one JSON document, an array, an HTML page, plain
text. If no part of an answer comes, the failure quotes the bytes that are kept here.
"""

from __future__ import annotations

from shared.errors import BackendError
from workers.backends.reading.error_body import MESSAGE_MAX, read_error

# A line of an event stream never begins so. Content types are less reliable.
_DOCUMENT = (b"{", b"[", b"<")


class Opening:
    """The beginning of one answer.

    Args:
        document_bytes_max: longest document, bytes.
    """

    def __init__(self, document_bytes_max: int) -> None:
        self._document_bytes_max = document_bytes_max
        self._kept = bytearray()
        self._has_begun = self._is_document = self._has_choice = False

    @property
    def has_choice(self) -> bool:
        """Whether a part of an answer has come."""
        return self._has_choice

    @property
    def document(self) -> bytes | None:
        """The bytes of the document; None: the answer is a stream."""
        return bytes(self._kept) if self._is_document else None

    def trim(self, data: bytes) -> bytes:
        """Return `data` without the white space that some servers send before an answer."""
        if not self._has_begun:
            data = data.lstrip()
            self._has_begun = bool(data)
            self._is_document = data.startswith(_DOCUMENT)
        return data

    def keep(self, data: bytes) -> bool:
        """Keep what is needed of `data`; return whether it belongs to a document.

        Raises:
            BackendError: the document is too long.
        """
        if self._is_document:
            self._kept += data
            if len(self._kept) > self._document_bytes_max:
                raise BackendError(
                    "answer_too_large",
                    f"the answer is longer than {self._document_bytes_max} bytes;"
                    " TAILRACE_ANSWER_BYTES_MAX of the worker sets this limit",
                    retryable=False,
                )
        elif not self._has_choice:
            self._kept += data[: MESSAGE_MAX - len(self._kept)]
        return self._is_document

    def note_choice(self) -> None:
        """Note that a part of an answer has come: nothing is quoted from now on."""
        self._has_choice = True

    def describe_end(self) -> str:
        """Return why an answer that has ended is not complete."""
        if self._has_choice:
            return "the backend's answer broke off without a finish_reason"
        if not self._kept:
            return "the backend's answer is empty"
        return f"the backend's answer has no choices: {read_error(bytes(self._kept)).message}"
