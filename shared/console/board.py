"""The reports of workers and nodes in Redis, and the orders that workers read with their report.

All keys are in the slot of the workers' presence, so a worker writes its report and reads its
orders in one round trip. While no console is open, workers report no runs.

Every coroutine may raise `Unavailable`: Redis did not answer in time. Repeating it is safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from shared.console.reports import LiveRun, NodeReport, Point, read_nodes, read_points, read_runs
from shared.errors import Unavailable
from shared.queue.presence import Presence
from shared.redis import keys
from shared.redis.client import Client, Command, raise_errors, translated
from shared.redis.pipeline import ClientPipeline

WATCHED_MS = 10_000  # after a console was last seen, workers report their runs for so long
RUNS_KEPT_MS = 60_000
DRAIN_KEPT_MS = 600_000  # a worker that has not read its order by then is gone
NODES_KEPT_MS = 3_600_000
POINT_S = 10
POINTS = 360  # one hour
RUNS_PLACE = 2  # in `read_commands`
RUNS_MAX = 1_000  # of one worker in its report


class Orders(NamedTuple):
    """What a worker reads with its report.

    Attributes:
        is_watched: a console is open: report the runs, too.
        drained_by: who told this worker to drain; empty: nobody.
    """

    is_watched: bool
    drained_by: str


async def report_worker(
    redis: Client, presence: Presence, runs: Sequence[LiveRun] | None
) -> Orders:
    """Write the report of a worker, and return its orders.

    Args:
        runs: written for the consoles, `RUNS_MAX` of them; None: no console is open.
    """
    commands: list[Command] = [
        ("HSET", keys.WORKERS, presence.worker, msgspec.json.encode(presence)),
        ("GET", keys.WATCHED),
        ("GET", keys.drain_order(presence.worker)),
    ]
    if runs is not None:
        rows = msgspec.json.encode(list(runs[:RUNS_MAX]))
        commands.append(("HSET", keys.WORKER_RUNS, presence.worker, rows))
        commands.append(("PEXPIRE", keys.WORKER_RUNS, RUNS_KEPT_MS))
    _, watched, drain, *_ = await _run(redis, commands)
    return Orders(watched is not None, (drain or b"").decode())


async def order_drain(redis: Client, worker: str, by: str) -> None:
    """Tell a worker to drain, as SIGTERM does. It reads the order with its next report.

    Args:
        by: the owner of the credentials, for the worker's log.
    """
    with translated():
        await redis.set(keys.drain_order(worker), by, px=DRAIN_KEPT_MS)


def watch_command() -> Command:
    """Return the command that says that a console is open."""
    return ("SET", keys.WATCHED, b"1", "PX", WATCHED_MS)


def read_commands() -> list[Command]:
    """Return the commands whose replies `Reading.of` reads."""
    return [
        ("TIME",),
        ("HGETALL", keys.WORKERS),
        ("HGETALL", keys.WORKER_RUNS),
        ("HGETALL", keys.NODES),
        ("EXISTS", keys.WATCHED),
    ]


async def read_all(redis: Client, *, has_runs: bool = False) -> Reading:
    """Return all reports.

    Args:
        has_runs: with the runs of the workers, which may be a megabyte.
    """
    commands = read_commands()
    if not has_runs:
        del commands[RUNS_PLACE]
    replies = await _run(redis, commands)
    if not has_runs:
        replies.insert(RUNS_PLACE, None)
    return Reading.of(replies)


async def _run(redis: Client, commands: Sequence[Command]) -> list[Any]:
    """Run commands. A report must not end its process, so every refusal counts as `Unavailable`."""
    replies = await ClientPipeline(redis).run(commands)
    raise_errors(replies)
    return replies


_presences = msgspec.json.Decoder(Presence)


class Reading(NamedTuple):
    """All reports at one time.

    Attributes:
        now_ms: Redis's clock.
        runs: by worker; workers that have not reported their runs are absent.
        is_watched: a console is open somewhere.
    """

    now_ms: int
    workers: list[Presence]
    runs: dict[str, list[LiveRun]]
    nodes: list[NodeReport]
    is_watched: bool = False

    @classmethod
    def of(cls, replies: Sequence[Any]) -> Reading:
        """Read the replies of `read_commands`, as a `Pipeline` returns them."""
        clock, presences, runs, nodes, watched = replies
        workers = []
        for _, raw in pairs(presences):
            try:
                workers.append(_presences.decode(raw))
            except msgspec.MsgspecError:
                continue  # a newer version wrote this presence
        return cls(
            int(clock[0]) * 1000 + int(clock[1]) // 1000,
            workers,
            {name.decode(): read_runs(raw) for name, raw in pairs(runs)},
            read_nodes(raw for _, raw in pairs(nodes)),
            bool(watched),
        )


def pairs(reply: Any) -> list[tuple[bytes, bytes]]:
    """Return the fields of a hash: redis-py has a mapping, our own connections a list."""
    if isinstance(reply, dict):
        return list(reply.items())
    if reply is None:
        return []
    return list(zip(reply[::2], reply[1::2], strict=True))


# Nodes and the history


async def report_node(redis: Client, report: NodeReport) -> None:
    """Write the report of a node."""
    encoded = msgspec.json.encode(report)
    expire = ("PEXPIRE", keys.NODES, NODES_KEPT_MS)
    await _run(redis, [("HSET", keys.NODES, report.node, encoded), expire])


async def withdraw_nodes(redis: Client, nodes: Sequence[str]) -> None:
    """Delete the reports of nodes that stop, or have been silent for too long."""
    with translated():
        await redis.hdel(keys.NODES, *nodes)  # type: ignore[misc]


def history_command(after_ms: int) -> Command:
    """Return the command whose reply `points_of` reads: the points after this time."""
    return ("XRANGE", keys.HISTORY, f"({after_ms}-0", "+", "COUNT", POINTS)


def points_of(reply: Any) -> list[Point]:
    """Return the points in the reply of `history_command`, the oldest first."""
    return read_points(_field(fields) for _, fields in reply or ())


def _field(fields: Any) -> bytes:
    if isinstance(fields, dict):
        found: bytes = fields.get(keys.FIELD, b"")
        return found
    return bytes(fields[1])


async def newest_point_ms(redis: Client) -> int:
    """Return the time of the newest point of the history; 0: there is none."""
    with translated():
        found = await redis.xrevrange(keys.HISTORY, count=1)
    return int(found[0][0].split(b"-")[0]) if found else 0


async def add_point(redis: Client, point: Point) -> None:
    """Add a point to the history, unless a node has added the point of this time already."""
    entry = (f"{point.at_ms}-0", keys.FIELD, msgspec.json.encode(point))
    add = ("XADD", keys.HISTORY, "MAXLEN", "~", POINTS, *entry)
    (reply,) = await ClientPipeline(redis).run([add])
    if isinstance(reply, Exception) and "equal or smaller" not in str(reply):
        raise Unavailable(f"Redis refuses: {reply}") from reply
