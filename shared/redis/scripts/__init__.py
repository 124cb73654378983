"""The Lua scripts, run by name.

Each script runs on the keys of one hash tag, and its caller declares every key, so it also runs on
a cluster. There the scripts publish with SPUBLISH, and a client says so by `is_sharded = True`.
Scripts are called by digest. If the server has forgotten a script (after a restart), `Scripts`
loads it and repeats only the calls that failed: a call of an unknown script has done nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from redis.exceptions import NoScriptError, ResponseError

from shared.errors import Unavailable
from shared.redis.client import Client, Command, is_refusal, translated
from shared.redis.pipeline import Call as Call  # what callers of `Scripts` import it for
from shared.redis.pipeline import ClientPipeline, Pipeline

FOLDER = Path(__file__).parent
MOVING = "TRYAGAIN"  # the slot of the keys is moving
WITH_GRACE = (
    "attach", "begin", "feed", "feed_end", "lapse", "produce", "produce_end", "renew",
)  # fmt: skip
WITH_TIME_LIMITS = (
    "begin", "feed", "feed_end", "lapse", "produce", "produce_begin", "produce_end",
)  # fmt: skip
FOR_PRODUCERS = ("feed", "produce")  # files: both append for a producer outside of the workers
WITHOUT_PRELUDE = (
    "advance", "enqueue", "later", "hook_due", "hook_end", "hook_settle", "hook_take",
    "hook_redrive", "schedule_add", "schedule_delete", "schedule_done", "schedule_fire",
    "consumer_drop",
    "files_add", "files_remove", "files_sum", "hook_wait",
    "owner_bytes", "owner_charge", "limit_admit", "limit_extend", "limit_settle", "limit_place",
    "leave", "usage_settle", "usage_done", "breaker", "slots", "timeline",
    "audio_append", "audio_end", "audio_state", "audio_take",
)  # fmt: skip
# These free memory or keep a promise, so they must run when memory is full (server 7.0 or newer).
ALLOW_OOM = (
    "finish", "feed_end", "produce_end", "close", "lapse", "seal", "delete", "renew", "release",
    "attach",
    "batch_cancel", "batch_move", "files_remove",
    "owner_bytes", "limit_extend", "limit_settle", "limit_place", "leave",
    "usage_settle", "usage_done", "spend", "stream_delete", "audio_take", "audio_end",
)  # fmt: skip
# Two names for one file, because the flag allow-oom belongs to a name:
# `finish` is an append that ends with the `end` event, and may run when memory is full;
# `produce_end` is the same for an outside producer, `feed_end` for a feeder.
# `owner_charge` goes with `create`: if a full server refuses the one, it must refuse the other.
FILES = {
    "finish": "append", "owner_charge": "owner_bytes", "feed_end": "feed", "produce_end": "produce",
}  # fmt: skip


@cache
def source_of(name: str, *, has_flags: bool, is_sharded: bool) -> str:
    """Return the text of a script.

    Args:
        has_flags: the server understands `#!lua flags=`.
        is_sharded: publish to the servers of one slot, not to every server of the cluster, and let
            the history follow slots that move.
    """
    parts = [FILES.get(name, name)]
    if name == "append":
        parts = ["append_fast", "prelude", "append"]
    elif name in ("limit_admit", "limit_extend", "limit_settle"):
        parts = ["limit_prelude", name]
    elif name.startswith("stream_sub_"):
        parts = ["stream_prelude", "stream_sub_prelude", name]
    elif name.startswith("stream_"):
        parts = ["stream_prelude", name]
    elif name not in WITHOUT_PRELUDE:
        if name.startswith("batch_"):
            parts.insert(0, "batch_prelude")
        if parts[0] in FOR_PRODUCERS:
            parts.insert(0, "produce_prelude")
        if name in WITH_GRACE:
            parts.insert(0, "grace")
        if name in WITH_TIME_LIMITS:
            parts.insert(0, "time_limits")
        parts.insert(0, "prelude")
    body = "".join((FOLDER / f"{part}.lua").read_text(encoding="utf-8") for part in parts)
    if is_sharded:
        body = body.replace("'PUBLISH'", "'SPUBLISH'")
        body = body.replace("IS_SHARDED = false", "IS_SHARDED = true")
    if name in ALLOW_OOM and has_flags:
        return "#!lua flags=allow-oom\n" + body
    return f"-- {name}\n" + body


class Scripts:
    """Runs scripts by name against one server.

    Args:
        pipeline: carries the calls; None: redis-py's pool (`ClientPipeline`).
    """

    def __init__(self, redis: Client, pipeline: Pipeline | None = None) -> None:
        self.redis = redis
        self.pipeline: Pipeline = pipeline or ClientPipeline(redis)
        self.is_sharded = bool(getattr(redis, "is_sharded", False))
        self._has_flags: bool | None = None  # whether the server understands `#!lua flags=`
        self._digests: dict[str, str] = {}

    async def run(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run one script, and return its reply.

        Raises:
            Unavailable: Redis did not answer in time, or refused; the script may have run.
        """
        return (await self.run_all([(name, (keys, args))]))[0]

    async def run_all(self, calls: Sequence[tuple[str, Call]]) -> list[Any]:
        """Run (name, call) pairs as `run_mixed` does, but raise if the server refuses one of them.

        Raises:
            Unavailable: as `run`; some of the calls may have run.
        """
        replies = await self.run_mixed(calls)
        if len(calls) > 1:
            for i, reply in enumerate(replies):
                if has_not_run(reply):
                    # Beside others a call waits only a moment for its slot, alone it waits longer.
                    (replies[i],) = await self.run_mixed([calls[i]])
        for reply in replies:
            if isinstance(reply, Exception):  # of a cluster also a lost connection
                raise Unavailable(f"Redis refuses: {reply}") from reply
        return replies

    async def run_many(self, name: str, calls: Sequence[Call]) -> list[Any]:
        """Run one script for many generations in one round trip; as `run_mixed`."""
        return await self.run_mixed([(name, call) for call in calls])

    async def run_mixed(self, calls: Sequence[tuple[str, Call]]) -> list[Any]:
        """Run (name, call) pairs in one round trip; replies in order.

        Where the server refuses a call for now (out of memory), the error is the reply of this
        call: a refused append must not hold up the ends beside it.

        Raises:
            Unavailable: Redis did not answer in time; each call may have run.
        """
        if not calls:
            return []
        digests = {name: await self._digest(name) for name in {name for name, _ in calls}}
        replies = await self.pipeline.evaluate([(digests[name], call) for name, call in calls])
        missing = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if missing:
            with translated():
                for name in sorted({calls[i][0] for i in missing}):
                    await self.redis.script_load(self._source(name))
            repeats = [(digests[calls[i][0]], calls[i][1]) for i in missing]
            for i, reply in zip(missing, await self.pipeline.evaluate(repeats), strict=True):
                replies[i] = reply
        for reply in replies:
            if isinstance(reply, ResponseError) and not is_refusal(reply):
                raise reply
        return replies

    async def command(self, name: str, call: Call) -> Command:
        """Return a call as a plain command, to send it in one request with other commands.

        If `has_not_run` says so of its reply, `run` the call.
        """
        names, args = call
        return ["EVALSHA", await self._digest(name), len(names), *names, *args]

    async def _digest(self, name: str) -> str:
        if self._has_flags is None:
            self._has_flags = await self._knows_flags()
        digest = self._digests.get(name)
        if digest is None:
            source = self._source(name).encode()
            digest = self._digests[name] = hashlib.sha1(source).hexdigest()  # Redis's own choice
        return digest

    def _source(self, name: str) -> str:
        return source_of(name, has_flags=bool(self._has_flags), is_sharded=self.is_sharded)

    async def _knows_flags(self) -> bool:
        """Ask by trying: the version numbers of Redis's relatives do not tell."""
        with translated():
            try:
                await _reply_of(self.redis.eval("#!lua flags=allow-oom\nreturn 1", 0))
            except ResponseError as exc:
                if is_refusal(exc):
                    raise
                return False
            return True


def has_not_run(reply: Any) -> bool:
    """Whether a script did nothing because the server lacks it, or because its slot is moving."""
    return isinstance(reply, NoScriptError) or (
        isinstance(reply, ResponseError) and str(reply).startswith(MOVING)
    )


async def _reply_of(reply: Any) -> Any:
    """Await a script's reply, which redis-py types for its synchronous client as well."""
    return await reply
