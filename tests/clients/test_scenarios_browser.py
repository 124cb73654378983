"""The JavaScript client in headless Chromium, through every row of clients/scenarios.json.

Each row runs on one transport; over all rows each transport has its turn. Rows without a fault of
a process run at the same time, in one page, because they wait more than they work.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support import npm
from tests.support.browser import Browser, Page, PageServer
from tests.support.processes import Deployment
from tests.support.scenarios import TRANSPORTS, Scenario, rows
from tests.support.tokens import SECRET

PAGE = "<!doctype html><title>scenarios</title><script>{}</script>"
# Over HTTP/1.1 a browser opens six connections to a host, so a crowd reads over WebSocket.
CROWD = "websocket"
PREFLIGHTS = 4  # a browser asks before it sends JSON to another origin, on connections of its own
ROWS = {name: row for name, row in rows().items() if not row.get("is_thorough")}


def on_one_transport(row: dict[str, Any], wanted: str) -> dict[str, Any]:
    """Return the row for one of its transports: the wanted one if the row has it."""
    allowed = row.get("transports", TRANSPORTS)
    name = CROWD if row.get("clients", 1) > 1 else wanted
    name = name if name in allowed else allowed[0]
    most = row["connections_max"] + PREFLIGHTS * row.get("clients", 1)
    return {**row, "transports": [name], "connections_max": most}


CHOSEN = {
    name: on_one_transport(row, wanted)
    for (name, row), wanted in zip(ROWS.items(), itertools.cycle(TRANSPORTS), strict=False)
}
TOGETHER = [name for name, row in CHOSEN.items() if not {"node", "token_s"} & row.keys()]
ALONE = [name for name, row in CHOSEN.items() if "node" in row]
GUARDED = [name for name, row in CHOSEN.items() if "token_s" in row]


class PageProgram:
    """The program of a page, in the place of `ClientProgram`."""

    def __init__(self, page: Page) -> None:
        self._page = page

    async def ask(self, op: str, **told: Any) -> Any:
        """Have something done in the page and return its value."""
        return await self._page.evaluate(f"run({json.dumps({'op': op, **told})})")


@pytest.fixture(scope="module")
async def program(pages: PageServer) -> AsyncIterator[PageProgram]:
    npm.built()
    pages.pages["/scenarios"] = PAGE.format(npm.bundle("tailrace-page.mjs"))
    async with Browser(within_s=90) as browser:
        yield PageProgram(await browser.open(f"{pages.origin}/scenarios"))


@pytest.fixture(scope="module")
async def shared_nodes(pages: PageServer) -> AsyncIterator[Deployment]:
    settings = {"heartbeat_s": "1", "cors_origins": pages.origin}
    async with Deployment(api=2, workers=2, settings=settings) as deployment:
        yield deployment


async def test_rows_of_the_network_end_with_the_exact_answer_in_a_browser(
    shared_nodes: Deployment, program: PageProgram
) -> None:
    scenarios = [Scenario(CHOSEN[name], shared_nodes, program) for name in TOGETHER]
    found = await asyncio.gather(*(scenario.run() for scenario in scenarios))

    assert {name: each for name, each in zip(TOGETHER, found, strict=True) if each} == {}


@pytest.mark.parametrize("row", ALONE)
async def test_rows_of_a_dying_process_end_with_the_exact_answer_in_a_browser(
    shared_nodes: Deployment, program: PageProgram, row: str
) -> None:
    await shared_nodes.heal()

    assert await Scenario(CHOSEN[row], shared_nodes, program).run() == []


@pytest.mark.parametrize("row", GUARDED)
async def test_a_token_that_expires_is_replaced_in_a_browser(
    pages: PageServer, program: PageProgram, row: str
) -> None:
    settings = {"heartbeat_s": "1", "jwt_secret": SECRET, "cors_origins": pages.origin}
    async with Deployment(api=1, workers=1, settings=settings) as deployment:
        assert await Scenario(CHOSEN[row], deployment, program).run() == []


def test_every_transport_has_its_turn() -> None:
    assert {name for row in CHOSEN.values() for name in row["transports"]} == set(TRANSPORTS)
