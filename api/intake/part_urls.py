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
from shared.config.settings import Settings
from shared.config.url_hosts import NONE, UrlHosts, read_hosts
from shared.log.request import Request

# Words for a model, and names that only look like addresses (JSON Schema).
TEXTS = frozenset(
    (
        "text", "content", "refusal", "reasoning", "reasoning_content", "thinking", "arguments",
        "description", "stop", "$schema", "$id",
    )
)  # fmt: skip
_ADDRESSES = ("url", "uri")  # also with an s at the end
_HOLDING = (dict, list)
LOOKED_AT_MAX = 5_000  # strings with a colon: a body of a megabyte could hold forty times as many
_LAST_LETTERS = frozenset("lisLIS")
_WEB = ("http", "https")
# Parsers drop what stands around, and tabs and line ends anywhere.
_DROPPED = "".join(map(chr, range(33)))
_DROPPING = str.maketrans("", "", _DROPPED)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,31}", re.IGNORECASE | re.ASCII)

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

    Without recursion: how deep it goes is the client's choice. A body of a megabyte has hundreds of
    thousands of places, so each costs little: trails become text only when they are shown.

    Raises:
        RequestError: 422, more could be a URL than is looked at.
    """
    looked_at = 0
    waiting: list[tuple[Trail, str, Any]] = [(None, "", value)]
    while waiting:
        trail, name, found = waiting.pop()
        # What stands in an array has the array's name: `image_urls`, `stop`.
        places = _in_array(name, found) if type(found) is list else _in_object(found)
        for key, inner_name, inner in places:
            if type(inner) in _HOLDING:
                waiting.append(((trail, key), inner_name, inner))
                continue
            looked_at += 1
            if looked_at > LOOKED_AT_MAX:
                raise request_error(
                    "invalid_request", f"more than {LOOKED_AT_MAX} strings could be URLs"
                )
            if type(inner) is str and _is_url(inner_name, inner) and not hosts.allows(inner):
                return _shown((trail, key))
    return None


def _in_object(found: dict[str, Any]) -> Iterable[tuple[str | int, str, Any]]:
    """The members that could be URLs or hold one: key, name, value."""
    return (
        (key, key, inner)
        for key, inner in found.items()
        if ((kind := type(inner)) is str and (":" in inner or _names_address(key)))
        or ((kind is dict or kind is list) and inner)
    )


def _in_array(name: str, found: list[Any]) -> Iterable[tuple[str | int, str, Any]]:
    # Long arrays of numbers or words are told at once, or a megabyte of them would hold the loop.
    kinds = set(map(type, found))
    if kinds.isdisjoint((dict, list, str)):
        return []
    if kinds == {str} and not _names_address(name) and ":" not in "".join(found):
        return []
    if name in TEXTS:
        return ((at, name, inner) for at, inner in enumerate(found) if type(inner) in _HOLDING)
    if _names_address(name):
        return ((at, name, inner) for at, inner in enumerate(found) if inner)
    return (
        (at, name, inner)
        for at, inner in enumerate(found)
        if ((kind := type(inner)) is str and ":" in inner)
        or ((kind is dict or kind is list) and inner)
    )


def _names_address(name: str) -> bool:
    if name[-1:] not in _LAST_LETTERS or name in TEXTS:
        return False
    return name[-4:].lower().rstrip("s").endswith(_ADDRESSES)


def _is_url(name: str, value: str) -> bool:
    if name in TEXTS or not value:
        return False
    if _names_address(name):
        return True
    raw, colon, rest = value.partition(":")
    scheme = raw.translate(_DROPPING)
    if not colon or _SCHEME.fullmatch(scheme) is None:
        return False
    return scheme.lower() in _WEB or rest.lstrip(_DROPPED)[:1] in ("/", "\\")


def _shown(trail: Trail) -> str:
    """Return `messages[2].content[1].image_url.url`."""
    words: list[str] = []
    while trail is not None:
        trail, key = trail
        words.append(f"[{key}]" if isinstance(key, int) else f".{key[:80]}")
    return "".join(reversed(words)).removeprefix(".")[:300]
