"""What operators see of the backends: the breakers, and the sums of what the workers measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from shared.backends.board import Report, read_board
from shared.backends.breaker import Breaker
from shared.backends.slots import slots_in_use
from shared.console.histogram import Counts, merged
from shared.redis.client import Client


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendView:
    """One backend, over all living workers.

    Attributes:
        state: `closed`, `suspect`, `open`, `half_open` or `limited`.
        since_s: how long ago the breaker has opened or closed; None: it never has.
        retry_s: until the backend is asked again; 0: now.
        in_flight: requests.
        slots, held, waiting: 0 slots: any number of requests.
        limited_s: until the vendor's rate limit gives something again; 0: now.
        left: of the vendor's limits, as its last answers said: the least of all workers.
        first_tokens, rates: of the last minutes, s and tokens/s.
        calls: since the workers started; so are failures, by outcome, and statuses.
    """

    name: str
    state: str = "closed"
    since_s: float | None = None
    retry_s: float = 0.0
    reason: str = ""
    in_flight: int = 0
    slots: int = 0
    held: int = 0
    waiting: int = 0
    limited_s: float = 0.0
    left: Mapping[str, int] = field(default_factory=dict)
    first_tokens: Counts = field(default_factory=dict)
    rates: Counts = field(default_factory=dict)
    calls: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    statuses: Mapping[str, int] = field(default_factory=dict)


async def backend_views(redis: Client) -> list[BackendView]:
    """Return each backend of the living workers, by name.

    Raises:
        Unavailable: Redis did not answer in time.
    """
    now_ms, breakers, reports = await read_board(redis)
    names = sorted({name for report in reports for name in report})
    found: dict[str, list[Report]] = {
        name: [report[name] for report in reports if name in report] for name in names
    }
    slots = {name: max(report.slots for report in parts) for name, parts in found.items()}
    in_use = await slots_in_use(redis, [name for name in names if slots[name]])
    return [
        _view(
            name, breakers.get(name, Breaker()), found[name], now_ms,
            slots=(slots[name], *in_use.get(name, (0, 0))),
        )
        for name in names
    ]  # fmt: skip


def _view(
    name: str,
    breaker: Breaker,
    reports: Sequence[Report],
    now_ms: int,
    *,
    slots: tuple[int, int, int],
) -> BackendView:
    limited_ms = max(0, breaker.limited_until_ms - now_ms)
    state: str = breaker.state
    if state == "closed" and (limited_ms or breaker.strikes):
        state = "limited" if limited_ms else "suspect"
    cooling_ms = breaker.until_ms - now_ms if breaker.state == "open" else 0
    least: dict[str, int] = {}
    for report in reports:
        for limit, number in report.left.items():
            least[limit] = min(number, least.get(limit, number))
    return BackendView(
        name=name,
        state=state,
        since_s=(now_ms - breaker.since_ms) / 1000 if breaker.since_ms else None,
        retry_s=max(0, cooling_ms, limited_ms) / 1000,
        reason="" if breaker.state == "closed" else breaker.reason,
        in_flight=sum(report.in_flight for report in reports),
        slots=slots[0],
        held=slots[1],
        waiting=slots[2],
        limited_s=limited_ms / 1000,
        left=least,
        first_tokens=merged(report.first_tokens for report in reports),
        rates=merged(report.rates for report in reports),
        calls=sum(report.calls for report in reports),
        failures=_sum(report.failures for report in reports),
        statuses=_sum(report.statuses for report in reports),
    )


def _sum(parts: Iterable[Mapping[str, int]]) -> Mapping[str, int]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(total)
