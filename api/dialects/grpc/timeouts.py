"""The deadline that a call carries in a header, in seconds. Pure.

grpc-timeout: 1500m            gRPC and gRPC-Web: at most 8 digits and a unit
connect-timeout-ms: 1500       Connect: at most 10 digits
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from api.intake.body import invalid_request

_GRPC = re.compile(r"([0-9]{1,8})([HMSmun])", re.ASCII)
_CONNECT = re.compile(r"[0-9]{1,10}", re.ASCII)
_UNIT_S = {"H": 3_600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
SHORTEST_S = 0.001  # a deadline that is over now: the request's limits must be above 0


def read_deadline_s(headers: Mapping[str, str]) -> float | None:
    """Return how long the client waits for the call, s; None: without a limit.

    Raises:
        RequestError: 422, a header is malformed.
    """
    if (text := headers.get("grpc-timeout")) is not None:
        found = _GRPC.fullmatch(text)
        if found is None:
            raise invalid_request("grpc-timeout: at most 8 digits and one of H, M, S, m, u, n")
        return max(SHORTEST_S, int(found[1]) * _UNIT_S[found[2]])
    if (text := headers.get("connect-timeout-ms")) is not None:
        if _CONNECT.fullmatch(text) is None:
            raise invalid_request("connect-timeout-ms: at most 10 digits")
        return max(SHORTEST_S, int(text) / 1000)
    return None


def grpc_timeout(seconds: float) -> str:
    """Return the value of `grpc-timeout` for a time from now."""
    milliseconds = max(1, round(seconds * 1000))
    return f"{milliseconds}m" if milliseconds < 10**8 else f"{min(10**8 - 1, round(seconds))}S"
