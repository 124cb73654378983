"""Strict parsing of URLs: an ambiguous URL has no host."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config.settings import Settings
from shared.config.url_hosts import host_of, read_hosts
from shared.errors import ConfigurationError

PLAIN = {
    "https://images.example.org": "images.example.org",
    "http://Images.EXAMPLE.org:8080/a/b?c=d#e": "images.example.org",
    "HTTPS://a.example/%2e%2e/": "a.example",
    "https://xn--bcher-kva.example/": "xn--bcher-kva.example",
    "http://192.0.2.1/": "192.0.2.1",
    "http://[2001:DB8:0::1]:80/x": "[2001:db8::1]",
}
ODD = [
    "", "images.example.org", "//images.example.org/", "ftp://images.example.org/", "file:///etc",
    "http:/images.example.org/", "http:images.example.org", "http:///images.example.org/",
    " http://images.example.org/", "http://images.example.org/ ", "http://images.example.org/a b",
    "\thttp://images.example.org/", "ht\ntp://images.example.org/", "http://images.\texample.org/",
    "http://images.example.org\r\n/", "http://images.example.org\0/",
    "http://user@images.example.org/", "http://a:b@images.example.org/",
    "http://images.example.org@evil.example/", "http://images.example.org:80@evil.example/",
    "http://images.example.org\\@evil.example/", "http://evil.example\\.images.example.org/",
    "http:\\\\images.example.org\\", "http://images.example.org/\\x",
    "http://images.example.org?@evil.example/", "http://images.example.org#@evil.example/",
    "http://images.example.org;@evil.example/", "http://images.example.org&x/",
    "http://images.example.org./", "http://images.example.org../", "http://.images.example.org/",
    "http://images..example.org/", "http://-images.example.org/", "http://images-.example.org/",
    "http://images%2eexample.org/", "http://%69mages.example.org/", "http://images.example.org%00/",
    "http://b\u00fccher.example/", "http://images\u3002example.org/", "http://\uff49mages.example/",
    "http://images.example.org:/", "http://images.example.org:0/", "http://images.example.org:99999/",
    "http://images.example.org:80:81/", "http://images.example.org:+80/",
    "http://2130706433/", "http://0x7f.1/", "http://0177.0.0.1/", "http://127.1/", "http://127.0.0.01/",
    "http://1.2.3.4.5/", "http://0x7f000001/", "http://images.0x1/", "http://a.1/",
    "http://[::1/", "http://::1/", "http://[::1%25eth0]/", "http://[v1.a]/", "http://[]/",
    "http://" + "a" * 64 + ".example/", "http://a.example/" + "x" * 9_000,
]  # fmt: skip


@pytest.mark.parametrize("url", PLAIN)
def test_a_plain_url_has_its_host(url: str) -> None:
    assert host_of(url) == PLAIN[url]


@pytest.mark.parametrize("url", ODD)
def test_an_unusual_url_is_refused(url: str) -> None:
    assert host_of(url) is None


@given(st.text(st.sampled_from("htps:/\\@?#.%[]a1 \t\n-xe\u3002"), max_size=40))
def test_any_text_is_refused_or_has_one_host(text: str) -> None:
    for url in (text, f"http://{text}", f"http://a.example{text}"):
        host = host_of(url)
        if host is not None and url.startswith("http://a.example"):
            assert host == "a.example" or host.startswith("a.example")


def test_a_list_holds_hosts_and_wildcards() -> None:
    hosts = read_hosts("images.example.org, *.CDN.example ,192.0.2.1,[2001:db8::1]")
    for url in (
        "http://images.example.org/", "https://a.cdn.example", "https://a.b.cdn.example:99/x",
        "http://192.0.2.1/", "http://[2001:db8:0::1]/", "data:image/png;base64,AA", "DATA:,x",
    ):  # fmt: skip
        assert hosts.allows(url), url
    for url in (
        "http://cdn.example/", "http://acdn.example/", "http://a.images.example.org/",
        "http://192.0.2.2/", "http://169.254.169.254/", "x", " data:,x", "javascript:x",
    ):  # fmt: skip
        assert not hosts.allows(url), url


def test_empty_allows_any_host_and_none_allows_no_host() -> None:
    assert read_hosts("").allows("anything at all")
    for word in ("none", " NONE "):
        assert not read_hosts(word).allows("https://images.example.org/")
        assert read_hosts(word).allows("data:,x")


@pytest.mark.parametrize(
    "value",
    ["http://a.example", "a.example:80", "*", "*.", "a..b", "*.192.0.2.1", "a.example,", "ü.de"],
)
def test_a_malformed_list_stops_the_start(value: str) -> None:
    with pytest.raises(ConfigurationError, match="TAILRACE_PART_URLS"):
        Settings(part_urls=value)
