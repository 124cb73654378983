"""Opens the client for a Redis URL: of one server, of the master of Sentinel, or of a cluster.

Only this module distinguishes the three cases. A role gets its client and its pipelines here, and
uses them in the same way in all three.
"""

from __future__ import annotations

from typing import Protocol

from shared.config.redis_url import is_cluster_url, read_redis_url
from shared.config.settings import Settings
from shared.redis.client import REDIS_ANSWER_S, Client, OneServerClient, check_files, open_pool
from shared.redis.cluster.client import ClusterClient
from shared.redis.cluster.pipeline import ClusterPipeline
from shared.redis.pipeline import Pipeline
from shared.redis.resp import AutoPipeline


class OpenPipeline(Pipeline, Protocol):
    """A `Pipeline` on connections of its own, which its owner closes."""

    async def aclose(self) -> None: ...


def connect(settings: Settings, *, url: str = "", answer_s: float = REDIS_ANSWER_S) -> Client:
    """Return a client, which connects at its first command.

    Args:
        url: empty: that of the settings.
        answer_s: the longest wait for one reply, s.

    Raises:
        ConfigurationError: the settings have no URL, or a file that it names cannot be used.
    """
    address = read_redis_url(url or settings.named_redis_url(), "TAILRACE_REDIS_URL")
    if address.cluster:
        check_files(address)
        return ClusterClient(address, answer_s=answer_s)
    return OneServerClient.from_pool(open_pool(address, answer_s=answer_s))


def open_pipeline(url: str, *, answer_s: float) -> OpenPipeline:
    """Return a pipeline that packs the calls of all tasks, on one connection to each server.

    Args:
        answer_s: the longest time until the last reply of one exchange, s.

    Raises:
        ConfigurationError: the URL of a cluster cannot be read. Another URL is read at first use.
    """
    if is_cluster_url(url):
        return ClusterPipeline(read_redis_url(url, "TAILRACE_REDIS_URL"), answer_s=answer_s)
    return AutoPipeline(url, answer_s=answer_s)
