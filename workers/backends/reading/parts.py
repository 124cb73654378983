"""Reads the content of chat messages for kinds whose servers take another form. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from shared.errors import BackendError, Refusal, for_clients

T = TypeVar("T")


def refused(message: str, param: str | None = None) -> BackendError:
    """Return the failure for a request that a kind of server cannot take; the client can act."""
    upstream = Refusal(for_clients(message), 400, None, "invalid_request_error", param)
    return BackendError("upstream_refused", message, retryable=False, upstream=upstream)


def text_of(content: Any, where: str, picture: Callable[[str, str], T]) -> tuple[str, list[T]]:
    """Return the text of a message and its pictures.

    Args:
        content: a text, a list of parts, or nothing.
        where: the place of the message, for messages to the client.
        picture: receives the URL of a picture and its place; returns what to keep.

    Raises:
        BackendError: `upstream_refused`: a part of another type, or a picture that is refused.
    """
    if isinstance(content, str) or not content:
        return content or "", []
    texts: list[str] = []
    pictures: list[T] = []
    for at, part in enumerate(content if isinstance(content, list) else [content]):
        place = f"{where}.content[{at}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("text", "input_text", "output_text") and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "image_url":
            image = part.get("image_url")
            url = image.get("url") if isinstance(image, dict) else image
            pictures.append(picture(str(url or ""), place))
        else:
            raise refused(f"{place}: parts of the type {kind!r} have no form for this model")
    return "\n".join(texts), pictures
