"""URLs that a prompt hands to a model server, which may fetch them: held against a list of hosts.

Every dialect and every line of a batch comes through `check_urls`. What counts as a URL is anything
that begins like one (`http://`, `file://`, …) and any string under a name that ends in `url` or
`uri`; what is text to a model (`content`, `text`, `arguments`, …) is not looked at. Pure.
Source: docs/security.md, "URLs in prompts".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, TypeAlias

from api.errors import request_error
from shared.request import Request
from shared.settings import Settings
from shared.url_hosts import NONE, UrlHosts, read_hosts

# Words for a model, and names that only look like addresses (JSON Schema).
TEXTS = frozenset(
    (
        "text", "content", "refusal", "reasoning", "reasoning_content", "thinking", "arguments",
        "description", "stop", "$schema", "$id",
    )
)  # fmt: skip
_ADDRESSES = ("url", "uri")  # also with an s at the end
# Parsers drop what stands around, and tabs and line ends anywhere.
_DROPPED = re.compile(r"[\x00-\x20]+")
_SCHEME = re.compile(r"https?:|[a-z][a-z0-9+.-]*:[/\\]", re.IGNORECASE | re.ASCII)

Trail: TypeAlias = "tuple[Trail, str | int] | None"


def check_urls(request: Request, settings: Settings) -> None:
    """See that a prompt names no URL that it may not name.

    Raises:
        RequestError: 422; the message says where it stands.
    """
    hosts = read_hosts(settings.part_urls)
    if hosts.is_any:
        return
    where = _refused({"messages": request.messages, "params": request.params}, hosts)
    if where is None:
        return
    if settings.part_urls.strip().lower() == NONE:
        what = "only data: URLs may be used here"
    else:
        what = "only data: URLs, and http or https URLs of the hosts that the operator lists"
    raise request_error("invalid_request", f"{where}: {what}")


def _refused(value: dict[str, Any], hosts: UrlHosts) -> str | None:
    """Return where a URL stands that is not allowed.

    Without recursion: how deep it goes is the client's choice. A trail becomes text only when it is
    shown, because a body of a megabyte has hundreds of thousands of places.
    """
    waiting: list[tuple[Trail, str, Any]] = [(None, "", value)]
    while waiting:
        trail, name, found = waiting.pop()
        is_array = isinstance(found, list)
        inside: Iterable[tuple[Any, Any]] = enumerate(found) if is_array else found.items()
        for key, inner in inside:
            # What stands in an array has the array's name: `image_urls`, `stop`.
            inner_name = name if is_array else key
            if isinstance(inner, dict | list):
                waiting.append(((trail, key), inner_name, inner))
            elif isinstance(inner, str) and _is_url(inner_name, inner) and not hosts.allows(inner):
                return _shown((trail, key))
    return None


def _is_url(name: str, value: str) -> bool:
    if name in TEXTS or not value:
        return False
    if name[-4:].lower().rstrip("s").endswith(_ADDRESSES):
        return True
    return ":" in value and _SCHEME.match(_DROPPED.sub("", value)) is not None


def _shown(trail: Trail) -> str:
    """Return `messages[2].content[1].image_url.url`."""
    words: list[str] = []
    while trail is not None:
        trail, key = trail
        words.append(f"[{key}]" if isinstance(key, int) else f".{key[:80]}")
    return "".join(reversed(words)).removeprefix(".")[:300]
