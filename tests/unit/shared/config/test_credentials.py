"""API keys: entries, files, scopes, and errors that never quote a key."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.config.credentials import SCOPES, Identity, named, read_keys, short_keys
from shared.errors import ConfigurationError

OPERATOR = frozenset({"admin"})


def test_entries_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# people\n\nalpha-key:alice\n  beta-key : team-b : admin \n")

    assert read_keys(str(path)) == {
        "alpha-key": Identity("alice"),
        "beta-key": Identity("team-b", OPERATOR),
    }


def test_entries_are_separated_by_commas_or_lines() -> None:
    found = read_keys("a:1,b:2\nc:3:admin admin,\na:1")

    assert found == {"a": Identity("1"), "b": Identity("2"), "c": Identity("3", OPERATOR)}


def test_an_empty_setting_means_no_keys() -> None:
    assert read_keys("") == {}


@pytest.mark.parametrize(
    "value",
    [
        "no-colon",
        "/nowhere/keys",
        ":nobody",
        "secret:",
        "secret:owner:",
        "secret::admin",
        "a:1,b",
        "a:1,a:2",
        "a:1,a:1:admin",
        "secret:*",
        ",",
        "x" * 5000,
    ],
)
def test_malformed_keys_stop_the_start_and_are_not_quoted(value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_keys(value)

    assert value not in str(caught.value) or value == ","
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scopes", ["root", "admin root", "Admin", "admin:x"])
def test_an_unknown_scope_names_the_known_ones_and_no_key(scopes: str) -> None:
    with pytest.raises(ConfigurationError, match="known: admin") as caught:
        read_keys(f"secret:owner:{scopes}")

    assert "secret" not in str(caught.value)
    assert "root" not in str(caught.value), "it may be a part of a key that holds colons"


def test_short_keys_are_found_by_their_owners() -> None:
    keys = {"x" * 15: Identity("zoe"), "y" * 16: Identity("bob"), "z": Identity("ann")}

    assert short_keys(keys) == ["ann", "zoe"]


def test_a_message_names_ten_owners_at_most() -> None:
    assert named(["b", "a", "b"]) == "a, b"
    assert named([f"o{n:02}" for n in range(12)]).endswith("o09 and 2 more")


@pytest.mark.parametrize(
    ("entry", "may"),
    [
        ("k:o", {"generate", "read", "batch", "schedules"}),
        ("k:o:read", {"read"}),
        ("k:o:generate read", {"generate", "read"}),
        ("k:o:admin", {"generate", "read", "batch", "schedules", "admin"}),
        ("k:o:act", {"generate", "read", "batch", "schedules", "act"}),
        ("k:o:act read", {"act", "read"}),
        ("k:o:act admin", {"generate", "read", "batch", "schedules", "admin", "act"}),
    ],
)
def test_the_third_field_names_everything_that_a_key_may(entry: str, may: set[str]) -> None:
    (identity,) = read_keys(entry).values()

    assert {scope for scope in SCOPES if identity.may(scope)} == may
