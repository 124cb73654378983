"""The client address of a request, and which entries of X-Forwarded-For are trusted."""

from __future__ import annotations

import pytest

from api.transport.peer import NO_ADDRESS, TrustedProxies, read_address
from shared.errors import ConfigurationError

PROXIES = TrustedProxies.read("10.0.0.0/8, 192.0.2.1, fd00::/8, 127.0.0.2")
NO_PROXIES = TrustedProxies()


def forwarded(*values: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-forwarded-for", value.encode("latin-1")) for value in values]


@pytest.mark.parametrize(
    ("host", "values", "address"),
    [
        ("203.0.113.7", [], "203.0.113.7"),
        ("203.0.113.7", ["198.51.100.1"], "203.0.113.7"),  # not a proxy: its header is not read
        ("10.1.2.3", ["198.51.100.1"], "198.51.100.1"),
        ("10.1.2.3", ["198.51.100.9, 198.51.100.1"], "198.51.100.1"),
        ("10.1.2.3", ["198.51.100.9", "198.51.100.1"], "198.51.100.1"),
        ("10.1.2.3", ["198.51.100.1, 192.0.2.1,10.9.9.9"], "198.51.100.1"),
        ("10.1.2.3", ["10.7.7.7, 10.9.9.9"], "10.7.7.7"),
        ("10.1.2.3", [], "10.1.2.3"),
        ("10.1.2.3", [""], "10.1.2.3"),
        ("10.1.2.3", ["unknown"], "10.1.2.3"),
        ("10.1.2.3", ["198.51.100.1, rubbish"], "10.1.2.3"),
        ("10.1.2.3", ["198.51.100.1:4711"], "198.51.100.1"),
        ("10.1.2.3", ["[2001:db8:1:2:3::4]:80"], "2001:db8:1:2::/64"),
        ("10.1.2.3", ["2001:db8:1:2:ffff::"], "2001:db8:1:2::/64"),
        ("::ffff:10.1.2.3", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("fd00::1", ["2001:db8::1"], "2001:db8::/64"),
        ("2001:db8:1:2:3:4:5:6", [], "2001:db8:1:2::/64"),
        ("fe80::1%eth0", [], "fe80::/64"),
        (None, ["198.51.100.1"], NO_ADDRESS),
        ("", [], NO_ADDRESS),
    ],
)
def test_the_client_address_is_the_first_from_the_right_that_is_not_a_proxy(
    host: str | None, values: list[str], address: str
) -> None:
    assert PROXIES.client_address(host, forwarded(*values)) == address


@pytest.mark.parametrize(
    ("host", "values", "limited"),
    [
        ("203.0.113.7", [], "203.0.113.7"),
        ("127.0.0.1", [], None),
        ("127.0.0.1", ["198.51.100.1"], None),  # loopback is a proxy only if it is listed
        ("127.0.0.2", ["198.51.100.1"], "198.51.100.1"),
        ("::1", [], None),
        ("10.1.2.3", [], None),
        ("10.1.2.3", ["10.9.9.9"], None),
        ("10.1.2.3", ["127.0.0.1"], None),
        (None, [], None),
    ],
)
def test_loopback_and_the_proxies_own_addresses_have_no_limit(
    host: str | None, values: list[str], limited: str | None
) -> None:
    assert PROXIES.limited_address(host, forwarded(*values)) == limited


def test_without_proxies_the_header_is_not_read() -> None:
    assert NO_PROXIES.client_address("10.1.2.3", forwarded("198.51.100.1")) == "10.1.2.3"
    assert not NO_PROXIES.is_trusted("10.1.2.3")


@pytest.mark.parametrize("value", ["proxy.example", "10.0.0.1/8", "10.0.0.0/33", "1.2.3", "::/200"])
def test_the_error_names_an_entry_that_is_not_an_address_or_network(value: str) -> None:
    with pytest.raises(ConfigurationError, match="TAILRACE_TRUSTED_PROXIES"):
        TrustedProxies.read(f"10.0.0.0/8, {value}")


@pytest.mark.parametrize("text", ["", "x", "1.2.3.4.5", ":::", "[", "[]", "%", "1.2.3.4:x:y"])
def test_text_without_an_address_is_none(text: str) -> None:
    assert read_address(text) is None
