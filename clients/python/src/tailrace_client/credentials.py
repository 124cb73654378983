"""The token in use. A function is asked once more after a refusal."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable

from tailrace_client.errors import usage

Token = str | None
SyncTokenSource = Token | Callable[[], Token]
TokenSource = Token | Callable[[], Token | Awaitable[Token]]


class Credentials:
    """Keeps the token until a node refuses it. Two refusals in a row are final."""

    def __init__(self, source: TokenSource) -> None:
        self._source = source
        self._known: Token = None
        self._is_known = False
        self._refusals = 0

    def accepted(self) -> None:
        self._refusals = 0

    def refused(self, used: Token) -> bool:
        """Return whether another token may help."""
        if not callable(self._source):
            return False
        if self._is_known and self._known != used:
            return True  # another request has asked for a new token already
        self._is_known = False
        self._refusals += 1
        return self._refusals == 1

    def token(self) -> Token:
        """Return the token, for a client without an event loop."""
        found = self._ask()
        if inspect.isawaitable(found):
            if inspect.iscoroutine(found):
                found.close()
            raise usage("Tailrace needs a token function that is not async; use AsyncTailrace")
        return self._keep(found)

    async def token_async(self) -> Token:
        found = self._ask()
        return self._keep(await found if inspect.isawaitable(found) else found)

    def _ask(self) -> Token | Awaitable[Token]:
        if self._is_known:
            return self._known
        return self._source() if callable(self._source) else self._source

    def _keep(self, found: Token) -> Token:
        self._known, self._is_known = found, True
        return found


def bearer(token: Token) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"} if token else {}
