"""Opens the channel to a server: its address, certificates, proxy and limits."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from shared.config.settings import Settings
from shared.text.addresses import format_authority
from workers.backends.http.tls import TlsFiles
from workers.backends.http.upstream_http import Origin

RECONNECT_MS_MAX = 1_000  # grpcio waits up to two minutes otherwise, and fails calls meanwhile
KEEPALIVE_MS = 60_000  # a server that has vanished is noticed; servers refuse shorter times


class SharedChannel:
    """The channel of one model, for any number of calls. A channel belongs to the running loop."""

    def __init__(self, origin: Origin, settings: Settings) -> None:
        self.channel = _open(origin, settings)
        self._calls = 0
        self._is_retired = False

    def begin(self) -> None:
        """Note a call."""
        self._calls += 1

    async def end(self) -> None:
        """Note the end of a call; the last one closes a retired channel."""
        self._calls -= 1
        await self._close_if_unused()

    async def retire(self) -> None:
        """Take no further calls, and close when those that run have ended."""
        self._is_retired = True
        await self._close_if_unused()

    async def _close_if_unused(self) -> None:
        if self._is_retired and not self._calls:
            await self.channel.close()


def _open(origin: Origin, settings: Settings) -> grpc.aio.Channel:
    """Return a channel, which connects when a call needs it."""
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", settings.upstream_line_bytes_max),
        ("grpc.max_send_message_length", -1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", int(settings.upstream_connect_s * 1_000)),
        ("grpc.max_reconnect_backoff_ms", RECONNECT_MS_MAX),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.primary_user_agent", "tailrace"),
        # Channels with equal options would share connections and their pauses after a failure.
        ("grpc.use_local_subchannel_pool", 1),
        *_proxy_options(origin),
    ]
    target = f"dns:///{format_authority(origin.host, origin.port)}"
    if not origin.is_tls:
        return grpc.aio.insecure_channel(target, options)
    return grpc.aio.secure_channel(target, _credentials(origin.tls), options)


def _proxy_options(origin: Origin) -> list[tuple[str, Any]]:
    # The environment was read before, by our own rules.
    proxy = origin.proxy
    if proxy is None:
        return [("grpc.enable_http_proxy", 0)]
    login = ""
    if proxy.authorization:
        pair = base64.b64decode(proxy.authorization.partition(" ")[2]).decode()
        login = f"{pair}@"
    return [("grpc.http_proxy", f"http://{login}{proxy.authority}")]


def _credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """Return the certificates. Without `ca_file` grpcio brings authorities of its own."""
    certificate = _bytes_of(files.client_cert)
    key = _bytes_of(files.client_key) or certificate
    return grpc.ssl_channel_credentials(_bytes_of(files.ca_file), key, certificate)


def _bytes_of(path: str) -> bytes | None:
    return Path(path).read_bytes() if path else None
