"""An answer of more than a megabyte, which a producer writes as fast as the node takes it.

A worker with the demo model needs seconds of CPU time for as many bytes. Does not import the system
under test.
"""

from __future__ import annotations

from typing import Any

from tests.support.raw_client import RawClient

APPENDS, TOKENS, CHARS = 25, 8, 8_000  # 1.6 MB: more than the kernels hold of a stopped reader


class Flood:
    """One generation, begun; `write` fills its log and ends it."""

    def __init__(self, api: RawClient, begun: dict[str, Any]) -> None:
        self.id: str = begun["id"]
        self._api = api
        self._token: str = begun["producer_token"]
        self._next_seq: int = begun["next_seq"]

    @classmethod
    async def begin(cls, api: RawClient) -> Flood:
        answer = await api.post({"producer": True})
        assert answer.status == 201, answer.body
        return cls(api, answer.json())

    async def write(self) -> None:
        for number in range(APPENDS):
            await self._append(
                {"type": "token", "text": f"{number}.{n} ".ljust(CHARS, "x")} for n in range(TOKENS)
            )
        await self._append([{"type": "end"}])

    async def _append(self, events: Any) -> None:
        answer = await self._api.call(
            "POST", f"/v1/generations/{self.id}/events",
            headers={"X-Producer-Token": self._token},
            body={"seq": self._next_seq, "events": list(events)},
        )  # fmt: skip
        assert answer.status == 200, answer.body
        self._next_seq = answer.json()["next_seq"]
