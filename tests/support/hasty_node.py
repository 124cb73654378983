"""A node whose places of readers live for a shorter time: `python -m tests.support.hasty_node api`.

A test of a killed node would else wait for eight seconds. All the rest is the real node.
"""

from __future__ import annotations

import sys

from api.edge import reader_places
from cli.main import main

SHARE = 3
LIFE_S = reader_places.LIFE_MS / 1000 / SHARE

if __name__ == "__main__":
    reader_places.LIFE_MS //= SHARE
    reader_places.RENEW_S /= SHARE
    sys.exit(main())
