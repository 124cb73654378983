"""Which proxy the environment names for a server, as curl and Go read it."""

from __future__ import annotations

import pytest

from workers.backends.http.proxy import in_no_proxy, parse_proxy, proxy_of


@pytest.mark.parametrize(
    ("host", "is_tls", "environ", "variable"),
    [
        ("a.test", True, {}, ""),
        ("a.test", True, {"HTTPS_PROXY": "p"}, "HTTPS_PROXY"),
        ("a.test", False, {"HTTPS_PROXY": "p"}, ""),
        ("a.test", False, {"HTTP_PROXY": "p"}, "HTTP_PROXY"),
        ("a.test", True, {"HTTP_PROXY": "p"}, ""),
        ("a.test", True, {"ALL_PROXY": "p"}, "ALL_PROXY"),
        ("a.test", True, {"HTTPS_PROXY": "p", "https_proxy": ""}, ""),
        ("a.test", True, {"HTTPS_PROXY": "p", "NO_PROXY": "test"}, ""),
        (
            "a.test",
            True,
            {"HTTPS_PROXY": "p", "no_proxy": "b.test", "NO_PROXY": "*"},
            "HTTPS_PROXY",
        ),
        ("localhost", False, {"HTTP_PROXY": "p"}, ""),
        ("127.0.0.9", False, {"HTTP_PROXY": "p"}, ""),
        ("::1", False, {"HTTP_PROXY": "p"}, ""),
        ("10.0.0.1", False, {"HTTP_PROXY": "p"}, "HTTP_PROXY"),
    ],
)
def test_the_variable_that_counts(
    host: str, is_tls: bool, environ: dict[str, str], variable: str
) -> None:
    found = proxy_of(host, 443, is_tls=is_tls, environ=environ)

    assert found == ((variable, "p") if variable else None)


@pytest.mark.parametrize(
    ("no_proxy", "excepted", "not_excepted"),
    [
        ("*", ["a.test", "10.0.0.1", "::2"], []),
        ("a.test", ["a.test", "x.a.test", "A.TEST", "a.test."], ["ba.test", "test"]),
        (".a.test, b.test", ["a.test", "x.a.test", "b.test"], ["c.test"]),
        ("*.a.test", ["x.a.test"], ["b.test"]),
        ("a.test:443", ["a.test"], []),
        ("a.test:80", [], ["a.test"]),
        ("a b,c", ["a", "b", "c"], ["d"]),
        ("10.0.0.0/8,192.168.1.7", ["10.9.9.9", "192.168.1.7"], ["11.0.0.1", "192.168.1.8"]),
        ("10.0.0.1:443", ["10.0.0.1"], ["10.0.0.2"]),
        ("fd00::/8,[fe80::1]:443", ["fd00::1", "fe80::1"], ["fe80::2"]),
        ("svc.cluster.local", ["vllm.ns.svc.cluster.local"], ["vllm"]),
        ("", [], ["a.test"]),
        (", .,:", [], ["a.test"]),
    ],
)
def test_no_proxy(no_proxy: str, excepted: list[str], not_excepted: list[str]) -> None:
    assert all(in_no_proxy(host, 443, no_proxy) for host in excepted)
    assert not any(in_no_proxy(host, 443, no_proxy) for host in not_excepted)


def test_the_url_of_a_proxy() -> None:
    assert parse_proxy("proxy:3128", "X") == ("proxy", 3128, "")
    assert parse_proxy("http://[::1]:8080/", "X")[:2] == ("::1", 8080)
    proxy = parse_proxy("http://u%3A:p%40@proxy", "X")
    assert proxy == ("proxy", 80, "Basic dTo6cEA=")
    assert "dTo6cEA" not in repr(proxy)
