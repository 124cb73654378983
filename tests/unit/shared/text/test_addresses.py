"""The addresses that may be called for a client, in every spelling."""

from __future__ import annotations

import pytest

from shared.text.addresses import is_plainly_private, is_public

PUBLIC = (
    "8.8.8.8", "1.1.1.1", "93.184.215.14", "2606:4700::1111", "2a00:1450:4001::200e",
    "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1",
)  # fmt: skip
PRIVATE = (
    "127.0.0.1", "127.8.9.1", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255",
    "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.2.1", "198.18.0.1",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
    "::1", "::", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "::ffff:169.254.169.254", "::ffff:0.0.0.0", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a00:1::1", "fe80::1", "fe80::1%eth0", "fec0::1",
    "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1", "100::1",
)  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_other_addresses_are_refused(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("text", ["", "example.com", "/run/socket", "1.2.3", "2130706433"])
def test_text_that_is_no_address_is_refused(text: str) -> None:
    assert not is_public(text)


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LOCALHOST", "localhost.", "a.localhost", "printer.local",
        "metadata.google.internal", "127.0.0.1", "127.0.0.1.", "127.1", "2130706433",
        "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "0", "0.0.0.0", "10.1",
        "169.254.169.254", "2852039166", "0xa9fea9fe", "::1", "[::1]", "::ffff:10.0.0.1",
        "fe80::1%25eth0", "99999999999", "256.1.1.1",
    ],
)  # fmt: skip
def test_hosts_that_are_plainly_private(host: str) -> None:
    assert is_plainly_private(host)


@pytest.mark.parametrize(
    "host",
    [
        "example.com", "127.0.0.1.example.com", "localhost.example", "8.8.8.8", "8.8.8.8.",
        "134744072", "0x08080808", "2606:4700::1111", "deadbeef", "1e100.net",
    ],
)  # fmt: skip
def test_hosts_that_are_not_plainly_private(host: str) -> None:
    assert not is_plainly_private(host)
