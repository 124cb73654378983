"""The routes of the console."""

from __future__ import annotations

from starlette.routing import Route

from api.console.actions import ConsoleActions
from api.console.bulk import ConsoleBulk
from api.console.feed import ConsoleFeed
from api.console.logs import ConsoleLogs
from api.console.sampler import Sampler
from api.dialects.endpoints import http_route
from api.node import Node


def console_routes(node: Node) -> list[Route]:
    """Return the routes below /v1/console; the page itself is one of api/pages."""
    sampler = Sampler(node)
    feed, bulk = ConsoleFeed(node, sampler), ConsoleBulk(node, sampler)
    actions, logs = ConsoleActions(node), ConsoleLogs(node)
    return [
        http_route("/v1/console", GET=feed.get),
        http_route("/v1/console/generations/cancel", POST=bulk.cancel),
        http_route("/v1/console/webhooks/redrive", POST=bulk.redrive_webhooks),
        http_route("/v1/console/generations/{id}", GET=logs.get),
        http_route("/v1/console/generations/{id}/request", GET=logs.request),
        http_route("/v1/console/generations/{id}/log", GET=logs.log),
        http_route("/v1/console/generations/{id}/cancel", POST=actions.cancel),
        http_route("/v1/console/generations/{id}/replay", POST=actions.replay),
        http_route("/v1/console/workers/{id}/drain", POST=actions.drain),
        http_route("/v1/console/batches/redrive", POST=actions.redrive_all),
        http_route("/v1/console/batches/{id}/redrive", POST=actions.redrive),
    ]
