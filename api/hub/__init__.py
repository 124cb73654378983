"""The fan-out of one API node: one copy of each log, read by any number of readers.

The way of an event through the modules:

    Redis ──PUBLISH──▶ live_connection ──bytes──▶ hub ──by channel──▶ relay ──frame──▶ feed
    Redis ◀──pages: first read and repair──────────────────────────── relay      (the copy)
                                                                        │
              the copy has changed: wake the readers                    │
                        ┌───────────────────────────────────────────────┤
                        ▼                                               ▼
          a reader that is behind                          readers that have all of it
          reads from its `position`                        follow in rows (`broadcast`)
                        └────────────────────┬──────────────────────────┘
                                             ▼
                      pump: each reader and each row writes in its turn
                      encoded: the bytes of the copy in one dialect, made once for all readers

| module | holds |
|---|---|
| `hub`, `drain` | all relays of the node, the live connection, the tasks; the stop of a node |
| `relay` | one generation on this node: its feed, its encoded logs, its readers, its reads |
| `feed`, `frame`, `id_index` | the copy of one log, and the rule for what may be appended |
| `position` | where one reader stands in a feed |
| `encoded`, `token_runs` | the feed as bytes of one dialect; the feed as runs of joined tokens |
| `broadcast` | the readers of one encoded log that have caught up, in rows |
| `pump` | turns: who writes next, without holding the event loop |
| `upkeep`, `recheck`, `probe`, `grace`, `timer_wheel` | work that is due because time has passed |
| `live_connection`, `meta_lookup` | the two ways to Redis that all readers of the node share |
| `contracts`, `statistics` | the types between the modules and towards `api/readers/` |

Readers themselves are in `api/readers/`. Source: docs/architecture.md, "The hub".
"""
