"""The parser of `Host`, and the hosts that a node without credentials accepts."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.edge.host_names import HostAllowlist, is_loopback, read_host, read_hosts
from shared.errors import ConfigurationError


@pytest.mark.parametrize(
    ("value", "host"),
    [
        ("localhost", "localhost"),
        ("LocalHost:8000", "localhost"),
        ("localhost.", "localhost"),
        ("localhost:", "localhost"),
        ("my_service:80", "my_service"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("127.0.0.1:8000", ip_address("127.0.0.1")),
        ("[::1]", ip_address("::1")),
        ("[::1]:8000", ip_address("::1")),
        ("[0:0:0:0:0:0:0:1]", ip_address("::1")),
        ("[fe80::1%25eth0]:8000", ip_address("fe80::1")),
        ("[fe80::1%eth0]", ip_address("fe80::1")),
        ("[::ffff:127.0.0.1]", ip_address("127.0.0.1")),
        # Unusual spellings of addresses are names, and no node has these names.
        ("0x7f.1", "0x7f.1"),
        ("2130706433", "2130706433"),
        ("127.1", "127.1"),
        ("0177.0.0.1", "0177.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("%6cocalhost", "%6cocalhost"),
    ],
)
def test_a_valid_host_is_read(value: str, host: object) -> None:
    found = read_host(value)

    assert found == host
    assert type(found) is type(host)


@pytest.mark.parametrize(
    "value",
    [
        "",
        ".",
        "..",
        ".localhost",
        "a..localhost",
        "localhost..",
        ".localhost:8000",
        ".wild.example",
        "a..wild.example",
        ":",
        ":8000",
        "a b",
        " localhost",
        "localhost ",
        "local\thost",
        "me@localhost",
        "localhost@evil.example",
        "localhost/",
        "localhost\\evil",
        "localhost?x",
        "localhost#x",
        "http://localhost",
        "localhost:80:80",
        "localhost:x",
        "localhost:800000",
        "localhost:-1",
        "localhost, evil.example:1:2",
        "::1",
        "[::1",
        "::1]",
        "[]",
        "[localhost]",
        "[::1]x",
        "[::1]evil.example",
        "[127.0.0.1]x",
        "[1::2::3]",
        "[v1.x]",
        "%zz",
        "b\u00fccher.example",
        "localhost\x00",
        "\uff11\uff12\uff17.0.0.1",
        "a" * 300,
    ],
)
def test_an_invalid_host_is_none(value: str) -> None:
    assert read_host(value) is None


@pytest.mark.parametrize(
    ("value", "is_local"),
    [
        ("localhost", True),
        ("app.localhost", True),
        ("127.0.0.1", True),
        ("127.255.255.254", True),
        ("[::1]", True),
        ("[::1%25lo]", True),
        ("[::ffff:127.0.0.1]", True),
        ("localhost.evil.example", False),
        ("notlocalhost", False),
        ("127.0.0.1.evil.example", False),
        ("127.1", False),
        ("0x7f.1", False),
        ("0x7f000001", False),
        ("2130706433", False),
        ("0177.0.0.1", False),
        ("127.0.0.1.", False),
        ("0.0.0.0", False),
        ("[::]", False),
        ("[::2]", False),
        ("128.0.0.1", False),
    ],
)
def test_only_hosts_that_are_always_this_machine_are_loopback(value: str, is_local: bool) -> None:
    host = read_host(value)

    assert host is not None
    assert is_loopback(host) is is_local
    assert HostAllowlist().includes(host) is is_local


@given(st.text(max_size=40))
def test_any_text_is_a_host_or_none(value: str) -> None:
    host = read_host(value)

    assert host is None or str(host)


@pytest.mark.parametrize(
    ("bound", "value", "local_address", "is_accepted"),
    [
        ("127.0.0.1", "evil.example", "127.0.0.1", False),
        ("192.0.2.7", "192.0.2.7:8000", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.8", "192.0.2.7", False),
        ("node.lan", "Node.LAN.:8000", "192.0.2.7", True),
        ("0.0.0.0", "192.0.2.7", "192.0.2.7", True),
        ("0.0.0.0", "192.0.2.8", "192.0.2.7", False),
        ("0.0.0.0", "node.lan", "192.0.2.7", False),
        ("::", "192.0.2.7", "::ffff:192.0.2.7", True),
        ("::", "[2001:db8::7]", "2001:db8:0::7", True),
        ("::", "[fe80::1%25eth0]", "fe80::1%eth0", True),
        ("", "x", "", False),
    ],
)
def test_the_address_of_the_listener_is_accepted(
    bound: str, value: str, local_address: str, is_accepted: bool
) -> None:
    host = read_host(value)

    assert host is not None
    assert HostAllowlist(bound).includes(host, local_address) is is_accepted


@pytest.mark.parametrize(
    ("value", "is_accepted"),
    [
        ("node.example", True),
        ("NODE.example.:9", True),
        ("other.example", False),
        ("a.wild.example", True),
        ("a.b.wild.example", True),
        ("wild.example", False),
        ("evilwild.example", False),
        ("a.wild.example.evil", False),
        ("192.0.2.1", True),
        ("[2001:db8::1]:80", True),
        ("[2001:db8::2]", True),
    ],
)
def test_listed_names_are_accepted_with_any_port(value: str, is_accepted: bool) -> None:
    listed = " Node.Example:8000, *.wild.example,192.0.2.1:80 ,2001:db8::1,[2001:db8::2]:8000,"
    host = read_host(value)

    assert host is not None
    assert HostAllowlist("127.0.0.1", read_hosts(listed)).includes(host, "127.0.0.1") is is_accepted


@pytest.mark.parametrize(
    "value",
    ["*", "*.", "*example.org", "a.*.org", "http://node", "node/", "a b", "-a", "a..b", "me@node"],
)
def test_a_malformed_entry_is_a_configuration_error(value: str) -> None:
    with pytest.raises(ConfigurationError, match="TAILRACE_HOSTS"):
        read_hosts(value)


def test_an_empty_list_has_no_names() -> None:
    assert read_hosts(" , ") == ()
