"""Credentials to owners, origins to yes or no."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.datastructures import Headers, QueryParams

from api.auth import Authenticator, read_keys, read_origins
from shared.errors import ConfigurationError, RequestError
from shared.settings import Settings

KEYS = "alpha-key:alice, beta-key:bob"


def owner(authenticator: Authenticator, authorization: str = "", query: str = "") -> str:
    headers = Headers({"authorization": authorization} if authorization else {})
    return authenticator.owner(headers, QueryParams(query))


@pytest.fixture
def configured() -> Authenticator:
    return Authenticator.from_settings(Settings(api_keys=KEYS))


def test_without_keys_everybody_is_anonymous() -> None:
    authenticator = Authenticator.from_settings(Settings())

    assert not authenticator.is_configured
    assert owner(authenticator, "Bearer whatever") == "anonymous"


def test_a_key_names_its_owner(configured: Authenticator) -> None:
    assert owner(configured, "Bearer alpha-key") == "alice"
    assert owner(configured, "bearer  beta-key") == "bob"
    assert owner(configured, query="access_token=beta-key") == "bob"


@pytest.mark.parametrize(
    ("authorization", "query"),
    [
        ("", ""),
        ("Bearer", ""),
        ("Bearer ", ""),
        ("Bearer alpha", ""),
        ("Bearer alpha-key2", ""),
        ("Basic alpha-key", ""),
        ("alpha-key", ""),
        ("Bearer \xff\xfe", ""),
        ("", "access_token="),
        ("", "access_token=%ff"),
        ("Basic x", "access_token=alpha-key"),  # the header decides where there is one
    ],
)
def test_anything_else_is_401(configured: Authenticator, authorization: str, query: str) -> None:
    with pytest.raises(RequestError) as caught:
        owner(configured, authorization, query)

    assert caught.value.status == 401


def test_a_key_beyond_ascii_works_in_header_and_query() -> None:
    authenticator = Authenticator({"schlüssel": "karl"})
    as_latin1 = "schlüssel".encode().decode("latin-1")

    assert owner(authenticator, f"Bearer {as_latin1}") == "karl"
    assert owner(authenticator, query="access_token=schl%C3%BCssel") == "karl"


def test_keys_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# people\n\nalpha-key:alice\n  beta-key : team:b  \n")

    assert read_keys(str(path)) == {"alpha-key": "alice", "beta-key": "team:b"}


def test_pairs_are_separated_by_commas_or_lines() -> None:
    assert read_keys("a:1,b:2\nc:3,\n") == {"a": "1", "b": "2", "c": "3"}


@pytest.mark.parametrize(
    "value",
    ["no-colon", "/nowhere/keys", ":nobody", "secret:", "a:1,b", "a:1,a:2", ",", "x" * 5000],
)
def test_malformed_keys_stop_the_start_and_are_not_quoted(value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_keys(value)

    assert value not in str(caught.value) or value == ","


def test_beyond_loopback_needs_keys_or_a_loud_no() -> None:
    with pytest.raises(ConfigurationError, match="TAILRACE_AUTH=off"):
        Authenticator.from_settings(Settings(host="0.0.0.0"))

    assert not Authenticator.from_settings(Settings(host="0.0.0.0", auth="off")).is_configured
    assert Authenticator.from_settings(Settings(host="0.0.0.0", api_keys=KEYS)).is_configured


def test_auth_off_with_keys_is_a_contradiction() -> None:
    with pytest.raises(ConfigurationError, match="contradicts"):
        Authenticator.from_settings(Settings(auth="off", api_keys=KEYS))


@pytest.mark.parametrize(
    ("origin", "host", "is_allowed"),
    [
        (None, "node:8000", True),
        ("http://node:8000", "node:8000", True),
        ("https://node", "node:443", True),
        ("http://NODE", "node", True),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("https://app.example", "node:8000", True),
        ("http://app.example", "node:8000", False),
        ("http://node:8001", "node:8000", False),
        ("http://evil", "node:8000", False),
        ("null", "node:8000", False),
        ("http://node:8000", None, False),
        ("http://node:99999", "node:99999", False),
        ("nonsense", "nonsense", False),
        ("", "", False),
    ],
)
def test_origins(origin: str | None, host: str | None, is_allowed: bool) -> None:
    authenticator = Authenticator({}, read_origins("https://app.example/"))

    assert authenticator.allows_origin(origin, host) is is_allowed


def test_a_star_lets_every_origin_in() -> None:
    assert Authenticator({}, read_origins("*")).allows_origin("https://any", "node")


@pytest.mark.parametrize("value", ["example.org", "https://a.b/path", "https://"])
def test_a_malformed_origin_stops_the_start(value: str) -> None:
    with pytest.raises(ConfigurationError):
        read_origins(value)
