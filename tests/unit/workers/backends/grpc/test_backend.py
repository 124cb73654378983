"""gRPC with TLS, a proxy, keys, and servers that are not what the models file says."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from shared.config.model_connection import Connection
from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import BackendError, ConfigurationError
from shared.log.events import Token
from shared.log.request import Request
from tests.support.certificates import Authority
from tests.support.forward_proxy import CREDENTIALS, ForwardProxy
from tests.support.kinds.grpc import KSERVE_WIRE, OWN_WIRE, GrpcServer
from tests.support.upstream import expected_text
from workers.backends import build_backends
from workers.backends.contract import BackendItem, SetUpFault

pytestmark = pytest.mark.usefixtures("one_loop")

DEADLINE_S = 10.0
PROMPT = '{"tokens": 3}'
ASKED = Request([{"role": "user", "content": PROMPT}])


async def read(
    url: str, environ: dict[str, str] | None = None, **members: Any
) -> list[BackendItem]:
    model = Model(name="m", backend="grpc", base_url=url, **members)
    backend = build_backends({"m": model}, Settings(), environ or {})["m"]
    items: list[BackendItem] = []
    try:
        async with asyncio.timeout(DEADLINE_S):
            async for batch in backend.stream(ASKED, prefix="", seed="s", form=""):
                items += batch
    finally:
        await backend.aclose()
    return items


async def failure_of(url: str, **members: Any) -> BackendError:
    with pytest.raises(BackendError) as caught:
        await read(url, **members)
    return caught.value


def text_of(items: list[BackendItem]) -> str:
    return "".join(item.text for item in items if isinstance(item, Token))


def server_credentials(authority: Authority, name: str, *, needs_client: bool = False) -> Any:
    certificate, key = (Path(path).read_bytes() for path in authority.sign(name))
    root = Path(authority.ca_file).read_bytes() if needs_client else None
    return grpc.ssl_server_credentials([(key, certificate)], root, needs_client)


async def test_the_key_is_in_the_metadata() -> None:
    async with GrpcServer(OWN_WIRE) as server:
        await read(server.base_url, {"KEY": "sk-1"}, api_key_env="KEY")

        assert server.calls[0].headers["authorization"] == "Bearer sk-1"


async def test_a_server_with_tls_and_mutual_certificates(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.sign("worker")
    own = Connection(ca_file=authority.ca_file, client_cert=certificate, client_key=key)
    async with GrpcServer(
        OWN_WIRE, server_credentials(authority, "localhost", needs_client=True)
    ) as server:
        url = server.base_url.replace("127.0.0.1", "localhost")
        items = await read(url, connection=own)

    assert text_of(items) == expected_text(PROMPT)


async def test_a_certificate_of_an_unknown_authority_is_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    other = Authority(tmp_path, "other")
    async with GrpcServer(OWN_WIRE, server_credentials(authority, "localhost")) as server:
        url = server.base_url.replace("127.0.0.1", "localhost")
        error = await failure_of(url, connection=Connection(ca_file=other.ca_file))

    assert isinstance(error, SetUpFault) and not error.is_outage
    assert "certificate" in error.message and "ca_file" in error.advice


async def test_a_proxy_is_asked_for_a_tunnel() -> None:
    async with GrpcServer(OWN_WIRE) as server:
        port = int(server.base_url.rpartition(":")[2])
        async with ForwardProxy(port, needs_credentials=True) as proxy:
            connection = Connection(proxy=proxy.url(CREDENTIALS))
            items = await read("grpc://model.test:8001", connection=connection)

            assert proxy.asked == ["CONNECT model.test:8001 HTTP/1.1"]
    assert text_of(items) == expected_text(PROMPT)


async def test_a_server_with_the_other_protocol_is_a_fault_of_the_set_up() -> None:
    async with GrpcServer(KSERVE_WIRE) as server:
        error = await failure_of(server.base_url)

    assert isinstance(error, SetUpFault) and not error.retryable
    assert "UNIMPLEMENTED" in error.message and "`protocol`" in error.advice


@pytest.mark.parametrize("url", ["grpc://localhost", "grpc://h:1/path", "grpc://h:x"])
async def test_a_base_url_that_is_no_address_is_named(url: str) -> None:
    error = await failure_of(url)

    assert error.message == "the backend cannot be reached: its address is not valid"


async def test_a_server_that_comes_back_is_found_again() -> None:
    """The channel is open all the time, and does not wait long after a failure."""
    async with GrpcServer(OWN_WIRE) as server:
        model = Model(name="m", backend="grpc", base_url=server.base_url)
        backend = build_backends({"m": model}, Settings(), {})["m"]
        await server.relay.refuse()
        with pytest.raises(BackendError):
            async for _ in backend.stream(ASKED, prefix="", seed="s", form=""):
                pass
        server.relay.flow()
        items: list[BackendItem] = []
        async with asyncio.timeout(DEADLINE_S):
            while not items:
                try:
                    async for batch in backend.stream(ASKED, prefix="", seed="s", form=""):
                        items += batch
                except BackendError as error:
                    assert error.is_outage
                    await asyncio.sleep(0.05)  # the pause of a generation between two attempts
        await backend.aclose()

    assert text_of(items) == expected_text(PROMPT)


def test_answers_are_read_in_the_loop_of_the_worker() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def ask() -> list[BackendItem]:
        async with GrpcServer(OWN_WIRE) as server:
            return await read(server.base_url)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert text_of(runner.run(ask())) == expected_text(PROMPT)


def test_without_grpcio_one_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.config.kinds.spec.find_spec", lambda name: None)
    model = Model(name="m", backend="grpc", base_url="grpc://localhost:1")

    with pytest.raises(ConfigurationError, match=r"models\.m: .*pip install 'tailrace\[grpc\]'"):
        build_backends({"m": model}, Settings(), {})
