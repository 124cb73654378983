"""A histogram of durations with fine buckets, which processes count and nodes add up. Pure.

Bucket `n` holds durations from `LEAST_S * GROWTH**n` up to the next bucket. A quantile is exact to
about 3 %. Only buckets that hold something take room.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

LEAST_S = 0.001  # shorter durations are in bucket 0
GROWTH = 1.05
BUCKET_MAX = 312  # about 70 minutes; longer durations are in this bucket, too
_LOG_GROWTH = math.log(GROWTH)

Counts = dict[int, int]  # bucket -> how many


def bucket_of(seconds: float) -> int:
    """Return the bucket of a duration."""
    if seconds <= LEAST_S:
        return 0
    return min(BUCKET_MAX, int(math.log(seconds / LEAST_S) / _LOG_GROWTH))


def add(counts: Counts, seconds: float) -> None:
    """Count one duration."""
    bucket = bucket_of(seconds)
    counts[bucket] = counts.get(bucket, 0) + 1


def since(now: Mapping[int, int], before: Mapping[int, int]) -> Counts:
    """Return what a histogram has counted since an earlier reading of the same process."""
    found = {bucket: count - before.get(bucket, 0) for bucket, count in now.items()}
    return {bucket: count for bucket, count in found.items() if count > 0}


def merged(parts: Iterable[Mapping[int, int]]) -> Counts:
    """Return the sum of histograms."""
    found: Counts = {}
    for part in parts:
        for bucket, count in part.items():
            found[bucket] = found.get(bucket, 0) + count
    return found


def quantile(counts: Mapping[int, int], share: float) -> float | None:
    """Return the duration, s, that this share of the durations does not exceed; None: no durations.

    Within a bucket the durations count as evenly spread on the logarithmic scale.
    """
    if not counts:
        return None
    rank = max(1, math.ceil(share * sum(counts.values())))
    seen = 0
    for bucket in sorted(counts):
        count = counts[bucket]
        if seen + count >= rank:
            part = (rank - seen - 0.5) / count
            return float(LEAST_S * GROWTH ** (bucket + part))
        seen += count
    return None
