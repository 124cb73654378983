"""Credentials and identities; accepted origins; accepted host names."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.datastructures import Headers, QueryParams

from api.edge.auth import Authenticator, read_origins
from shared.config.credentials import Identity
from shared.config.settings import Settings
from shared.errors import ConfigurationError, RequestError
from tests.support.tokens import SECRET, hmac_token, signed_token

KEYS = "alpha-key:alice, beta-key:bob"


def owner(authenticator: Authenticator, authorization: str = "", query: str = "") -> str:
    headers = Headers({"authorization": authorization} if authorization else {})
    return authenticator.owner(headers, QueryParams(query))


@pytest.fixture
def configured() -> Authenticator:
    return Authenticator.from_settings(Settings(api_keys=KEYS))


def test_without_keys_every_client_is_anonymous() -> None:
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
        ("Basic x", "access_token=alpha-key"),  # with a header, the query does not count
    ],
)
def test_other_credentials_are_401(
    configured: Authenticator, authorization: str, query: str
) -> None:
    with pytest.raises(RequestError) as caught:
        owner(configured, authorization, query)

    assert caught.value.status == 401


def test_a_key_with_non_ascii_characters_works_in_header_and_query() -> None:
    authenticator = Authenticator({"schlüssel": Identity("karl")})
    as_latin1 = "schlüssel".encode().decode("latin-1")

    assert owner(authenticator, f"Bearer {as_latin1}") == "karl"
    assert owner(authenticator, query="access_token=schl%C3%BCssel") == "karl"


def test_listening_beyond_loopback_needs_keys_or_auth_off() -> None:
    with pytest.raises(ConfigurationError, match="TAILRACE_AUTH=off"):
        Authenticator.from_settings(Settings(host="0.0.0.0"))

    assert not Authenticator.from_settings(Settings(host="0.0.0.0", auth="off")).is_configured
    assert Authenticator.from_settings(Settings(host="0.0.0.0", api_keys=KEYS)).is_configured


def test_auth_off_with_keys_is_a_contradiction() -> None:
    with pytest.raises(ConfigurationError, match="contradicts"):
        Authenticator.from_settings(Settings(auth="off", api_keys=KEYS))


@pytest.mark.parametrize(
    ("origin", "host", "is_own"),
    [
        ("http://node:8000", "node:8000", True),
        ("https://node", "node:443", True),
        ("http://NODE", "node", True),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("http://node:8001", "node:8000", False),
        ("http://evil", "node:8000", False),
        ("null", "node:8000", False),
        ("null", "null", False),
        ("http://node:8000", None, False),
        ("http://node:99999", "node:99999", False),
        ("nonsense", "nonsense", False),
        ("", "", False),
        ("", "node", False),
    ],
)
def test_the_own_origin_of_a_node(origin: str, host: str | None, is_own: bool) -> None:
    assert Authenticator({}).is_own_origin(origin, host) is is_own


@pytest.mark.parametrize(
    ("origin", "is_listed"),
    [
        ("https://app.example", True),
        ("https://APP.example", True),
        ("http://app.example", False),
        ("https://app.example:8443", False),
        ("https://app.example.evil", False),
        ("null", False),
        ("", False),
        (None, False),
    ],
)
def test_listed_origins(origin: str | None, is_listed: bool) -> None:
    authenticator = Authenticator({}, read_origins("https://app.example/"))

    assert authenticator.lists_origin(origin) is is_listed


def test_a_star_lists_every_origin_and_null_may_be_listed() -> None:
    assert Authenticator({}, read_origins("*")).lists_origin("https://any")
    assert Authenticator({}, read_origins("null")).lists_origin("null")


def test_a_key_with_the_admin_scope_is_an_operators_key() -> None:
    authenticator = Authenticator.from_settings(Settings(api_keys="a:alice,o:olga:admin"))

    def identify(key: str) -> Identity:
        return authenticator.identify(Headers({"authorization": f"Bearer {key}"}), {})

    assert not identify("a").is_operator
    assert identify("o") == Identity("olga", frozenset({"admin"}))
    assert Authenticator({}).identify({}, {}).is_operator


def test_host_names_count_only_without_keys() -> None:
    without_keys = Authenticator.from_settings(Settings(hosts="node.example"))
    with_keys = Authenticator.from_settings(Settings(api_keys=KEYS))

    assert without_keys.accepts_host("node.example", "127.0.0.1")
    assert not without_keys.accepts_host("evil.example", "127.0.0.1")
    assert with_keys.accepts_host("evil.example", "127.0.0.1")


def test_owners_of_short_keys_are_listed() -> None:
    keys = f"short:zoe,{'x' * 15}:alice,{'y' * 16}:bob"

    assert Authenticator.from_settings(Settings(api_keys=keys)).owners_of_short_keys == [
        "alice",
        "zoe",
    ]


@pytest.mark.parametrize(
    "value", ["https://*.example.org", "example.org", "https://a.b/path", "https://"]
)
def test_a_malformed_origin_stops_the_start(value: str) -> None:
    with pytest.raises(ConfigurationError):
        read_origins(value)


async def test_keys_and_tokens_are_accepted_side_by_side() -> None:
    both = Authenticator.from_settings(Settings(api_keys=KEYS, jwt_secret=SECRET))

    assert both.is_configured
    assert owner(both, "Bearer alpha-key") == "alice"
    assert owner(both, f"Bearer {hmac_token(sub='tom')}") == "tom"
    assert owner(both, query=f"access_token={hmac_token(sub='tom')}") == "tom"
    assert owner(both, f"Bearer {hmac_token(sub='bob')}") == "bob", "an owner may have both"


@pytest.mark.parametrize(
    "token", [hmac_token("x" * 32), hmac_token(exp=1), hmac_token(sub="*"), "a.b.c"], ids=range(4)
)
async def test_a_refused_token_is_401_and_is_not_quoted(token: str) -> None:
    both = Authenticator.from_settings(Settings(api_keys=KEYS, jwt_secret=SECRET))

    for find in (both.identify, both.authenticate):
        with pytest.raises(RequestError) as caught:
            found = find(Headers({"authorization": f"Bearer {token}"}), {})
            await found if not isinstance(found, Identity) else None
        assert (caught.value.status, caught.value.code) == (401, "unauthorized")
        assert token not in caught.value.message


@pytest.mark.parametrize(
    "settings",
    [
        {"jwt_secret": SECRET, "auth": "off"},
        {"jwt_audience": "tailrace"},
        {"jwt_issuer": "https://issuer.example"},
        {"jwt_secret_previous": SECRET},
        {"jwt_secret": "-----BEGIN PUBLIC KEY-----"},
        {"jwt_secret": "ssh-rsa AAAA"},
        {"jwt_secret": '{"keys": []}'},
        {"jwt_jwks": "/nowhere/keys.json"},
    ],
    ids=lambda settings: " ".join(settings),
)
def test_settings_of_tokens_that_contradict_each_other_stop_the_start(
    settings: dict[str, str],
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Authenticator.from_settings(Settings(**settings))

    assert SECRET not in str(caught.value)


def test_a_node_with_tokens_alone_may_listen_beyond_loopback() -> None:
    node = Authenticator.from_settings(Settings(host="0.0.0.0", jwt_secret=SECRET))

    assert node.is_configured and node.accepts_host("any.example", "10.0.0.1")


async def test_without_any_public_key_a_token_is_503_and_not_401() -> None:
    """The issuer is away: the token may be good, and the client should come again."""
    node = Authenticator.from_settings(Settings(jwt_jwks="http://127.0.0.1:1/keys"))

    with pytest.raises(RequestError) as caught:
        await node.authenticate(Headers({"authorization": f"Bearer {signed_token('ES256')}"}), {})

    assert (caught.value.status, caught.value.code) == (503, "unavailable")
    assert list(node.problems) == ["token_keys"]


async def test_a_key_of_a_changed_file_works_and_a_removed_one_does_not(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("alpha-key:alice")
    node = Authenticator.from_settings(Settings(api_keys=str(path)))
    (tmp_path / "new").write_text("beta-key:bob")
    (tmp_path / "new").replace(path)

    await node.look_at_key_file()

    assert owner(node, "Bearer beta-key") == "bob"
    with pytest.raises(RequestError):
        owner(node, "Bearer alpha-key")

    path.unlink()
    await node.look_at_key_file()
    assert owner(node, "Bearer beta-key") == "bob"
    assert list(node.problems) == ["api_keys"]
