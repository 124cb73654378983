"""Listens to all sentinels of a service for the notice that the master has changed.

One loop for each sentinel. The first sentinel that publishes a switch is enough: the others may
learn of it up to 2 s later. A notice may have been missed before a subscription, so each new
subscription is followed by a question.

A sentinel publishes `+promoted-slave` as soon as the replica has become a master, and
`+switch-master` when the other replicas follow it. Between the two the old master still takes
writes that will be lost, so both notices count.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Any

from shared.config.redis_hosts import HostPort
from shared.config.redis_url import read_redis_url
from shared.config.settings import Settings
from shared.redis.sentinel.follower import Follower, follower_of
from shared.redis.sentinel.session import (
    NOTICES,
    SentinelSession,
    checked,
    left_master,
    open_session,
)
from shared.text.addresses import format_authority

log = logging.getLogger(__name__)

SUBSCRIBE_S = 3.0  # for the connection, the login and the subscription
PING_EVERY_S = 1.0  # of a quiet subscription; a sentinel that answers none is connected anew
RECONNECT_PAUSES_S = (0.2, 2.0)  # first and longest pause before a reconnect


async def watch_masters(settings: Settings) -> None:
    """Follow the masters of all Sentinel URLs in the settings, until cancelled.

    Returns at once if there are none.
    """
    urls = [(settings.redis_url, "TAILRACE_REDIS_URL")]
    urls += [(settings.jobs_redis_url, "TAILRACE_JOBS_REDIS_URL")]
    read = [read_redis_url(text, variable) for text, variable in urls if text]
    followers = {follower_of(url) for url in read if url.sentinels is not None}
    async with asyncio.TaskGroup() as group:
        for follower in followers:
            for sentinel in follower.sentinels.hosts:
                group.create_task(_watch(follower, sentinel), name="sentinel watch")


async def _watch(follower: Follower, sentinel: HostPort) -> None:
    pause_s, was_heard = RECONNECT_PAUSES_S[0], True
    while True:
        try:
            async with asyncio.timeout(SUBSCRIBE_S) as opening:
                async with open_session(sentinel, follower.sentinels, follower.tls) as session:
                    await _subscribe(session)
                    opening.reschedule(None)  # the limit is for the opening only
                    pause_s, was_heard = RECONNECT_PAUSES_S[0], True
                    follower.heard.add(sentinel)
                    await _listen(follower, session)
        except (OSError, TimeoutError, UnicodeError) as exc:
            if was_heard:  # once for each outage
                extra = {"sentinel": format_authority(*sentinel), "reason": str(exc) or "no answer"}
                log.warning("sentinel away", extra=extra)
            was_heard = False
        finally:
            follower.heard.discard(sentinel)
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))
        pause_s = min(2 * pause_s, RECONNECT_PAUSES_S[1])


async def _subscribe(session: SentinelSession) -> None:
    session.send(b"SUBSCRIBE", *NOTICES)
    for _ in NOTICES:
        checked(await session.receive())


async def _listen(follower: Follower, session: SentinelSession) -> None:
    """Pass notices on, until the sentinel is silent or the connection is lost.

    Raises:
        OSError, TimeoutError: it is.
    """
    await _ask_again(follower)
    is_pinged = False
    while True:
        try:
            async with asyncio.timeout(PING_EVERY_S):
                notice: Any = checked(await session.receive())
        except TimeoutError:
            if is_pinged:
                raise
            session.send(b"PING")
            is_pinged = True
            continue
        is_pinged = False
        if notice[0] != b"message":  # the answer to PING
            continue
        old = left_master(notice, follower.sentinels.service)
        if old is not None:
            follower.note_switch(old)
            await _ask_again(follower)


async def _ask_again(follower: Follower) -> None:
    """Find the master now, so that connections to another server are dropped."""
    follower.distrust()
    try:
        await follower.find()
    except OSError:
        pass  # the next connection asks again
