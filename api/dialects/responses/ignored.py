"""The header that names the parts of a request that the backend does not get.

    X-Tailrace-Ignored: tools[4], input[7]

Pure. Source: docs/protocol.md, "Responses".
"""

from __future__ import annotations

from collections.abc import Sequence

IGNORED_HEADER = "x-tailrace-ignored"
PLACES_MAX = 50  # in the header; proxies refuse long headers


def ignored_header(places: Sequence[str]) -> dict[str, str]:
    """Return the header for these places of the body; {}: nothing was left out."""
    if not places:
        return {}
    others = [f"and {len(places) - PLACES_MAX} more"] if len(places) > PLACES_MAX else []
    return {IGNORED_HEADER: ", ".join([*places[:PLACES_MAX], *others])}
