"""The order in which the POSTs of one operation reach its log, at one node.

LobeHub's server gives its events no numbers and sends up to twenty at once, each in a POST of its
own. So the POSTs of an operation that come within `ORDER_HOLD_S` are written together, in the order
of their times; equal times keep the order of arrival, an end comes last. Between two nodes the
order is that of Redis. Invariant: a POST is answered after its entries are in the log, and a
cancelled handler leaves the POSTs of others to the next one.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from shared.log.feeding import Fed, Repeated
from shared.log.producing import Appended, Denied

ORDER_HOLD_S = 0.005  # LobeHub collects text for 50 ms; a reader does not see this pause
Outcome = Appended | Repeated | Denied
Write = Callable[[list[Fed]], Awaitable[list[Outcome]]]


@dataclass(eq=False, slots=True)
class Post:
    """One POST until it is written.

    Attributes:
        at_ms: the time that the feeder gives, ms since 1970.
        ticket: of `FeedOrder.ticket`, when the request arrived.
    """

    fed: Fed
    at_ms: float
    ticket: int
    outcome: Outcome | None = None


@dataclass(slots=True)
class _Line:
    posts: list[Post] = field(default_factory=list)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


def in_order(posts: list[Post]) -> list[Post]:
    """Return the POSTs of one operation in the order of their times."""
    return sorted(posts, key=lambda post: (post.at_ms, bool(post.fed.status), post.ticket))


class FeedOrder:
    """The lines of all operations that this node writes at the moment.

    Args:
        write: writes appends of one generation in order, and returns their outcomes.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._lines: dict[str, _Line] = {}
        self._tickets = itertools.count()

    def ticket(self) -> int:
        """Return the place of a request in the order of arrival. Ask before the first `await`."""
        return next(self._tickets)

    async def put(self, fed: Fed, at_ms: float, ticket: int) -> Outcome:
        """Write an append in its turn.

        Raises:
            Unavailable: Redis did not answer in time; with the repeat key a repeat is safe.
        """
        line = self._lines.setdefault(fed.generation_id, _Line())
        post = Post(fed, at_ms, ticket)
        line.posts.append(post)
        line.users += 1
        try:
            async with line.lock:
                if post.outcome is None:
                    await asyncio.sleep(ORDER_HOLD_S)
                    await self._write_all(line)
            assert post.outcome is not None
            return post.outcome
        finally:
            line.users -= 1
            line.posts = [other for other in line.posts if other is not post]
            if not line.users:
                del self._lines[fed.generation_id]

    async def _write_all(self, line: _Line) -> None:
        posts = in_order(line.posts)
        outcomes = await self._write([post.fed for post in posts])
        for post, outcome in zip(posts, outcomes, strict=True):
            post.outcome = outcome
        # A post whose handler was cancelled meanwhile has left already.
        line.posts = [post for post in line.posts if post.outcome is None]
