"""Writes out the short forms of a cron expression that cronsim refuses. Pure.

A schedule stores what is written out, so that each version of the jobs role can read it.
Source: crontab(5) of Vixie cron: the names, and 7 as another number of Sunday.
"""

from __future__ import annotations

import re

CRON_NAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
FIELDS = 5
# Sunday is the end of a range only as 7: cronsim reads the name as 0.
_TO_SUNDAY = re.compile(r"-SUN\b", re.IGNORECASE | re.ASCII)


def write_out(cron: str) -> str:
    """Return the expression in a form that cronsim reads; any other expression unchanged."""
    named = CRON_NAMES.get(cron.strip().lower())
    if named is not None:
        return named
    fields = cron.split()
    if len(fields) != FIELDS or not _TO_SUNDAY.search(fields[-1]):
        return cron
    return " ".join([*fields[:-1], _TO_SUNDAY.sub("-7", fields[-1])])
