"""The life of a generation, as one table. Knows nothing of Redis, HTTP or clocks.

This table says what may happen to a generation. The scripts in shared/redis/scripts implement these
rules; tests/unit/shared/log/test_lifecycle.py compares them with the table, cell by cell.

    absent ──create──▶ queued ──begin──▶ held ──finish──▶ ended ──(2 × retention)──▶ absent
      │                  │                │ ▲                ▲
      │ seal             │ close          │ └─begin─┐        │ close, or a begin that finds
      ▼                  ▼                ▼         │        │ that there is no sense in going on
    sealed             ended   lapsed ◀─(lease)  released ───┘
                                  └──────begin──▶ held

    whatever is there ──delete──▶ sealed

A state is what Redis holds, not what a process believes: `held` means that a token is set and its
lease has not run out. `absent` is also what a loss of data leaves.
"""

from __future__ import annotations

import enum


class GenerationState(enum.Enum):
    ABSENT = "absent"  # no meta: never accepted, lost, or long expired
    QUEUED = "queued"  # accepted; nobody has begun
    HELD = "held"  # a token, and a lease that lives
    LAPSED = "lapsed"  # a token whose lease has run out: free to take over
    RELEASED = "released"  # given back: by a drain, or by an attempt that failed
    ENDED = "ended"  # completed, cancelled or failed: has its one end
    SEALED = "sealed"  # gone for good: lost, or deleted


class Action(enum.Enum):
    CREATE = "create"
    BEGIN = "begin"
    APPEND = "append"  # by the holder, or by whoever believes to be it
    FINISH = "finish"  # append, with the end as the last entry
    RENEW = "renew"
    RELEASE = "release"
    RESTORE = "restore"  # by a former holder, after a loss
    CLOSE = "close"  # from outside: cancel, queue timeout
    SEAL = "seal"
    DELETE = "delete"


S, A = GenerationState, Action

# What an action does in a state: the new state, or why it is refused. Who calls matters only for
# the holder's actions: `HOLDERS` is for the holder, everybody else is answered by `STRANGERS`.
ANYBODYS: dict[tuple[GenerationState, Action], GenerationState | str] = {
    (S.ABSENT, A.CREATE): S.QUEUED,
    (S.QUEUED, A.CREATE): "exists",
    (S.HELD, A.CREATE): "exists",
    (S.LAPSED, A.CREATE): "exists",
    (S.RELEASED, A.CREATE): "exists",
    (S.ENDED, A.CREATE): "exists",
    (S.SEALED, A.CREATE): "exists",
    (S.ABSENT, A.BEGIN): "absent",
    (S.QUEUED, A.BEGIN): S.HELD,
    (S.HELD, A.BEGIN): "held",
    (S.LAPSED, A.BEGIN): S.HELD,
    (S.RELEASED, A.BEGIN): S.HELD,
    (S.ENDED, A.BEGIN): "ended",
    (S.SEALED, A.BEGIN): "ended",
    (S.ABSENT, A.CLOSE): "absent",
    (S.QUEUED, A.CLOSE): S.ENDED,
    (S.HELD, A.CLOSE): S.ENDED,
    (S.LAPSED, A.CLOSE): S.ENDED,
    (S.RELEASED, A.CLOSE): S.ENDED,
    (S.ENDED, A.CLOSE): "ended",
    (S.SEALED, A.CLOSE): "ended",
    (S.ABSENT, A.SEAL): S.SEALED,
    (S.QUEUED, A.SEAL): "exists",
    (S.HELD, A.SEAL): "exists",
    (S.LAPSED, A.SEAL): "exists",
    (S.RELEASED, A.SEAL): "exists",
    (S.ENDED, A.SEAL): "exists",
    (S.SEALED, A.SEAL): S.SEALED,
    (S.ABSENT, A.DELETE): "absent",
    (S.QUEUED, A.DELETE): S.SEALED,
    (S.HELD, A.DELETE): S.SEALED,
    (S.LAPSED, A.DELETE): S.SEALED,
    (S.RELEASED, A.DELETE): S.SEALED,
    (S.ENDED, A.DELETE): S.SEALED,
    (S.SEALED, A.DELETE): S.SEALED,
}

# The caller has the token that is set, or that was set last. A lease that has run out does not
# matter to its holder as long as nobody else has begun: there is still one writer.
HOLDERS: dict[tuple[GenerationState, Action], GenerationState | str] = {
    (S.ABSENT, A.APPEND): "lost",
    (S.HELD, A.APPEND): S.HELD,
    (S.LAPSED, A.APPEND): S.HELD,
    (S.RELEASED, A.APPEND): "fenced",
    (S.ENDED, A.APPEND): "ended",
    (S.SEALED, A.APPEND): "ended",
    (S.ABSENT, A.FINISH): "lost",
    (S.HELD, A.FINISH): S.ENDED,
    (S.LAPSED, A.FINISH): S.ENDED,
    (S.RELEASED, A.FINISH): "fenced",
    (S.ENDED, A.FINISH): "ended",
    (S.SEALED, A.FINISH): "ended",
    (S.ABSENT, A.RENEW): "lost",
    (S.HELD, A.RENEW): S.HELD,
    (S.LAPSED, A.RENEW): S.HELD,
    (S.RELEASED, A.RENEW): "fenced",
    (S.ENDED, A.RENEW): "ended",
    (S.SEALED, A.RENEW): "ended",
    (S.ABSENT, A.RELEASE): "lost",
    (S.HELD, A.RELEASE): S.RELEASED,
    (S.LAPSED, A.RELEASE): S.RELEASED,
    (S.RELEASED, A.RELEASE): "fenced",
    (S.ENDED, A.RELEASE): "ended",
    (S.SEALED, A.RELEASE): "ended",
    (S.ABSENT, A.RESTORE): S.HELD,
    (S.HELD, A.RESTORE): S.HELD,
    (S.LAPSED, A.RESTORE): S.HELD,
    (S.RELEASED, A.RESTORE): "fenced",
    (S.ENDED, A.RESTORE): "ended",
    (S.SEALED, A.RESTORE): "ended",
}

# The caller's attempt is older than the one in meta: it was taken over, and may write nothing.
STRANGERS: dict[tuple[GenerationState, Action], GenerationState | str] = {
    (state, action): "ended" if state in (S.ENDED, S.SEALED) else "fenced"
    for state in (S.HELD, S.LAPSED, S.RELEASED, S.ENDED, S.SEALED)
    for action in (A.APPEND, A.FINISH, A.RENEW, A.RELEASE, A.RESTORE)
}
