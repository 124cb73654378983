"""Bodies of a megabyte, each the worst of its kind for whoever reads it.

`REFUSED` have more values than a node decodes; `HEAVIEST` are the heaviest that it accepts, built
for the bound that docs/protocol.md names. Does not import the system under test.
"""

from __future__ import annotations

MB = 1_048_000  # below the limit of a body
VALUES_MAX = 50_000  # docs/protocol.md, "Limits"
PARAMS = b'{"prompt":"x","params":{"a":['
MESSAGE = b'{"role":"user","content":"x"},'
PART = b'{"type":"text","text":"x"},'


def full(begin: bytes, unit: bytes, end: bytes) -> bytes:
    """As many units as a megabyte holds."""
    return begin + unit * ((MB - len(begin) - len(end)) // len(unit)) + end


def heaviest(begin: bytes, unit: bytes, end: bytes, values: int) -> bytes:
    """As many units as may be, of so many values each, and spaces up to a megabyte."""
    body = begin + unit * ((VALUES_MAX - 30) // values) + end
    return body + b" " * (MB - len(body))


REFUSED = {
    "flat brackets": full(PARAMS, b"[],", b"1]}}"),
    "nested brackets": full(PARAMS, b"[" * 25 + b"]" * 25 + b",", b"1]}}"),
    "objects": full(PARAMS, b'{"a":{}},', b"1]}}"),
    "numbers": full(PARAMS, b"1,", b"1]}}"),
    "long integers": full(PARAMS, b"1234567890123456789,", b"1]}}"),
    # A decoder takes a slow way for each.
    "numbers at the edge of what can be": full(PARAMS, b"1e300,", b"1]}}"),
    "the same without an exponent": full(PARAMS, b"0." + b"0" * 300 + b"1,", b"1]}}"),
    "strings": full(PARAMS, b'"",', b"1]}}"),
    "names": full(b'{"prompt":"x","params":{', b'"a":1,', b'"b":1}}'),
    "messages": full(b'{"messages":[', MESSAGE, MESSAGE[:-1] + b"]}"),
    "half a pair, then brackets": full(b'{"prompt":"\\ud800","params":{"a":[', b"[],", b"1]}}"),
}
HEAVIEST = {
    "flat brackets": heaviest(PARAMS, b"[],", b"1]}}", 2),
    "nested brackets": heaviest(PARAMS, b"[" * 25 + b"]" * 25 + b",", b"1]}}", 26),
    "deeply nested brackets": heaviest(PARAMS, b"[" * 124 + b"]" * 124 + b",", b"1]}}", 125),
    "objects": heaviest(PARAMS, b'{"a":{}},', b"1]}}", 4),
    "long integers": heaviest(PARAMS, b"1234567890123456789,", b"1]}}", 21),
    "slow numbers": heaviest(PARAMS, b"1e300,", b"1]}}", 101),
    "messages": heaviest(b'{"messages":[', MESSAGE, MESSAGE[:-1] + b"]}", 5),
    "parts": heaviest(b'{"messages":[{"role":"user","content":[', PART, PART[:-1] + b"]}]}", 5),
    "escapes": full(b'{"prompt":"', rb"\n", b'"}'),
    "escaped quotes": full(b'{"prompt":"', rb"\"", b'"}'),
    "a long word": full(b'{"prompt":"', b"x", b'"}'),
    "spaces": full(b'{"prompt":"x', b" ", b'"}'),
}
