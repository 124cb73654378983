"""JSON from outside, decoded as strictly as the log needs it.

What is JSON here: UTF-8 without a byte order mark, at most 32 levels deep, integers within 64 bits,
floats that are finite, no NaN or Infinity, and no more values than a node can decode while others
wait. Of duplicate names the last wins. What comes out can always be encoded again.

Invariant: the time that a decoding takes is bounded: the values are counted before
(shared/text/json_values.py). Nothing here is done once per byte or per bracket in Python.
Pure; knows nothing of what the JSON means. Source: RFC 8259.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from api.errors import request_error
from shared.errors import RequestError
from shared.text.json_values import (
    VALUES_MAX,
    count_values,
    has_too_many_values,
    long_runs,
    without_strings,
)

DEPTH_MAX = 32
ESCAPES_MAX = 20_000  # in what is no JSON; with more of them it is not asked any further why

_ROUND = bytes.maketrans(b"[{]}", b"(())")
_NO_BRACKET = bytes(set(range(256)) - set(b"[{]}"))
# A whole integer token of 19 digits or more; a fraction or an exponent makes it a float.
_LONG_INTEGER = re.compile(rb"(?<![0-9.eE+\-])-?[0-9]{19,}+(?![.eE])")
# Half of a pair without the other half. No backslash before it may be an escaped one.
_LONE_SURROGATE = re.compile(
    rb"\\u[dD](?:"
    rb"[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD])[c-fC-F][0-9a-fA-F]{2})"
)


def decode_json(raw: bytes | str) -> Any:
    """Decode JSON as strictly as the module says.

    Raises:
        RequestError: 400 `invalid_json`; 422 when it is JSON, but a string in it holds half a
            surrogate pair, which no UTF-8 can carry on.
    """
    raw = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw
    bare = check_values(raw)
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
    _check_depth(bare)
    _check_integers(bare)
    return value


def check_values(raw: bytes | str) -> bytes:
    """Check that JSON has no more values than may be decoded at once.

    Returns what stands outside of its strings, for further checks.

    Raises:
        RequestError: 400 `invalid_json`.
    """
    raw = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw
    bare = without_strings(raw)
    if bare is None or count_values(bare) > VALUES_MAX:
        raise request_error(
            "invalid_json", f"more than {VALUES_MAX} values: send less, or data as one string"
        )
    return bare


def mend_surrogates(raw: bytes) -> bytes | None:
    """Return `raw` with U+FFFD for each lone surrogate; None: they are not all that is wrong."""
    if raw.count(b"\\") > ESCAPES_MAX or has_too_many_values(raw):
        return None
    # Written otherwise, an escaped backslash cannot be taken for the beginning of an escape.
    plain = raw.replace(rb"\\", rb"\u005c")
    mended = _LONE_SURROGATE.sub(rb"\\ufffd", plain)
    if mended == plain:
        return None
    try:
        msgspec.json.decode(mended)
    except (ValueError, RecursionError):
        return None
    return mended


def _check_depth(bare: bytes) -> None:
    """Check on the text itself: cheaper than walking the tree, and no recursion.

    It has been decoded, so its brackets match.
    """
    brackets = bare.translate(_ROUND, _NO_BRACKET)
    for _ in range(DEPTH_MAX):
        if not brackets:
            return
        brackets = brackets.replace(b"()", b"")  # the innermost of each branch
    if brackets:
        raise _too_deep()


def _check_integers(bare: bytes) -> None:
    if not long_runs(bare):
        return
    for found in _LONG_INTEGER.findall(bare):
        if len(found) > 20 or not -(2**63) <= int(found) < 2**64:
            raise request_error("invalid_json", "an integer does not fit 64 bits")


def _too_deep() -> RequestError:
    return request_error("invalid_json", f"nested more than {DEPTH_MAX} levels deep")
