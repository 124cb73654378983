"""The addresses of grpcio."""

from __future__ import annotations

import pytest

from api.grpc_port.peer import peer_address


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.1:5000", ("10.0.0.1", 5000)),
        ("ipv6:%5B::1%5D:5000", ("::1", 5000)),
        ("ipv6:[2001:db8::7]:443", ("2001:db8::7", 443)),
        ("unix:", None),
        ("unix:/tmp/x", None),
        ("ipv4:10.0.0.1", None),
        ("", None),
    ],
)
def test_the_address_of_a_client_is_found(peer: str, address: tuple[str, int] | None) -> None:
    assert peer_address(peer) == address
