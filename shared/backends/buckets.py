"""Buckets of values, so that the percentiles of several workers can be joined. Pure.

A bucket is a power of `RATIO`, so a percentile is off by 5 % at most. Values are 1e-6 to 1e9.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

RATIO = 1.1
_LOG = math.log(RATIO)


def bucket_of(value: float) -> int:
    """Return the bucket of a value."""
    return round(math.log(min(max(value, 1e-6), 1e9)) / _LOG)


def value_of(bucket: int) -> float:
    """Return the middle of a bucket."""
    return math.exp(bucket * _LOG)


def percentile(buckets: Mapping[int, int], share: float) -> float | None:
    """Return the value below which `share` of the values lie, from 0 to 1; None: there are none."""
    total = sum(buckets.values())
    passed = 0
    for bucket in sorted(buckets):
        passed += buckets[bucket]
        if passed >= share * total:
            return value_of(bucket)
    return None
