"""Removes credentials from foreign text, before a client or a log shows it.

A model server quotes the key that it refuses, an HTTP library quotes the URL with its password,
Redis quotes the command that it refuses. Two rules find credentials: `remember` tells this module
the secrets of this process, and patterns match the forms of common credentials. A long secret is
also found by its beginning, because servers cut their quotes. Invariant: callers redact before they
cut, so that no part of a key remains at the end.

The known secrets are state of the process, as logging is: a secret must not appear anywhere.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple
from urllib.parse import quote, unquote

MASK = "***"
KNOWN_MIN = 4  # characters; a shorter secret would match inside many words
WORD_MAX = 8  # characters; a shorter secret matches only as a whole word
BEGINNING = 8  # first characters by which a long secret is found
LONG_MIN = 16  # characters; from this length on a secret is also found by its beginning

_VALUE = r"[^\s&\"'\\,;)\]}<>]+"
_NAMES = (
    r"(?:keys?|token|secret|password|passwd|pwd|sig|signature|credentials?|auth|authorization|jwt)"
)


class _Form(NamedTuple):
    """The form of a credential.

    Attributes:
        signs: lower case. If the text holds none of them, `pattern` is not tried; most log lines
            hold none.
        pattern: matches the credential and its name.
        mask: the replacement of a match.
    """

    signs: tuple[str, ...]
    pattern: re.Pattern[str]
    mask: str


_FORMS = (
    # In a query: ?key=…, &X-Amz-Signature=…; and access_token=… of a node anywhere.
    _Form(
        ("=",),
        re.compile(rf"(?i)((?:[?&;](?:[\w-]{{0,40}}[-_])?{_NAMES}|\baccess_token)=){_VALUE}"),
        r"\1" + MASK,
    ),
    # A header or a member: x-api-key: …, "api_key": "…", (b'authorization', b'Basic …').
    _Form(
        ("key", "auth", "secret", "password"),
        re.compile(
            r"(?i)\b((?:[a-z]{1,20}[-_]){0,3}(?:api[-_]?key|auth[-_]token|authorization"
            r"|client[-_]secret|access[-_]key|password)"
            r"[\"']?\s{0,3}[:=,]\s{0,3}(?:b?[\"'])?"
            rf"(?:(?:basic|bearer|token|digest)(?:[ +]|%20)+)?){_VALUE}"
        ),
        r"\1" + MASK,
    ),
    # A variable: OPENAI_API_KEY=…, TAILRACE_API_KEYS=…
    _Form(
        ("key", "secret", "token", "password"),
        re.compile(
            r"\b([A-Z][A-Z0-9_]{0,60}(?:KEYS?|SECRET|TOKEN|PASSWORD)(?:\s{0,3}=\s{0,3}|[\"']?:)[\"']?)"
            + r"[^\s\"'\\]+"
        ),
        r"\1" + MASK,
    ),
    # With a dot: the subprotocol of a WebSocket that has the credentials.
    _Form(("bearer",), re.compile(rf"(?i)(\bbearer(?:[ +.]|%20)+){_VALUE}"), r"\1" + MASK),
    # The prefixes of the keys of many services; then a JSON web token.
    _Form(
        ("k-", "k_", "xai", "whsec", "fw_", "trs_"),
        re.compile(r"\b(?:sk|pk|rk|gsk|xai|whsec|csk|fw|trs)[-_][\w-]{6,}[\w/+=-]*"),
        MASK,
    ),
    _Form(
        ("hf_", "gh", "glpat", "xox", "r8_", "nvapi", "aiza", "akia", "asia"),
        re.compile(
            r"\b(?:hf_|gh[pos]_|github_pat_|glpat-|xox[a-z]-|r8_|nvapi-|AIza|AKIA|ASIA)[\w-]{8,}"
        ),
        MASK,
    ),
    _Form(("eyj",), re.compile(r"\beyJ[\w-]{6,}\.[\w-]+(?:\.[\w-]*)?"), MASK),
    # user:password@ of a URL.
    _Form(("://",), re.compile(r"(://)[^\s/\"'<>]*@"), r"\1" + MASK + "@"),
)

_known: set[str] = set()
_known_pattern: re.Pattern[str] | None = None


def remember(*secrets: str) -> None:
    """Redact these secrets from now on. Ignores secrets shorter than `KNOWN_MIN`."""
    global _known_pattern  # one set of secrets per process: see the module docstring
    new = {secret for secret in secrets if len(secret) >= KNOWN_MIN} - _known
    if new:
        _known.update(new)
        longest_first = sorted(map(_form_of, _known), key=len, reverse=True)
        _known_pattern = re.compile("|".join(longest_first), re.IGNORECASE)


def remember_url(url: str) -> None:
    """Remember the passwords before the host and in the query, percent-encoded and decoded."""
    rest, _, query = url.partition("://")[2].partition("?")
    login = rest.partition("/")[0].rpartition("@")[0]
    options = [option.partition("=") for option in query.split("&")]
    found = [login.partition(":")[2]]
    found += [value for name, _, value in options if name.endswith("password")]
    for password in found:
        remember(password, unquote(password))


def redact(text: str) -> str:
    """Replace known secrets and everything with the form of a credential by `MASK`."""
    if _known_pattern is not None:
        text = _known_pattern.sub(MASK, text)
    lowered = text.lower()
    for signs, pattern, mask in _FORMS:
        if any(sign in lowered for sign in signs):
            text = pattern.sub(mask, text)
    return text


def _form_of(secret: str) -> str:
    """Return the pattern of a secret, also in its JSON and URL encodings."""
    if len(secret) < WORD_MAX:
        return rf"(?<![^\W_]){re.escape(secret)}(?![^\W_])"
    spellings = {secret, json.dumps(secret)[1:-1], quote(secret, safe="")}
    if len(secret) < LONG_MIN:
        return "|".join(map(re.escape, sorted(spellings, key=len, reverse=True)))
    whole = sorted(map(re.escape, spellings), key=len, reverse=True)
    return "|".join([*whole, re.escape(secret[:BEGINNING]) + r"[^\s\"'\\,;)\]}<>&]*"])
