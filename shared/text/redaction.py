"""Takes credentials out of texts that come from outside, before a client or a log shows them.

A model server quotes the key that it refuses, an HTTP library the URL with its password, Redis the
command that it did not like. Two rules: what this process knows to be a secret is found as it is
(`remember`), and what looks like a credential is found by its form. A known secret of some length
is also found by its beginning, because servers cut what they quote. Invariant: redacting comes
before cutting, so that no half of a key is left at the end.

What is known is kept for the process, as logging is: a secret is one wherever it turns up.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

MASK = "***"
KNOWN_MIN = 4  # characters; what is shorter would be found in every other word
WORD_MAX = 8  # a secret that is shorter than this is found as a whole word only
BEGINNING = 8  # so much of a longer secret tells it
LONG_MIN = 16  # characters of a secret that is told by its beginning

_VALUE = r"[^\s&\"'\\,;)\]}<>]+"
_NAMES = (
    r"(?:keys?|token|secret|password|passwd|pwd|sig|signature|credentials?|auth|authorization|jwt)"
)


class _Form(NamedTuple):
    """What a credential looks like.

    Attributes:
        signs: one of them is in the text, in lower case, or the pattern need not be tried: most
            log lines have none of them.
    """

    signs: tuple[str, ...]
    pattern: re.Pattern[str]
    mask: str


_FORMS = (
    # In a query: ?key=…, &X-Amz-Signature=…; and the node's own, wherever it stands.
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
    _Form(("bearer",), re.compile(rf"(?i)(\bbearer(?:[ +]|%20)+){_VALUE}"), r"\1" + MASK),
    # What many services begin their keys with, and a JSON web token.
    _Form(
        ("k-", "k_", "xai", "whsec", "fw_"),
        re.compile(r"\b(?:sk|pk|rk|gsk|xai|whsec|csk|fw)[-_][\w-]{6,}[\w/+=-]*"),
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
    """Let these be taken out of every text from now on; empty and very short ones are left out."""
    global _known_pattern  # one process, one set of secrets: see the module
    wanted = {secret for secret in secrets if len(secret) >= KNOWN_MIN} - _known
    if wanted:
        _known.update(wanted)
        longest_first = sorted(map(_form_of, _known), key=len, reverse=True)
        _known_pattern = re.compile("|".join(longest_first), re.IGNORECASE)


def remember_url(url: str) -> None:
    """Remember the password in a URL, as it stands there and as it is meant."""
    try:
        password = urlsplit(url).password or ""
    except ValueError:
        return
    remember(password, unquote(password))


def redact(text: str) -> str:
    """Return `text` without what is, or looks like, a credential."""
    if _known_pattern is not None:
        text = _known_pattern.sub(MASK, text)
    lowered = text.lower()
    for signs, pattern, mask in _FORMS:
        if any(sign in lowered for sign in signs):
            text = pattern.sub(mask, text)
    return text


def _form_of(secret: str) -> str:
    """Return the expression that finds a secret, also as JSON or a URL has it."""
    if len(secret) < WORD_MAX:
        return rf"(?<![^\W_]){re.escape(secret)}(?![^\W_])"
    spellings = {secret, json.dumps(secret)[1:-1], quote(secret, safe="")}
    if len(secret) < LONG_MIN:
        return "|".join(map(re.escape, sorted(spellings, key=len, reverse=True)))
    whole = sorted(map(re.escape, spellings), key=len, reverse=True)
    return "|".join([*whole, re.escape(secret[:BEGINNING]) + r"[^\s\"'\\,;)\]}<>&]*"])
