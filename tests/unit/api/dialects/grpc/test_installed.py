"""A node without protobuf answers with what its operator has to install."""

from __future__ import annotations

import pytest

from api.dialects.grpc import installed
from tests.support.shell import ALICE, Shell


@pytest.fixture
def without_protobuf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "_find", lambda: None)


@pytest.mark.parametrize("method", ["Start", "Get", "Cancel", "Session"])
async def test_each_call_says_what_to_install(without_protobuf: None, method: str) -> None:
    answer = await Shell().client.post(
        f"/tailrace.v1.Tailrace/{method}", json={"prompt": "x"}, headers=ALICE
    )

    assert answer.status_code == 501
    assert answer.json()["code"] == "unimplemented"
    assert "pip install 'tailrace[grpc]'" in answer.json()["message"]


@pytest.mark.parametrize("method", ["Generate", "Attach"])
async def test_each_stream_says_it_too(without_protobuf: None, method: str) -> None:
    headers = {**ALICE, "content-type": "application/grpc-web"}
    answer = await Shell().client.post(
        f"/tailrace.v1.Tailrace/{method}", content=b"\0\0\0\0\0", headers=headers
    )

    assert answer.status_code == 200
    assert b"grpc-status: 12\r\n" in answer.content
