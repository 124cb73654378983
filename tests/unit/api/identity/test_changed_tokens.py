"""Any change of a good token refuses it, and no bytes raise another error."""

from __future__ import annotations

import json
import time
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings

from api.identity.claims import ClaimRules, TokenRefused
from api.identity.key_set import KeySetInvalid, read_key_set
from api.identity.verifier import TokenVerifier
from tests.support.tokens import SECRET, claims, hand_made, hmac_token, jwk, signed_token

GOOD = [hmac_token().encode(), signed_token("ES256", "k1").encode()]
CHECKS = TokenVerifier(ClaimRules(), (SECRET,))
CHECKS.replace_keys(read_key_set(json.dumps({"keys": [jwk("ES256", "k1")]}).encode()))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
HEADERS = ("alg", "kid", "typ", "crit", "b64", "jwk", "jku", "zip")
CLAIMS = ("sub", "exp", "nbf", "iat", "aud", "iss", "scope", "sessions", "limits")
ROW = ("kty", "crv", "kid", "alg", "use", "x", "y", "n", "e", "d")


def is_accepted(token: bytes) -> bool:
    try:
        CHECKS.verify(token, time.time())
    except TokenRefused:
        return False
    return True


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(GOOD), st.data())
def test_a_changed_byte_refuses_a_token(token: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(token) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != token[place]))

    assert is_accepted(token)
    assert not is_accepted(token[:place] + bytes([byte]) + token[place + 1 :])


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_that_are_no_token_are_refused(token: bytes) -> None:
    assert not is_accepted(token)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(HEADERS), st.sampled_from(CLAIMS), JSON, JSON)
def test_any_member_in_header_and_claims_is_accepted_or_refused(
    header: str, claim: str, first: Any, second: Any
) -> None:
    is_accepted(hand_made({"alg": "HS256", header: first}, claims()).encode())
    is_accepted(hand_made({"alg": "HS256"}, claims() | {claim: second}).encode())


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(["RS256", "ES256", "EdDSA"]), st.sampled_from(ROW), JSON)
def test_any_member_of_a_key_is_read_or_left_out(algorithm: str, name: str, value: Any) -> None:
    rows = [jwk(algorithm, "k1") | {name: value}]
    try:
        read_key_set(json.dumps({"keys": rows}).encode())
    except KeySetInvalid:
        pass
