"""How long the keys of an unfinished generation are kept: the one place for this rule.

Meta and the log of an unfinished generation have no expiry. Its other keys expire by themselves, so
that they go also if no process records the end:

    key                                                      is kept for
    the idempotency key, the name that its feeder uses       `named_ms`
    the timeline, its entry in the bytes of its owner        `named_ms`
    the pieces of a large request                            `request_ms`
    the lists of its owner and its session                   `listed_ms`
    the lists of its chat                                    `chat_ms`
    its entry in the limits of its owner                     `counted_ms`

`Settings.generation_s_max` bounds most generations. A generation lives longer if it waits for a
worker again and again, or if an outside producer writes it. Then shared/queue/extension.py sets the
expiries again, at calls that come anyway: at the begin of an attempt, and at a producer's append.
`must_extend` says when. This module does no I/O.

`silence_s` is the longest time between two such calls: the lease of a producer, or
`attempt_silence_s`. An extension keeps each key for this time longer.
"""

from __future__ import annotations

from shared.config.settings import Settings

EXTEND_EVERY_S = 3_600.0  # at most: the time between two extensions of one generation
COUNT_SPARE_S = 60.0  # an entry of the limits outlives the longest usual generation by this
# The name of a chat is not in meta, so no call extends the lists of chats. They are kept longer for
# generations that live longer than usual, but each chat of a day costs a list.
CHAT_S = 86_400.0


def named_ms(settings: Settings, silence_s: float = 0.0) -> int:
    """Return how long a key that names an unfinished generation is kept, ms."""
    return _ms(settings.generation_s_max + settings.retention_s + silence_s)


def listed_ms(settings: Settings, silence_s: float = 0.0) -> int:
    """Return how long a list is kept after its newest generation, ms.

    That is longer than any key can name the generation, and than meta outlives its end.
    """
    return _ms(settings.generation_s_max + 2 * settings.retention_s + silence_s)


def chat_ms(settings: Settings) -> int:
    """Return how long the lists of a chat are kept after its newest generation, ms."""
    return max(listed_ms(settings), _ms(CHAT_S))


def counted_ms(settings: Settings, silence_s: float = 0.0) -> int:
    """Return how long an unfinished generation counts in the limits of its owner, ms."""
    return _ms(settings.generation_s_max + COUNT_SPARE_S + silence_s)


def request_ms(settings: Settings, wait_s: float | None, silence_s: float = 0.0) -> int:
    """Return how long the pieces of a request are kept, ms.

    Args:
        wait_s: how long the generation may wait for a worker; None: `Settings.queue_wait_s`.
    """
    own_s = max(0.0, (wait_s or 0.0) - settings.queue_wait_s)
    return listed_ms(settings, silence_s + own_s)


def attempt_silence_s(settings: Settings) -> float:
    """Return the longest time between the begins of two attempts, s."""
    return settings.queue_wait_s + settings.upstream_total_s + settings.upstream_outage_s


def extend_every_s(settings: Settings) -> float:
    """Return the least time between two extensions of one generation, s."""
    return min(EXTEND_EVERY_S, settings.generation_s_max / 4)


def must_extend(settings: Settings, age_s: float, silence_s: float) -> bool:
    """Whether the keys of a generation of this age might expire before its next call.

    Younger generations than half of `generation_s_max` cost no call, unless `silence_s` is longer
    than the other half.
    """
    life_s = settings.generation_s_max
    return age_s > min(life_s / 2, life_s - silence_s)


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
