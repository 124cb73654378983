"""The bounds of the console, each with its unit."""

from __future__ import annotations

PAGES_MAX = 20  # open consoles of one node
TICK_S = 2.0  # between two pictures
COMMANDS_PER_TICK = 38  # to Redis, of one sampler: below 20 a second
REPORT_EVERY_S = 5.0  # of a node
NODE_GENERATIONS_MAX = 10_000  # generations with readers in the report of a node
ROWS_PER_PAGE = 50
PAGES_OF_ROWS_MAX = 200
DETAILS_KEPT = 20_000  # owners and models of generations that a sampler remembers
SEND_S = 10.0  # after which a page that reads nothing is cut
SEARCH_CHARACTERS_MAX = 200
EVENTS_SHOWN = 200
BATCHES_SHOWN = 20
OWNERS_SHOWN = 10
LOG_ENTRIES_PER_PAGE = 500
