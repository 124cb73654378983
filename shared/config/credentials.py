"""The API keys of a deployment: which owner each key names, and what else the key may do.

API nodes ask with them who is asking (api/edge/auth.py), the jobs role whose work may still be
started (jobs/owners.py); both read the same variable. Invariant: no error and no line in a log
shows a key.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from shared.errors import ConfigurationError

VARIABLE = "TAILRACE_API_KEYS"
ANONYMOUS = "anonymous"  # the one owner where no keys are configured
EVERYBODY = "*"  # in an operator's listing; so no owner's name
ADMIN = "admin"
SCOPES = frozenset({ADMIN})
KEY_CHARACTERS_MIN = 16  # a shorter key is taken, and warned of: it can be guessed
OWNERS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is asking: an owner, and what the key allows beyond the owner's own work."""

    owner: str
    scopes: frozenset[str] = frozenset()

    @property
    def is_operator(self) -> bool:
        """Whether the key may see the metrics, the workers and the work of all owners."""
        return ADMIN in self.scopes


# Without keys nobody is kept out, so nothing is kept for an operator.
NOBODY_IN_PARTICULAR = Identity(ANONYMOUS, SCOPES)


def read_keys(value: str) -> dict[str, Identity]:
    """Read `key:owner` entries, separated by commas or lines, or from the file that `value` names.

    A third field holds scopes, separated by spaces: `key:owner:admin`. In a file, empty lines and
    those that start with `#` are skipped.

    Args:
        value: as in the setting; empty: no keys.

    Raises:
        ConfigurationError: an entry that is none, an unknown scope, or a file without a key.
    """
    if not value:
        return {}
    found: dict[str, Identity] = {}
    for line in _text_of(value).splitlines():
        if not line.lstrip().startswith("#"):
            _read_entries(line, found)
    if not found:
        raise ConfigurationError(f"{VARIABLE} names no key")
    return found


def short_keys(keys: Mapping[str, Identity]) -> list[str]:
    """Return the owner of each key that is shorter than `KEY_CHARACTERS_MIN`, in order."""
    return sorted(one.owner for key, one in keys.items() if len(key) < KEY_CHARACTERS_MIN)


def named(owners: Collection[str]) -> str:
    """Return the first `OWNERS_SHOWN` different names for a line that a person reads."""
    different = sorted(set(owners))
    rest = len(different) - OWNERS_SHOWN
    shown = ", ".join(different[:OWNERS_SHOWN])
    return f"{shown} and {rest} more" if rest > 0 else shown


def _text_of(value: str) -> str:
    try:
        return Path(value).read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"{VARIABLE}: {exc}") from exc
    except (OSError, ValueError) as exc:
        if ":" not in value:
            raise ConfigurationError(
                f"{VARIABLE} names no file that can be read ({exc.__class__.__name__}), and is no "
                "key:owner entry: it has no colon"
            ) from exc
        return value


def _read_entries(line: str, found: dict[str, Identity]) -> None:
    for entry in filter(None, map(str.strip, line.split(","))):
        parts = [part.strip() for part in entry.split(":", 2)]
        # Whatever is wrong with an entry, a part of it may be the key: no message quotes one.
        if len(parts) < 2 or not all(parts):
            raise ConfigurationError(
                f"{VARIABLE}: every entry must be key:owner or key:owner:scopes, nothing empty"
            )
        key, owner, *scopes = parts
        if owner == EVERYBODY:
            raise ConfigurationError(f"{VARIABLE}: no owner may be called {EVERYBODY}")
        identity = Identity(owner, frozenset(" ".join(scopes).split()))
        if not identity.scopes <= SCOPES:
            known = ", ".join(sorted(SCOPES))
            raise ConfigurationError(
                f"{VARIABLE}: unknown scope in the third field of an entry; known: {known}"
            )
        if found.get(key, identity) != identity:
            raise ConfigurationError(f"{VARIABLE}: one key has two owners, or differing scopes")
        found[key] = identity
