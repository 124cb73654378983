"""The file of API keys: read again when it changes, and kept when the change cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.config.credentials import Identity
from shared.config.key_file import KeyFile
from shared.errors import ConfigurationError


def replace(path: Path, text: str) -> None:
    """Change a file as editors and Kubernetes do: another file gets the name."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("alpha-key-0123456789:alice\n")
    return path


def test_a_changed_file_is_read_again(path: Path) -> None:
    keys = KeyFile(str(path))
    assert not keys.look()

    replace(path, "beta-key-0123456789:bob:read\n")

    assert keys.look()
    assert keys.identities == {"beta-key-0123456789": Identity("bob", frozenset({"read"}))}
    assert not keys.look()


@pytest.mark.parametrize("text", ["", "# nothing\n", "secret-key", "secret-key:bob:root", None])
def test_a_file_that_cannot_be_used_keeps_the_old_keys(path: Path, text: str | None) -> None:
    keys = KeyFile(str(path))
    if text is None:
        path.unlink()
    else:
        replace(path, text)

    assert keys.look()
    assert list(keys.identities) == ["alpha-key-0123456789"]
    assert keys.problem and "secret" not in keys.problem
    assert not keys.look()

    replace(path, "alpha-key-0123456789:alice\n# the same keys\n")
    assert keys.look()
    assert keys.problem == ""


def test_a_change_that_changes_no_key_is_no_change(path: Path) -> None:
    keys = KeyFile(str(path))
    replace(path, "# a remark\nalpha-key-0123456789:alice\n")

    assert not keys.look()


def test_keys_in_the_variable_never_change() -> None:
    assert not KeyFile("a:alice").look()
    assert not KeyFile("").look()


def test_a_file_that_cannot_be_used_at_the_start_stops_it(path: Path) -> None:
    path.write_text("nothing")

    with pytest.raises(ConfigurationError):
        KeyFile(str(path))
