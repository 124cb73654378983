"""The port itself: TLS with a certificate that changes, and its options."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from starlette.types import Receive, Scope, Send

from api.grpc_port.arriving import MESSAGE_BYTES_MAX
from api.grpc_port.port import GrpcPort, options
from api.transport.certificate import Certificate
from shared.config.settings import Settings
from tests.support.certificates import Authority
from tests.support.redis_server import free_port

pytestmark = pytest.mark.usefixtures("one_loop")


async def no_app(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("these tests ask for the health only")


async def is_ready() -> bool:
    return True


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "cert.pem", tmp_path / "key.pem"


def renew(files: tuple[Path, Path]) -> bytes:
    """Write a certificate of a new authority; return the authority's own certificate."""
    folder = files[0].parent / secrets.token_hex(4)
    folder.mkdir()
    authority = Authority(folder)
    for source, target in zip(authority.sign("localhost"), files, strict=True):
        target.write_bytes(Path(source).read_bytes())
    return Path(authority.ca_file).read_bytes()


@pytest.fixture
def certificate(files: tuple[Path, Path]) -> Certificate:
    renew(files)
    return Certificate(str(files[0]), str(files[1]))


@pytest.fixture
async def port(certificate: Certificate) -> AsyncIterator[GrpcPort]:
    found = GrpcPort(no_app, Settings(grpc_port=free_port()), is_ready)
    await found.start(certificate, calls_max=10, is_shared=False)
    yield found
    await found.close()


async def status_seen(port: GrpcPort, root: bytes) -> int:
    trusted = grpc.ssl_channel_credentials(root)
    rows = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    async with grpc.aio.secure_channel(f"localhost:{port.port}", trusted, rows) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=10)
        return int(answer.status)


async def test_a_renewed_certificate_is_used_by_the_next_connection(
    port: GrpcPort, certificate: Certificate, files: tuple[Path, Path]
) -> None:
    for _ in range(2):
        root = renew(files)
        certificate.refresh()
        assert await status_seen(port, root) == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_handshake_reads_no_file(port: GrpcPort, files: tuple[Path, Path]) -> None:
    root = renew(files)
    with pytest.raises(grpc.aio.AioRpcError, match="(?i)certificate"):
        await status_seen(port, root)


async def test_the_health_follows_the_node_until_the_drain(
    port: GrpcPort, certificate: Certificate, files: tuple[Path, Path]
) -> None:
    root = renew(files)
    certificate.refresh()
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(port.watch_health())
        while await status_seen(port, root) != health_pb2.HealthCheckResponse.SERVING:
            pass
        watching.cancel()


def test_the_limits_are_those_of_the_page() -> None:
    rows = dict(options(Settings(), is_shared=False))

    assert rows["grpc.max_receive_message_length"] == MESSAGE_BYTES_MAX == 8 * 2**20
    assert (rows["grpc.max_concurrent_streams"], rows["grpc.so_reuseport"]) == (1_000, 0)
    small = dict(options(Settings(body_bytes_max=1_000), is_shared=True))
    assert (small["grpc.max_receive_message_length"], small["grpc.so_reuseport"]) == (1_000, 1)
