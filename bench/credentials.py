"""Measures what credentials add to one request, in this process and without sockets.

Each call is the whole admission of a request: the search for the credentials in its head, their
check, the scope of the route. The base is a static key. A token that comes again is recalled by its
digest; a token that comes for the first time has its signature checked. None of these asks Redis.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from api.edge.admission import admit
from api.edge.auth import Authenticator
from bench.support.setup import Setup
from bench.support.table import US, Comparison, Row
from shared.config.settings import Settings
from tests.support.tokens import SECRET, hmac_token, jwk, signed_token

KEY = "key-of-the-bench-0123456789"
STATIC = "static key"
CALLS, CALLS_QUICK = 2_000, 20
GOAL_US = 150.0


async def run(setup: Setup) -> list[Row]:
    """Run the benchmark; return its rows."""
    calls = CALLS_QUICK if setup.is_quick else CALLS
    work = "credentials of one request: added to its first token"
    times = Comparison(work, "µs", STATIC, is_goal_ratio=False)
    authenticator = _authenticator()
    for _ in setup.rounds():
        for who, credentials in _kinds(calls).items():
            times.goals[who] = GOAL_US
            times.add(who, await _median_us(authenticator, credentials))
    return times.rows()


def _authenticator() -> Authenticator:
    """Return one that knows a key among 1,000, a secret, and three public keys."""
    others = ",".join(f"other-key-{number:020}:o{number}" for number in range(999))
    rows = [jwk(name, name) for name in ("RS256", "ES256", "EdDSA")]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "keys.json"
        path.write_text(json.dumps({"keys": rows}))
        return Authenticator.from_settings(
            Settings(api_keys=f"{KEY}:alice,{others}", jwt_secret=SECRET, jwt_jwks=str(path))
        )


def _kinds(calls: int) -> dict[str, Sequence[str]]:
    """Return the credentials of each kind, one for each call; no token comes twice if new."""

    def new(algorithm: str) -> list[str]:
        names = [os.urandom(8).hex() for _ in range(calls)]
        if algorithm == "HS256":
            return [hmac_token(sub=name) for name in names]
        return [signed_token(algorithm, kid=algorithm, sub=name) for name in names]

    return {
        STATIC: [KEY] * calls,
        "token, known": [signed_token("RS256", kid="RS256")] * calls,
        "token, new, HS256": new("HS256"),
        "token, new, ES256": new("ES256"),
        "token, new, EdDSA": new("EdDSA"),
        "token, new, RS256": new("RS256"),
    }


async def _median_us(authenticator: Authenticator, credentials: Sequence[str]) -> float:
    taken: list[float] = []
    for credential in credentials:
        head = (b"authorization", b"Bearer " + credential.encode())
        scope = {"type": "http", "headers": [(b"host", b"node"), head], "query_string": b""}
        began_s = time.perf_counter()
        await admit(authenticator, scope, "generate")
        taken.append(time.perf_counter() - began_s)
    return sorted(taken)[len(taken) // 2] * US
