"""Decodes JSON from clients, with the limits that the log needs.

Accepted: UTF-8 without a byte order mark, at most 128 levels deep, integers within 64 bits, finite
floats, no NaN or Infinity, and at most `VALUES_MAX` values, so that decoding does not block the
event loop for long. If a name is repeated in an object, the last value wins. Every decoded value
can be encoded again.

Invariant: the time of one decoding is bounded, because the values are counted before the decoding
(shared/text/json_values.py). No Python code here runs once per byte or per bracket.
Pure; does not know what the JSON means. Source: RFC 8259.
"""

from __future__ import annotations

import re
from itertools import accumulate
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

DEPTH_MAX = 128  # schemas of tools that are generated from code go deeper than 32
# Backslashes in a text that is not JSON; with more of them `mend_surrogates` does not look for lone
# surrogates.
ESCAPES_MAX = 20_000

_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # +1 and -1 as signed bytes
_NO_BRACKET = bytes(set(range(256)) - set(b"[{]}"))
# A complete integer token of 19 digits or more; with a fraction or an exponent it is a float.
_LONG_INTEGER = re.compile(rb"(?<![0-9.eE+\-])-?[0-9]{19,}+(?![.eE])")
# A surrogate without its other half. Only for texts without escaped backslashes.
_LONE_SURROGATE = re.compile(
    rb"\\u[dD](?:"
    rb"[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD])[c-fC-F][0-9a-fA-F]{2})"
)


def decode_json(raw: bytes | str, *, bare: bytes | None = None) -> Any:
    """Decode JSON within the limits of this module.

    Args:
        bare: the text without its strings, if its values have been counted already.

    Raises:
        RequestError: 400 `invalid_json`; 422 if the text is JSON, but a string has a lone
            surrogate, which UTF-8 cannot encode.
    """
    raw = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw
    bare = check_values(raw) if bare is None else bare
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
    """Check that JSON has at most `VALUES_MAX` values.

    Returns:
        The text without its strings, for further checks.

    Raises:
        RequestError: 400 `invalid_json`, more values.
    """
    raw = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw
    bare = without_strings(raw)
    if bare is None:
        raise too_many_values()
    check_bare(bare)
    return bare


def check_bare(bare: bytes) -> None:
    """Check the number of values in a text without strings.

    Raises:
        RequestError: 400 `invalid_json`, more than `VALUES_MAX`.
    """
    if count_values(bare) > VALUES_MAX:
        raise too_many_values()


def too_many_values() -> RequestError:
    """Return the 400 error for JSON with more than `VALUES_MAX` values."""
    return request_error(
        "invalid_json", f"more than {VALUES_MAX} values: send fewer, or send data as one string"
    )


def mend_surrogates(raw: bytes) -> bytes | None:
    """Return `raw` with U+FFFD for each lone surrogate.

    Returns:
        None: `raw` has no lone surrogate, has another error too, or is too large to search.
    """
    if raw.count(b"\\") > ESCAPES_MAX or has_too_many_values(raw):
        return None
    # `\\` becomes `\u005c`, so that every backslash in the text begins an escape.
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
    """Check the depth of a text whose brackets match (it has been decoded).

    The check works on the text: that is cheaper than a walk through the values, and needs no
    recursion. The depth at a bracket is the sum of the steps up to it. The time does not depend on
    the depth.
    """
    steps = memoryview(bare.translate(_STEPS, _NO_BRACKET)).cast("b")
    if max(accumulate(steps), default=0) > DEPTH_MAX:
        raise _too_deep()


def _check_integers(bare: bytes) -> None:
    if not long_runs(bare):
        return
    for found in _LONG_INTEGER.findall(bare):
        if len(found) > 20 or not -(2**63) <= int(found) < 2**64:
            raise request_error("invalid_json", "an integer does not fit 64 bits")


def _too_deep() -> RequestError:
    return request_error("invalid_json", f"nested more than {DEPTH_MAX} levels deep")
