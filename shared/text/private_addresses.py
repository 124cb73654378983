"""Removes addresses inside the operator's network from foreign text, before a client sees it.

A gateway quotes the errors of its own HTTP client: `Cannot connect to host vllm-7b:8000`. This
module replaces private addresses, names with an ending of private networks, the hosts of URLs that
are private or have one label, and the hosts that HTTP libraries name. Public hosts stay, because
the servers' advice has links. Pure.
"""

from __future__ import annotations

import re

from shared.text.addresses import as_address, is_plainly_private, is_public
from shared.text.redaction import MASK

_PRIVATE_ENDINGS = (".svc", ".lan", ".corp", ".test", ".invalid")

_URL = re.compile(r"\b([a-z][a-z0-9+.-]{1,15}://)([^\s/\"'<>\\?#,;)]+)", re.IGNORECASE)
# aiohttp: host vllm:8000; urllib3: (host='vllm', port=8000).
_HOST = re.compile(
    r"\b(host(?: |='|=|: ))([\w.-]{1,253})('?(?:, port=|:))(\d{1,5})\b", re.IGNORECASE
)
# Names that exist only inside a network: gpu3.local, redis.prod.svc.cluster.local:6379. Not the
# last part of a URL's path, and not a call such as threading.local().
_NAME = re.compile(
    r"(?<![\w./-])(?:[a-z0-9_-]{1,63}\.){1,8}"
    r"(?:local|internal|localdomain|home\.arpa|svc|lan|corp)(?::\d{1,5})?(?![\w(-]|\.\w)",
    re.IGNORECASE,
)
_IPV4 = re.compile(r"(?<![\w.])(\d{1,3}(?:\.\d{1,3}){3})(?::\d{1,5})?(?!\w|\.\d)")
_IPV6 = re.compile(
    r"\[([0-9a-f:.]{2,45})\](?::\d{1,5})?|(?<![\w:.])((?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4})(?![\w:])",
    re.IGNORECASE,
)


def hide_private(text: str) -> str:
    """Replace private addresses and hosts, with their ports, by `***`."""
    if ":" in text:
        text = _URL.sub(_without_host, text)
        text = _HOST.sub(rf"\1{MASK}\3{MASK}", text)
        text = _IPV6.sub(_without_address, text)
    text = _NAME.sub(MASK, text)
    return _IPV4.sub(_without_address, text)


def _without_host(match: re.Match[str]) -> str:
    place = match[2].rpartition("@")[2]
    host = place.partition("]")[0] + "]" if place.startswith("[") else place.partition(":")[0]
    return f"{match[1]}{MASK}" if _is_private_host(host.rstrip(".")) else match[0]


def _is_private_host(host: str) -> bool:
    if host.lower().endswith(_PRIVATE_ENDINGS):
        return True
    return host != MASK and ("." not in host or is_plainly_private(host))


def _without_address(match: re.Match[str]) -> str:
    found = match[1] or match[match.lastindex or 1]
    is_hidden = as_address(found) is not None and not is_public(found)
    return MASK if is_hidden else match[0]
