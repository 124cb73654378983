"""Checks the URLs in a prompt against a list of hosts: a model server may fetch such URLs.

Invariant: the request of every dialect and of every line of a batch passes `check_urls`. A string
counts as a URL if it begins like a URL (`http://`, `file://`, …), or if its name ends in `url` or
`uri`. Text for the model (`content`, `text`, `arguments`, …) is not checked. Pure.
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

# Names of text for the model, and names that only look like addresses (JSON Schema).
TEXT_NAMES = frozenset(
    (
        "text", "content", "refusal", "reasoning", "reasoning_content", "thinking", "arguments",
        "description", "stop", "$schema", "$id",
    )
)  # fmt: skip
_ADDRESS_ENDINGS = ("url", "uri")  # also with an s after them
_CONTAINERS = (dict, list)
# Strings that are checked in one request. A body of one megabyte could hold 40 times as many, and
# checking those would block the event loop.
CHECKED_STRINGS_MAX = 5_000
_LAST_LETTERS = frozenset("lisLIS")  # of a name that ends in url, uri, urls or uris
_WEB_SCHEMES = ("http", "https")
# URL parsers remove control characters and spaces around a URL, and tabs and line ends inside it.
_IGNORED = "".join(map(chr, range(33)))
_WITHOUT_IGNORED = str.maketrans("", "", _IGNORED)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,31}", re.IGNORECASE | re.ASCII)

# The keys that lead to a value, as a linked list, the last key first; None: the request itself.
Trail: TypeAlias = "tuple[Trail, str | int] | None"


def check_urls(request: Request, settings: Settings) -> None:
    """Check that all URLs of a prompt are allowed by the setting `part_urls`.

    Raises:
        RequestError: 422, a URL is not allowed (the message names its place), or more than
            `CHECKED_STRINGS_MAX` strings could be URLs.
    """
    hosts = read_hosts(settings.part_urls)
    if hosts.is_any:
        return
    where = _refused_place({"messages": request.messages, "params": request.params}, hosts)
    if where is None:
        return
    if settings.part_urls.strip().lower() == NONE:
        what = "only data: URLs may be used here"
    else:
        what = "only data: URLs, and http or https URLs of the hosts that the operator lists"
    raise request_error("invalid_request", f"{where}: {what}")


def _refused_place(value: dict[str, Any], hosts: UrlHosts) -> str | None:
    """Return the place of a URL that is not allowed; None: there is no such URL.

    Without recursion, because the client chooses the depth. A body of one megabyte has hundreds of
    thousands of values, so the work for each is small: only the trail of the result becomes text.

    Raises:
        RequestError: 422, more than `CHECKED_STRINGS_MAX` strings could be URLs.
    """
    checked = 0
    containers: list[tuple[Trail, str, Any]] = [(None, "", value)]
    while containers:
        trail, name, container = containers.pop()
        # The items of an array have the array's name: `image_urls`, `stop`.
        is_array = type(container) is list
        candidates = _in_array(name, container) if is_array else _in_object(container)
        for key, inner_name, inner in candidates:
            if type(inner) in _CONTAINERS:
                containers.append(((trail, key), inner_name, inner))
                continue
            checked += 1
            if checked > CHECKED_STRINGS_MAX:
                raise request_error(
                    "invalid_request", f"more than {CHECKED_STRINGS_MAX} strings could be URLs"
                )
            if type(inner) is str and _is_url(inner_name, inner) and not hosts.allows(inner):
                return _path_of((trail, key))
    return None


def _in_object(container: dict[str, Any]) -> Iterable[tuple[str | int, str, Any]]:
    """Return the members that could be a URL or contain one: key, name, value."""
    return (
        (key, key, inner)
        for key, inner in container.items()
        if ((kind := type(inner)) is str and (":" in inner or _names_address(key)))
        or ((kind is dict or kind is list) and inner)
    )


def _in_array(name: str, items: list[Any]) -> Iterable[tuple[str | int, str, Any]]:
    """Return the items that could be a URL or contain one: index, the array's name, value."""
    # Long arrays of numbers or words are skipped in C: a Python loop over a megabyte of them would
    # block the event loop.
    kinds = set(map(type, items))
    if kinds.isdisjoint((dict, list, str)):
        return []
    if kinds == {str} and not _names_address(name) and ":" not in "".join(items):
        return []
    if name in TEXT_NAMES:
        return ((at, name, inner) for at, inner in enumerate(items) if type(inner) in _CONTAINERS)
    if _names_address(name):
        return ((at, name, inner) for at, inner in enumerate(items) if inner)
    return (
        (at, name, inner)
        for at, inner in enumerate(items)
        if ((kind := type(inner)) is str and ":" in inner)
        or ((kind is dict or kind is list) and inner)
    )


def _names_address(name: str) -> bool:
    if name[-1:] not in _LAST_LETTERS or name in TEXT_NAMES:
        return False
    return name[-4:].lower().rstrip("s").endswith(_ADDRESS_ENDINGS)


def _is_url(name: str, value: str) -> bool:
    if name in TEXT_NAMES or not value:
        return False
    if _names_address(name):
        return True
    raw, colon, rest = value.partition(":")
    scheme = raw.translate(_WITHOUT_IGNORED)
    if not colon or _SCHEME.fullmatch(scheme) is None:
        return False
    return scheme.lower() in _WEB_SCHEMES or rest.lstrip(_IGNORED)[:1] in ("/", "\\")


def _path_of(trail: Trail) -> str:
    """Return a path such as `messages[2].content[1].image_url.url`, at most 300 characters."""
    words: list[str] = []
    while trail is not None:
        trail, key = trail
        words.append(f"[{key}]" if isinstance(key, int) else f".{key[:80]}")
    return "".join(reversed(words)).removeprefix(".")[:300]
