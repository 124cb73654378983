"""A Redis user with the rights that docs/operations.md lists, word for word."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.redis_server import RedisServer

USER = "tailrace"
PASSWORD = "a-password"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "operations.md"


def rules_of_the_documents() -> list[str]:
    """Return the rules of `ACL SETUSER tailrace …` on the operator's page, with our password."""
    found = re.search(rf"^ACL SETUSER {USER} (.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found, f"{PAGE} has no ACL SETUSER"
    rules = found[1].replace("\\\n", " ").split()
    return [f">{PASSWORD}" if rule.startswith(">") else rule for rule in rules]


def add_user(server: RedisServer, *rules: str) -> None:
    """Create the user, or change its rights."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", USER, *rules)
