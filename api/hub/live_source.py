"""Chooses the live connection by the Redis URL: one server, or the masters of a cluster."""

from __future__ import annotations

from api.hub.live_connection import Listener, LiveConnection, LiveSource
from api.hub.sharded_live import ShardedLiveConnection
from shared.config.redis_url import is_cluster_url


def open_live_source(url: str, listener: Listener) -> LiveSource:
    """Return a live connection, which connects when it is run."""
    return (ShardedLiveConnection if is_cluster_url(url) else LiveConnection)(url, listener)
