"""The port itself: TLS with files that change, and its options."""

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
from api.grpc_port.credentials import CertificateFiles, credentials
from api.grpc_port.port import GrpcPort, options
from shared.config.settings import Settings
from shared.errors import ConfigurationError
from tests.support.certificates import Authority
from tests.support.redis_server import free_port


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
async def port(files: tuple[Path, Path]) -> AsyncIterator[GrpcPort]:
    settings = Settings(grpc_port=free_port(), tls_cert=str(files[0]), tls_key=str(files[1]))
    renew(files)
    found = GrpcPort(no_app, settings, is_ready)
    await found.start(calls_max=10, is_shared=False)
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
    port: GrpcPort, files: tuple[Path, Path]
) -> None:
    for _ in range(2):
        root = renew(files)
        assert await status_seen(port, root) == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_the_health_follows_the_node_until_the_drain(
    port: GrpcPort, files: tuple[Path, Path]
) -> None:
    root = renew(files)
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(port.watch_health())
        while await status_seen(port, root) != health_pb2.HealthCheckResponse.SERVING:
            pass
        watching.cancel()


def test_half_a_renewal_keeps_the_earlier_pair(files: tuple[Path, Path]) -> None:
    renew(files)
    found = CertificateFiles(str(files[0]), str(files[1]))
    first = found.changed()
    assert first == (files[1].read_bytes(), files[0].read_bytes())
    assert found.changed() is None
    earlier_key = files[1].read_bytes()
    renew(files)
    key = files[1].read_bytes()
    files[1].write_bytes(earlier_key)
    assert found.changed() is None
    files[1].write_bytes(key)
    assert found.changed() == (key, files[0].read_bytes())
    files[1].unlink()
    assert found.changed() is None


def test_files_that_cannot_be_used_stop_the_start(files: tuple[Path, Path]) -> None:
    settings = Settings(tls_cert=str(files[0]), tls_key=str(files[1]))
    with pytest.raises(ConfigurationError, match="TAILRACE_TLS_CERT"):
        credentials(settings)


def test_the_limits_are_those_of_the_page() -> None:
    rows = dict(options(Settings(), is_shared=False))

    assert rows["grpc.max_receive_message_length"] == MESSAGE_BYTES_MAX == 8 * 2**20
    assert (rows["grpc.max_concurrent_streams"], rows["grpc.so_reuseport"]) == (1_000, 0)
    small = dict(options(Settings(body_bytes_max=1_000), is_shared=True))
    assert (small["grpc.max_receive_message_length"], small["grpc.so_reuseport"]) == (1_000, 1)
