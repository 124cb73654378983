"""Patterns of stream paths: `*` is one segment, `**` any number of segments. Pure."""

from __future__ import annotations


def matches(pattern: str, path: str) -> bool:
    """Whether a path matches a pattern. The time is bounded by the product of their lengths."""
    parts, segments = _split(pattern), _split(path)
    # reachable[i]: the segments so far match the first i parts.
    reachable = _skip_stars(parts, [True] + [False] * len(parts))
    for segment in segments:
        reached = [False] * (len(parts) + 1)
        for i, part in enumerate(parts):
            if part == "**":
                reached[i] = reached[i] or reachable[i]
            elif reachable[i] and (part == "*" or part.replace("%2A", "*") == segment):
                reached[i + 1] = True
        reachable = _skip_stars(parts, reached)
    return reachable[-1]


def _skip_stars(parts: list[str], reachable: list[bool]) -> list[bool]:
    for i, part in enumerate(parts):
        if part == "**" and reachable[i]:
            reachable[i + 1] = True
    return reachable


def _split(path: str) -> list[str]:
    return [segment for segment in path.split("/") if segment]
