"""Who asks, and what that identity may do; the API keys of a deployment, and the owner of each key.

API nodes use them to identify the owner of a request (api/edge/auth.py). The jobs role uses them to
decide whose work may start (jobs/owners.py). Both read the same variable. Invariant: no error and
no log line shows a key.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.errors import ConfigurationError

VARIABLE = "TAILRACE_API_KEYS"
ANONYMOUS = "anonymous"  # the only owner of a deployment without keys
EVERYBODY = "*"  # all owners, in an operator's listing; no owner may have this name
GENERATE, READ, BATCH, SCHEDULES = "generate", "read", "batch", "schedules"
ADMIN = "admin"  # also everything that the four scopes above allow
CONTENT = "content"  # with `admin`: read the prompts and answers of every owner
ACT = "act"  # of keys only: name the user for whom the request asks
LEEWAY_S = 30.0  # the clocks of issuer and node may differ by this much
ORDINARY = frozenset({GENERATE, READ, BATCH, SCHEDULES})
SCOPES = (ADMIN, CONTENT, GENERATE, READ, BATCH, SCHEDULES, ACT)
KEY_CHARACTERS_MIN = 16  # a shorter key works, but causes a warning: it can be guessed
OWNERS_SHOWN = 10  # names in one message
SESSION_CHARACTERS_MAX = 128  # of the name of a session


@dataclass(frozen=True, slots=True)
class Share:
    """The generation or the session that a share's token may read; the other member is empty."""

    id: str
    generation: str
    session: str


@dataclass(frozen=True, slots=True)
class Identity:
    """The owner of a request, and what the credentials allow.

    Attributes:
        owner: whose work the request starts and sees.
        scopes: of `SCOPES`, as the credentials name them; ask `may`.
        sessions: names of sessions, or beginnings of names with a `*` at the end: their
            generations may be read and written whoever owns them.
        expires_at: Unix seconds; None: the credentials do not expire.
        limits: the claim `limits` of a token; `Limits.of` reads it.
        groups: the claim `groups` of a token: names of groups, some of which limits.toml may have.
        is_keyless: a token named the owner, or a trusted key on behalf of the owner, so the list
            of keys does not have the owner.
        share: the credentials are a token of `owner` that may only read this; None: no share.
        by: whose key names `owner` as the user for whom it asks; None: no key does.
    """

    owner: str
    scopes: frozenset[str] = ORDINARY
    sessions: tuple[str, ...] = ()
    expires_at: float | None = None
    limits: Mapping[str, Any] = field(default_factory=dict, hash=False)
    groups: tuple[str, ...] = ()
    is_keyless: bool = False
    share: Share | None = None
    by: Identity | None = None

    @property
    def is_operator(self) -> bool:
        """Whether it may read the metrics, the workers and the work of all owners."""
        return ADMIN in self.scopes

    @property
    def reads_everything(self) -> bool:
        """Whether it may read the prompts and answers of every owner."""
        return self.scopes >= {ADMIN, CONTENT}

    def covers(self, session: str) -> bool:
        """Whether the credentials allow the session, whoever owns its generations."""
        return bool(session) and any(
            session.startswith(name[:-1]) if name.endswith("*") else session == name
            for name in self.sessions
        )

    def sees(self, generation_id: str, owner: str, session: str) -> bool:
        """Whether a generation of `owner` in `session` ("": in none) may be read and written."""
        if self.share is not None and self.share.generation:
            return generation_id == self.share.generation
        if self.share is not None and session != self.share.session:
            return False
        # Without credentials nobody has shown to be an operator: other owners stay private.
        is_operator = self.reads_everything and self.owner != ANONYMOUS
        return owner == self.owner or self.covers(session) or is_operator

    def ends_at(self, now: float) -> float | None:
        """Return when connections that begin at `now` must end, Unix s; None: never.

        They end when the credentials expire. Within the leeway after that time they end with the
        leeway, so that a client whose token is accepted is not broken off at once.
        """
        if self.expires_at is None or now < self.expires_at:
            return self.expires_at
        return self.expires_at + LEEWAY_S

    def may(self, scope: str) -> bool:
        """Whether the credentials have `scope`.

        `admin` also has the scopes in `ORDINARY`. It includes neither `content` nor `act`.
        """
        return scope in self.scopes or (ADMIN in self.scopes and scope in ORDINARY)


# Without keys every client may do everything with the work of `anonymous`.
ANONYMOUS_IDENTITY = Identity(ANONYMOUS, frozenset({ADMIN, CONTENT}))


def read_keys(value: str) -> dict[str, Identity]:
    """Parse `key:owner` entries, separated by commas or lines.

    A third field holds scopes, separated by spaces: `key:owner:generate read`. Without it a key has
    the `ORDINARY` scopes, and so has a key whose only scope is `act`. Empty lines and lines that
    start with `#` are skipped.

    Args:
        value: the setting: entries, or the path of a file of entries; empty: no keys.

    Returns:
        the identity of each key.

    Raises:
        ConfigurationError: a malformed entry, an unknown scope, or a file without a key.
    """
    return parse_keys(_text_of(value)) if value else {}


def parse_keys(text: str) -> dict[str, Identity]:
    """Parse the text of a file of keys; as `read_keys`."""
    found: dict[str, Identity] = {}
    for line in text.splitlines():
        if not line.lstrip().startswith("#"):
            _read_entries(line, found)
    if not found:
        raise ConfigurationError(f"{VARIABLE} names no key")
    return found


def short_keys(keys: Mapping[str, Identity]) -> list[str]:
    """Return the sorted owners of keys that are shorter than `KEY_CHARACTERS_MIN`."""
    return sorted(identity.owner for key, identity in keys.items() if len(key) < KEY_CHARACTERS_MIN)


def named(owners: Collection[str]) -> str:
    """Return the first `OWNERS_SHOWN` different names as text for a person."""
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
        # A part of a malformed entry may be the key: no message quotes an entry.
        if len(parts) < 2 or not all(parts):
            raise ConfigurationError(
                f"{VARIABLE}: every entry must be key:owner or key:owner:scopes, nothing empty"
            )
        key, owner, *scopes = parts
        if owner == EVERYBODY:
            raise ConfigurationError(f"{VARIABLE}: no owner may be called {EVERYBODY}")
        named_scopes = frozenset(" ".join(scopes).split())
        if not named_scopes <= frozenset(SCOPES):
            known = ", ".join(SCOPES)
            raise ConfigurationError(
                f"{VARIABLE}: unknown scope in the third field of an entry; known: {known}"
            )
        identity = Identity(
            owner, named_scopes if named_scopes - {ACT} else named_scopes | ORDINARY
        )
        if found.get(key, identity) != identity:
            raise ConfigurationError(f"{VARIABLE}: one key has two owners, or differing scopes")
        found[key] = identity
