"""JSON from outside, decoded as strictly as the log needs it.

What is JSON here: UTF-8 without a byte order mark, at most 32 levels deep, integers within 64 bits,
floats that are finite, no NaN or Infinity. Of duplicate names the last wins. What comes out can
always be encoded again. Pure; knows nothing of what the JSON means. Source: RFC 8259.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from api.errors import request_error
from shared.errors import RequestError

DEPTH_MAX = 32
ESCAPES_MAX = 20_000  # in what is no JSON; with more of them it is not asked any further why

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_ROUND = bytes.maketrans(b"[{]}", b"(())")
_NO_BRACKET = bytes(set(range(256)) - set(b"[{]}"))
_MANY_DIGITS = re.compile(rb"[0-9]{19}")
# A whole integer token of 19 digits or more; a fraction or an exponent makes it a float.
_LONG_INTEGER = re.compile(rb"(?<![0-9.eE+\-])-?[0-9]{19,}+(?![.eE])")
_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a pair: a character
    rb"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"  # a lone half: none
    rb"|\\.",
    re.DOTALL,
)


def decode_json(raw: bytes | str) -> Any:
    """Decode JSON as strictly as the module says.

    Raises:
        RequestError: 400 `invalid_json`; 422 when it is JSON, but a string in it holds half a
            surrogate pair, which no UTF-8 can carry on.
    """
    raw = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw
    try:
        value = msgspec.json.decode(raw)
    except RecursionError:
        raise _too_deep() from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        if mend_surrogates(raw) is not None:
            raise request_error(
                "invalid_request", "a string holds a lone surrogate (\\ud800 to \\udfff)"
            ) from None
        raise request_error("invalid_json", f"the body is not JSON: {exc}") from None
    _check_bounds(raw)
    return value


def mend_surrogates(raw: bytes) -> bytes | None:
    """Return `raw` with U+FFFD for each lone surrogate; None: they are not all that is wrong."""
    if raw.count(b"\\") > ESCAPES_MAX:
        return None

    def mend(match: re.Match[bytes]) -> bytes:
        escape = match[0]
        return b"\\ufffd" if len(escape) == 6 else escape

    mended = _ESCAPE.sub(mend, raw)
    if mended == raw:
        return None
    try:
        msgspec.json.decode(mended)
    except (ValueError, RecursionError):
        return None
    return mended


def _check_bounds(raw: bytes) -> None:
    """Check depth and integers on the text itself: cheaper than walking the tree, and no recursion.

    `raw` has been decoded, so its strings are closed, its brackets match, and the patterns run in
    linear time. Nothing is done once per bracket in Python: a body may have a million of them.
    """
    bare = _STRING.sub(b"", raw)
    brackets = bare.translate(_ROUND, _NO_BRACKET)
    for _ in range(DEPTH_MAX):
        if not brackets:
            break
        brackets = brackets.replace(b"()", b"")  # the innermost of each branch
    if brackets:
        raise _too_deep()
    if _MANY_DIGITS.search(bare) is None:
        return
    for match in _LONG_INTEGER.finditer(bare):
        if len(match[0]) > 20 or not -(2**63) <= int(match[0]) < 2**64:
            raise request_error("invalid_json", "an integer does not fit 64 bits")


def _too_deep() -> RequestError:
    return request_error("invalid_json", f"nested more than {DEPTH_MAX} levels deep")
