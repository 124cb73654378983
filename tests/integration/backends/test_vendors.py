"""What only the servers of the vendors have: headers, paths, overloads."""

from __future__ import annotations

from typing import Any

import pytest

from shared.config.model_request import RequestRules
from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import BackendError
from shared.log.request import Request
from tests.support.anthropic_streams import OVERLOADED
from tests.support.kinds import TRIED
from tests.support.upstream import Upstream
from workers.backends import build_backends
from workers.backends.contract import BackendItem
from workers.backends.gemini.backend import GenerateContentWire

ASKED = Request([{"role": "user", "content": "Hi"}])
HEADERS = {
    "anthropic": {"x-api-key": "the-key", "anthropic-version": "2023-06-01"},
    "gemini": {"x-goog-api-key": "the-key"},
    "responses": {"authorization": "Bearer the-key"},
}


async def read(server: Upstream, kind: str, **members: Any) -> list[BackendItem]:
    members = {**TRIED[kind].members, **members}
    model = Model(name="m", backend=kind, base_url=server.base_url, api_key_env="KEY", **members)
    backend = build_backends({"m": model}, Settings(), {"KEY": "the-key"})["m"]
    items: list[BackendItem] = []
    try:
        async for batch in backend.stream(ASKED, prefix="", seed="s", form=""):
            items += batch
    finally:
        await backend.aclose()
    return items


def server_of(kind: str) -> Upstream:
    server = TRIED[kind].serve()
    assert isinstance(server, Upstream)
    return server


@pytest.mark.parametrize("kind", HEADERS)
async def test_the_headers_of_a_vendor(kind: str) -> None:
    async with server_of(kind) as server:
        await read(server, kind)

    headers = server.calls[0].headers
    assert {name: headers.get(name) for name in HEADERS[kind]} == HEADERS[kind]


async def test_the_models_file_replaces_a_header_of_the_kind() -> None:
    rules = RequestRules(headers={"Anthropic-Version": "2030-01-01", "anthropic-beta": "b"})
    async with server_of("anthropic") as server:
        await read(server, "anthropic", rules=rules)

    headers = server.calls[0].headers
    assert (headers["anthropic-version"], headers["anthropic-beta"]) == ("2030-01-01", "b")


async def test_the_status_of_an_overload_is_an_outage() -> None:
    async with server_of("anthropic") as server:
        server.refusal, server.refusal_status = OVERLOADED.raw.rpartition(b"data: ")[2], 529
        with pytest.raises(BackendError, match="529: Overloaded") as caught:
            await read(server, "anthropic")

    assert caught.value.is_outage and caught.value.retryable


async def test_an_overload_in_mid_answer_is_an_outage() -> None:
    async with server_of("anthropic") as server:
        server.raw = [OVERLOADED.raw]
        with pytest.raises(BackendError, match="Overloaded") as caught:
            await read(server, "anthropic")

    assert caught.value.is_outage and caught.value.retryable


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("gemini-3-pro", "/models/gemini-3-pro:streamGenerateContent"),
        ("tunedModels/a", "/tunedModels/a:streamGenerateContent"),
    ],
)
def test_the_path_has_the_model_of_gemini(name: str, path: str) -> None:
    model = Model(name="m", backend="gemini", base_url="https://x/v1beta", model=name)

    assert GenerateContentWire(model, Settings()).path == path
