"""The claims of a token: which are accepted, and what they make of the identity."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.identity.claims import ClaimRules, TokenRefused
from shared.config.credentials import ORDINARY, Identity

NOW = 1_800_000_000.0
GOOD = {"sub": "alice", "exp": NOW + 60}


def identity(rules: ClaimRules | None = None, **claims: Any) -> Identity:
    found = {name: value for name, value in (GOOD | claims).items() if value is not ...}
    return (rules or ClaimRules()).identity(json.dumps(found).encode(), NOW)


def test_the_subject_is_the_owner_and_may_do_all_but_an_operators_work() -> None:
    found = identity()

    assert (found.owner, found.expires_at, found.is_keyless) == ("alice", NOW + 60, True)
    assert found.scopes == ORDINARY and not found.is_operator


@pytest.mark.parametrize(
    ("scope", "may"),
    [
        ("read", {"read"}),
        ("generate  batch", {"generate", "batch"}),
        ("openid profile", set()),
        ("", set()),
        ("Read", set()),
        ("act", set()),
        ("admin", {"generate", "read", "batch", "schedules", "admin"}),
    ],
)
def test_the_claim_scope_names_everything_that_a_token_may(scope: str, may: set[str]) -> None:
    found = identity(scope=scope)

    assert {each for each in (*ORDINARY, "admin", "act") if found.may(each)} == may


@pytest.mark.parametrize("scope", [None, ["read"], 1, {}], ids=str)
def test_a_scope_that_is_no_string_is_never_taken_for_no_scope(scope: Any) -> None:
    with pytest.raises(TokenRefused):
        identity(scope=scope)


def test_limits_and_sessions_are_kept() -> None:
    limits = {"active_max": 3, "of_another_system": "7"}
    found = identity(limits=limits, sessions=["room-*", "desk"], groups=["paid"])

    assert found.limits == limits
    assert found.groups == ("paid",)
    assert found.sessions == ("room-*", "desk")


@pytest.mark.parametrize("exp", [NOW - 29, NOW, 1e10, int(NOW) + 1])
def test_these_ends_are_still_to_come(exp: float) -> None:
    assert identity(exp=exp).expires_at == exp


@pytest.mark.parametrize(
    "exp",
    [..., None, NOW - 30, 0, -1, True, "9999999999", [NOW], {}, NOW * 1_000, 10**30],
    ids=str,
)
def test_a_token_needs_an_end_in_the_future(exp: Any) -> None:
    with pytest.raises(TokenRefused):
        identity(exp=exp)


@pytest.mark.parametrize("text", ["1e999", "NaN", "Infinity", "-Infinity"])
def test_an_end_that_is_no_number_of_json_is_refused(text: str) -> None:
    with pytest.raises(TokenRefused):
        ClaimRules().identity(b'{"sub":"alice","exp":%b}' % text.encode(), NOW)


@pytest.mark.parametrize("name", ["nbf", "iat"])
def test_a_beginning_may_lie_half_a_minute_ahead(name: str) -> None:
    assert identity(**{name: NOW + 30}).owner == "alice"
    for bad in (NOW + 31, "now", True):
        with pytest.raises(TokenRefused):
            identity(**{name: bad})


@pytest.mark.parametrize(
    "sub",
    [
        ..., None, "", " alice", "alice ", 7, True, ["alice"], {}, "x" * 257, "a\nb", "a\x00b",
        "a\u200bb", "a\u2028b", "*", "\uff0a", "anonymous", "Anonymous",
        "\uff41nonymous", "tr:jobs", "TR:x", "tailrace:x", "a\ud800", "\u00a0alice",
    ],
    ids=ascii,
)  # fmt: skip
def test_a_subject_that_is_no_owners_name_is_refused(sub: Any) -> None:
    with pytest.raises(TokenRefused):
        identity(sub=sub)


@pytest.mark.parametrize(
    "sub", ["alice", "auth0|5f7c8ec7", "a@b.example", "Jos\u00e9 P", "x" * 256, "12"], ids=ascii
)
def test_names_of_usual_issuers_are_accepted(sub: str) -> None:
    assert identity(sub=sub).owner == sub


def test_the_audience_must_be_among_the_tokens_own() -> None:
    rules = ClaimRules(audience="tailrace")

    assert identity(rules, aud="tailrace").owner == "alice"
    assert identity(rules, aud=["other", "tailrace"]).owner == "alice"
    for bad in (..., "other", [], ["other"], "", 7, {"tailrace": 1}, ["tailrace", 7]):
        with pytest.raises(TokenRefused):
            identity(rules, aud=bad)


def test_a_token_for_an_audience_needs_a_node_that_has_one() -> None:
    with pytest.raises(TokenRefused, match="TAILRACE_JWT_AUDIENCE"):
        identity(aud="other")
    assert identity(aud=[]).owner == "alice"


def test_the_issuer_must_be_the_one_of_the_settings() -> None:
    rules = ClaimRules(issuer="https://issuer.example")

    assert identity(rules, iss="https://issuer.example").owner == "alice"
    for bad in (..., "https://issuer.example/", "", 7, ["https://issuer.example"]):
        with pytest.raises(TokenRefused):
            identity(rules, iss=bad)
    assert identity(iss="anybody").owner == "alice"


@pytest.mark.parametrize(
    "claims",
    [
        {"scope": ["read"]},
        {"scope": 7},
        {"sessions": "room-*"},
        {"sessions": ["*"]},
        {"sessions": [""]},
        {"sessions": ["a*b"]},
        {"sessions": ["x" * 129]},
        {"sessions": [7]},
        {"sessions": ["a"] * 101},
        {"limits": [1]},
        {"limits": {"active_max": "3"}},
        {"limits": {"weight": 0}},
        {"groups": "paid"},
        {"groups": [7]},
        {"groups": ["a"] * 1_001},
        {"limits": {str(n): n for n in range(33)}},
    ],
    ids=lambda claims: str(claims)[:40],
)
def test_a_claim_of_another_type_refuses_the_token(claims: dict[str, Any]) -> None:
    with pytest.raises(TokenRefused):
        identity(**claims)


@pytest.mark.parametrize("payload", [b"", b"[]", b"7", b'"x"', b"{", b"\xff", b"[" * 5_000])
def test_claims_that_are_no_object_are_refused(payload: bytes) -> None:
    with pytest.raises(TokenRefused):
        ClaimRules().identity(payload, NOW)
