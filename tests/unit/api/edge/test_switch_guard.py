"""A success is refused if the master changed during a request that may write."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from api.edge.switch_guard import SwitchGuard
from shared.errors import Unavailable


@pytest.mark.parametrize(
    ("method", "status", "is_switched", "is_refused"),
    [
        ("POST", 202, True, True),
        ("POST", 200, True, True),
        ("DELETE", 200, True, True),
        ("POST", 202, False, False),
        ("POST", 409, True, False),
        ("POST", 503, True, False),
        ("GET", 200, True, False),
    ],
)
async def test_which_answers_are_refused(
    method: str, status: int, is_switched: bool, is_refused: bool
) -> None:
    follower: Any = SimpleNamespace(switches=7)
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        follower.switches += is_switched
        await send({"type": "http.response.start", "status": status})
        await send({"type": "http.response.body", "body": b"{}"})

    async def send(message: Any) -> None:
        sent.append(message)

    async def call() -> None:
        await SwitchGuard(app, follower)({"type": "http", "method": method}, None, send)  # type: ignore[arg-type]

    if is_refused:
        with pytest.raises(Unavailable):
            await call()
    else:
        await call()
    assert len(sent) == (0 if is_refused else 2)
