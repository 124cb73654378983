"""The Lua scripts, loaded once and run by digest.

Each runs on the keys of one `{id}` or of `{q}`, never of both, so that everything also runs on a
cluster. EVALSHA first; where the server has forgotten a script (a restart), it is loaded and only
the calls that failed for it are made again: a script that was not found has done nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from redis.exceptions import NoScriptError, ResponseError

from shared.errors import Unavailable
from shared.redis.client import Client, Command, is_refusal, translated
from shared.redis.resp import AutoPipeline, encode_words

FOLDER = Path(__file__).parent
WITHOUT_PRELUDE = (
    "enqueue", "later", "hook_due", "hook_end", "hook_settle", "hook_take",
    "schedule_add", "schedule_delete", "schedule_done", "schedule_fire", "consumer_drop",
    "files_add", "files_remove", "files_sum", "hook_hosts", "hook_wait",
    "owner_bytes", "owner_charge",
)  # fmt: skip
# These make room or keep a promise, so they must pass when memory is full (server 7.0 or newer).
ALLOW_OOM = (
    "finish", "close", "seal", "delete", "renew", "release", "attach", "batch_cancel", "batch_move",
    "files_remove",
    "owner_bytes",
)  # fmt: skip
# `finish` is append with an end in it, under a name of its own so that it may pass a full server.
# `owner_charge` goes with `create`: where that is refused, nothing may be charged either.
FILES = {"finish": "append", "owner_charge": "owner_bytes"}

Call = tuple[Sequence[str], Sequence[Any]]  # keys, arguments


@cache
def _source(name: str, has_flags: bool) -> str:
    body = (FOLDER / f"{FILES.get(name, name)}.lua").read_text(encoding="utf-8")
    if name == "append":
        fast = (FOLDER / "append_fast.lua").read_text(encoding="utf-8")
        body = fast + (FOLDER / "prelude.lua").read_text(encoding="utf-8") + body
    elif name not in WITHOUT_PRELUDE:
        if name.startswith("batch_"):
            body = (FOLDER / "batch_prelude.lua").read_text(encoding="utf-8") + body
        body = (FOLDER / "prelude.lua").read_text(encoding="utf-8") + body
    if name in ALLOW_OOM and has_flags:
        return "#!lua flags=allow-oom\n" + body
    return f"-- {name}\n" + body


class Scripts:
    """Runs scripts by name against one server."""

    def __init__(self, redis: Client, line: AutoPipeline | None = None) -> None:
        self.redis = redis
        self.line = line
        self._has_flags: bool | None = None  # whether the server knows `#!lua flags=`
        self._digests: dict[str, str] = {}

    async def run(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run one script; returns its reply.

        Raises:
            Unavailable: no answer, or refused; the script may have run.
        """
        return (await self.run_all([(name, (keys, args))]))[0]

    async def run_all(self, calls: Sequence[tuple[str, Call]]) -> list[Any]:
        """As `run_mixed`, where one refused call spoils the others.

        Raises:
            Unavailable: as `run`; of the calls some may have run.
        """
        replies = await self.run_mixed(calls)
        for reply in replies:
            if isinstance(reply, ResponseError):
                raise Unavailable(f"Redis refuses: {reply}") from reply
        return replies

    async def run_many(self, name: str, calls: Sequence[Call]) -> list[Any]:
        """Run one script over many generations in one round trip; replies in order."""
        return await self.run_mixed([(name, call) for call in calls])

    async def run_mixed(self, calls: Sequence[tuple[str, Call]]) -> list[Any]:
        """Run (name, call) for many generations in one round trip; replies in order.

        A call that the server refuses for now (out of memory) gives its error in its place, one
        call alone, too: a refused append must not hold up the ends beside it.
        """
        if not calls:
            return []
        digests = {name: await self._digest(name) for name in {name for name, _ in calls}}
        replies = await self._evaluate([(digests[name], call) for name, call in calls])
        missing = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if missing:
            with translated():
                for name in sorted({calls[i][0] for i in missing}):
                    await self.redis.script_load(_source(name, bool(self._has_flags)))
            again = await self._evaluate([(digests[calls[i][0]], calls[i][1]) for i in missing])
            for i, reply in zip(missing, again, strict=True):
                replies[i] = reply
        for reply in replies:
            if isinstance(reply, ResponseError) and not is_refusal(reply):
                raise reply
        return replies

    async def command(self, name: str, call: Call) -> Command:
        """Return a call as a command, to be sent in one request with others.

        A server that has forgotten the script answers NoScriptError: `run` the call then.
        """
        names, args = call
        return ["EVALSHA", await self._digest(name), len(names), *names, *args]

    async def _evaluate(self, calls: Sequence[tuple[str, Call]]) -> list[Any]:
        if self.line is not None:
            return await self.line.ask(b"".join([_packed(*call) for call in calls]), len(calls))
        with translated():
            if len(calls) == 1:  # a pipeline of one costs more than the command
                digest, (keys, args) = calls[0]
                try:
                    return [await _answer(self.redis.evalsha(digest, len(keys), *keys, *args))]
                except ResponseError as exc:
                    return [exc]
            pipeline = self.redis.pipeline(transaction=False)
            for digest, (keys, args) in calls:
                pipeline.evalsha(digest, len(keys), *keys, *args)
            return list(await pipeline.execute(raise_on_error=False))

    async def _digest(self, name: str) -> str:
        if self._has_flags is None:
            self._has_flags = await self._knows_flags()
        digest = self._digests.get(name)
        if digest is None:
            source = _source(name, self._has_flags).encode()
            digest = self._digests[name] = hashlib.sha1(source).hexdigest()  # Redis's own choice
        return digest

    async def _knows_flags(self) -> bool:
        """Asked of the server itself: version numbers of its relatives say little."""
        with translated():
            try:
                await _answer(self.redis.eval("#!lua flags=allow-oom\nreturn 1", 0))
            except ResponseError as exc:
                if is_refusal(exc):
                    raise
                return False
            return True


def _packed(digest: str, call: Call) -> bytes:
    """Return one EVALSHA as it goes over the wire. Made for every token: hence one pass."""
    keys, args = call
    parts = [b"*%d\r\n" % (3 + len(keys) + len(args)), _named(digest, tuple(keys))]
    for word in args:
        if type(word) is not bytes:
            word = b"%d" % word if type(word) is int else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(word), word))
    return b"".join(parts)


@lru_cache(maxsize=4_096)
def _named(digest: str, keys: tuple[str, ...]) -> bytes:
    """The words of a call that are the same each time."""
    return encode_words([b"EVALSHA", digest.encode(), b"%d" % len(keys), *map(str.encode, keys)])


async def _answer(reply: Any) -> Any:
    """redis-py types the answers of scripts for its sync twin as well."""
    return await reply
