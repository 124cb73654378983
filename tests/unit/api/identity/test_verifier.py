"""Which tokens are good, by form, algorithm and key; and how good ones are remembered."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from api.identity import verifier as verifier_module
from api.identity.claims import ClaimRules, TokenRefused
from api.identity.key_set import KeySet, read_key_set
from api.identity.verifier import KeyUnknown, TokenVerifier
from tests.support.tokens import (
    SECRET,
    claims,
    hand_made,
    hmac_token,
    jwk,
    part,
    private_key,
    public_pem,
    signed_token,
)

HMACS = ("HS256", "HS384", "HS512")
SIGNED = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)


def key_set(*rows: dict[str, object]) -> KeySet:
    return read_key_set(json.dumps({"keys": rows}).encode())


def verifier(*rows: dict[str, object], secrets: tuple[str, ...] = ()) -> TokenVerifier:
    found = TokenVerifier(ClaimRules(), secrets)
    if rows:
        found.replace_keys(key_set(*rows))
    return found


def owner(checks: TokenVerifier, token: str) -> str:
    return checks.verify(token.encode(), time.time()).owner


@pytest.mark.parametrize("algorithm", HMACS)
def test_a_secret_checks_hmacs_of_three_lengths(algorithm: str) -> None:
    token = hmac_token(algorithm=algorithm)

    assert owner(verifier(secrets=(SECRET,)), token) == "alice"
    with pytest.raises(TokenRefused):
        owner(verifier(secrets=(SECRET + "x",)), token)


def test_a_secret_and_public_keys_check_side_by_side() -> None:
    checks = verifier(jwk("ES256", "k1"), secrets=(SECRET,))

    assert owner(checks, hmac_token(sub="ann")) == "ann"
    assert owner(checks, signed_token("ES256", sub="bob")) == "bob"


def test_the_previous_secret_still_checks() -> None:
    assert owner(verifier(secrets=("new" * 20, SECRET)), hmac_token()) == "alice"


def test_a_short_secret_works() -> None:
    token = hand_made({"alg": "HS256"}, claims(), b"short")

    assert owner(verifier(secrets=("short",)), token) == "alice"


@pytest.mark.parametrize("algorithm", SIGNED)
def test_a_public_key_checks_the_algorithms_of_its_kind(algorithm: str) -> None:
    checks = verifier(jwk(algorithm, "k1"))
    token = signed_token(algorithm)

    assert owner(checks, token) == "alice"
    body, _, signature = token.rpartition(".")
    changed = ("A" if signature[0] != "A" else "B") + signature[1:]
    with pytest.raises(TokenRefused):
        owner(checks, f"{body}.{changed}")


@pytest.mark.parametrize("algorithm", SIGNED)
def test_another_key_of_the_same_kid_does_not_check(algorithm: str) -> None:
    with pytest.raises(TokenRefused, match="signature"):
        owner(verifier(jwk(algorithm, "k1", 1)), signed_token(algorithm, number=2))


def test_a_public_key_never_checks_an_hmac() -> None:
    """RFC 8725, 2.1: everybody has the public key, and could sign with it."""
    row = jwk("RS256", "k1")
    pem = public_pem(private_key("RS256"))
    for secret in (pem, pem.strip(), json.dumps(row).encode(), b""):
        token = hand_made({"alg": "HS256", "kid": "k1"}, claims(), secret)
        for checks in (verifier(row), verifier(row, secrets=(SECRET,))):
            with pytest.raises(TokenRefused):
                owner(checks, token)


def test_a_secret_in_a_key_set_checks_nothing() -> None:
    oct_row = {"kty": "oct", "kid": "k1", "k": part(SECRET.encode())}
    checks = verifier(jwk("ES256", "k2"), oct_row)

    with pytest.raises(TokenRefused):
        owner(checks, hand_made({"alg": "HS256", "kid": "k1"}, claims()))


@pytest.mark.parametrize("algorithm", SIGNED)
def test_a_secret_never_checks_another_algorithm(algorithm: str) -> None:
    with pytest.raises(TokenRefused):
        owner(verifier(secrets=(SECRET,)), signed_token(algorithm))


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", "HS1", "ES256K", "RSA-OAEP"])
@pytest.mark.parametrize("has_signature", [True, False])
def test_no_other_algorithm_is_accepted(algorithm: str, has_signature: bool) -> None:
    token = hand_made({"alg": algorithm}, claims(), SECRET.encode() if has_signature else None)

    with pytest.raises(TokenRefused):
        owner(verifier(jwk("ES256", "k1"), secrets=(SECRET,)), token)


@pytest.mark.parametrize("own, used", [("RS256", "PS256"), ("RS512", "RS256")])
def test_the_algorithm_of_a_key_is_the_only_one_it_checks(own: str, used: str) -> None:
    with pytest.raises(TokenRefused):
        owner(verifier(jwk("RS256", "k1", alg=own)), signed_token(used))


def test_the_curve_of_a_key_decides_its_algorithm() -> None:
    with pytest.raises(KeyUnknown):
        owner(verifier(jwk("ES384", "k1")), signed_token("ES256"))


def test_a_token_without_a_kid_needs_a_set_with_one_key_that_fits() -> None:
    token = signed_token("ES256", kid=None)

    assert owner(verifier(jwk("ES256", "k1"), jwk("RS256", "k2")), token) == "alice"
    with pytest.raises(TokenRefused):
        owner(verifier(jwk("ES256", "k1"), jwk("ES256", "k2", 1)), token)


def test_an_unknown_kid_asks_for_newer_keys() -> None:
    with pytest.raises(KeyUnknown):
        owner(verifier(jwk("ES256", "k1")), signed_token("ES256", kid="k2"))


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "a.b.c",
        hmac_token() + ".x",
        hmac_token()[:-1],
        hmac_token() + "=",
        hmac_token() + "!",
        " " + hmac_token(),
        "\u00e9." + hmac_token(),
        hmac_token().rpartition(".")[0],
        hmac_token().rpartition(".")[0] + ".",
        hand_made([], claims()),
        hand_made({}, claims()),
        hand_made({"alg": 7}, claims()),
        hand_made({"alg": ["HS256"]}, claims()),
        hand_made({"alg": "HS256", "kid": 7}, claims()),
        hand_made({"alg": "HS256", "kid": "x" * 257}, claims()),
        hand_made({"alg": "HS256", "crit": ["exp"], "exp": 1}, claims()),
        hand_made({"alg": "HS256", "crit": ["b64"], "b64": False}, claims()),
        hand_made({"alg": "HS256", "crit": ["b64"], "b64": True}, claims()),
        hand_made({"alg": "HS256", "typ": "logout+jwt"}, claims()),
        hand_made({"alg": "HS256", "typ": 7}, claims()),
        hand_made({"alg": "HS256"}, b"\xff\xfe"),
        hand_made({"alg": "HS256"}, b"[" * 3_000),
        hand_made({"alg": "HS256"}, []),
        hand_made(b"[" * 3_000, claims()),
        hand_made({"alg": "HS256"}, claims(pad="x" * 8_192)),
    ],
    ids=range(28),
)
def test_malformed_tokens_are_refused(token: str) -> None:
    with pytest.raises(TokenRefused) as refused:
        owner(verifier(secrets=(SECRET,)), token)

    assert "alice" not in str(refused.value) and not (token and token in str(refused.value))


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt"])
def test_tokens_for_access_have_these_types(kind: str) -> None:
    token = hand_made({"alg": "HS256", "typ": kind}, claims())

    assert owner(verifier(secrets=(SECRET,)), token) == "alice"


def test_a_good_token_is_recalled_until_it_expires() -> None:
    checks = verifier(secrets=(SECRET,))
    token, now = hmac_token(exp=int(time.time()) + 60).encode(), time.time()
    found = checks.verify(token, now)

    assert checks.recall(token, now + 80) is found
    assert checks.recall(token[:-1], now) is None
    assert checks.recall(token, now + 91) is None
    assert len(checks) == 0


def test_tokens_of_a_key_that_is_taken_away_are_good_no_longer() -> None:
    checks = verifier(jwk("ES256", "k1"))
    token, now = signed_token("ES256").encode(), time.time()
    checks.verify(token, now)

    checks.replace_keys(key_set(jwk("ES256", "k2", 1)))

    assert checks.recall(token, now) is None
    with pytest.raises(KeyUnknown):
        checks.verify(token, now)


def test_the_least_recently_used_token_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier_module, "REMEMBERED_MAX", 2)
    checks, now = verifier(secrets=(SECRET,)), time.time()
    one, two, three = (hmac_token(sub=name).encode() for name in ("a", "b", "c"))
    checks.verify(one, now), checks.verify(two, now)
    assert checks.recall(one, now)

    checks.verify(three, now)

    recalled = [bool(checks.recall(token, now)) for token in (one, two, three)]
    assert recalled == [True, False, True]


MakeRow = Callable[[], dict[str, object]]


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"kty": "RSA"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "k1"},
        {"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"},
        {"kty": "OKP", "crv": "X25519", "x": part(b"x" * 32)},
        {"kty": "oct", "k": part(SECRET.encode())},
        {"kty": 7},
        {"kty": []},
        {"kty": "EC", "crv": []},
        {"kty": "OKP", "crv": {}},
        {"kty": "RSA", "n": "AQAB", "e": []},
        {"kty": "RSA", "n": "", "e": ""},
        {"kty": "RSA", "kid": 7},
        7,
    ],
    ids=lambda row: str(row)[:40],
)
def test_rows_that_cannot_be_used_are_left_out(row: dict[str, object]) -> None:
    assert [key.kid for key in key_set(row, jwk("ES256", "good")).keys] == ["good"]


def test_keys_for_encryption_and_short_rsa_keys_are_left_out() -> None:
    short = json.loads(
        __import__("jwt").algorithms.RSAAlgorithm.to_jwk(
            private_key("RS256", 9, bits=1_024).public_key()
        )
    )
    found = key_set(jwk("ES256", "enc", use="enc"), {**short, "kid": "short"}, jwk("ES256", "k"))

    assert [key.kid for key in found.keys] == ["k"]
