"""The Python client without an event loop through every row of clients/scenarios.json."""

from __future__ import annotations

from tests.support.scenario_tests import *  # noqa: F403

PROGRAMS = ["python-sync"]
