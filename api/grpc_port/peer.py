"""The address of a client as grpcio writes it: `ipv4:10.0.0.1:5000`, `ipv6:[::1]:5000`. Pure."""

from __future__ import annotations

from urllib.parse import unquote


def peer_address(peer: str) -> tuple[str, int] | None:
    """Return host and port; None: grpcio names no address, for example of a Unix socket."""
    kind, _, rest = unquote(peer).partition(":")
    host, _, port = rest.rpartition(":")
    if kind not in ("ipv4", "ipv6") or not port.isdigit():
        return None
    return host.strip("[]"), int(port)
