"""Moves slots of a cluster from master to master, all the time, while tests run on it."""

from __future__ import annotations

import random
import threading
import time

import redis

from tests.support.redis_cluster import RedisCluster

PAUSE_S = 0.4
RETRY_S = 0.2
TRIES_MAX = 100


class SlotMover:
    """Each move takes the slot of a random key, or of none, to a random other master.

    Attributes:
        lock: held during a move. Whoever stops a server takes it first: a move that is cut off
            would leave a slot with two masters.
        moves: how many slots were moved.
    """

    def __init__(self, cluster: RedisCluster) -> None:
        self._cluster = cluster
        self._random = random.Random(7)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="slot mover", daemon=True)
        self.lock = threading.Lock()
        self.moves = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Return when no slot moves any more."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(PAUSE_S):
            with self.lock:
                self._move()

    def _move(self) -> None:
        if any(server.process is None or server.is_frozen for server in self._cluster.servers):
            return
        source, target = self._random.sample(self._cluster.servers[: self._cluster.masters], 2)
        with source.client() as client:
            raw = client.randomkey()
        key = raw.decode() if raw else f"{{{self._random.random()}}}"
        problem: Exception | None = None
        for _ in range(TRIES_MAX):
            try:
                self._cluster.move(key, target)
            except redis.RedisError as exc:
                problem = exc  # CLUSTERDOWN after a restart, or no answer in time
                time.sleep(RETRY_S)
                continue
            self.moves += 1
            return
        raise AssertionError(f"the slot of {key} was left with two masters: {problem!r}")
