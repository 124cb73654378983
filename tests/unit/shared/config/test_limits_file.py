"""The file of limits: read again when it changes, and kept when the change cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.config.limits_file import LimitsFile
from shared.config.settings import Settings
from shared.errors import ConfigurationError


def replace(path: Path, text: str) -> None:
    """Change a file as editors and Kubernetes do: another file gets the name."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "limits.toml"
    path.write_text("[owners.alice]\nactive_max = 1\n")
    return path


def test_a_changed_file_is_read_again(path: Path) -> None:
    file = LimitsFile(Settings(limits=str(path), owner_active_max=9))
    assert not file.look()

    replace(path, "[owners.alice]\nactive_max = 2\n")

    assert file.look()
    assert file.limits.of("alice").active_max == 2
    assert file.limits.of("bob").active_max == 9
    assert not file.look()


@pytest.mark.parametrize("text", ["[owners", "[owners.alice]\nactive = 2", None])
def test_a_file_that_cannot_be_used_keeps_the_old_limits(path: Path, text: str | None) -> None:
    file = LimitsFile(Settings(limits=str(path)))
    if text is None:
        path.unlink()
    else:
        replace(path, text)

    assert file.look()
    assert file.problem
    assert file.limits.of("alice").active_max == 1
    assert not file.look()

    replace(path, "[owners.alice]\nactive_max = 1\n")
    assert file.look()
    assert file.problem == ""


def test_a_process_does_not_start_with_a_file_that_cannot_be_used(path: Path) -> None:
    path.write_text("[owners")

    with pytest.raises(ConfigurationError, match="not TOML"):
        LimitsFile(Settings(limits=str(path)))

    with pytest.raises(ConfigurationError, match="TAILRACE_LIMITS"):
        LimitsFile(Settings(limits=str(path.with_suffix(".none"))))
