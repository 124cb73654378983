"""GET /v1/generations/{id}/timeline: what happened to a generation, when and in which process."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp

from api.deadline import answer_deadline
from api.node import Node
from api.response import json_response
from shared.queue.partitions import partitions_of
from shared.timeline.story import read_story, row_of


class TimelineRoutes:
    """The handler of the timeline."""

    def __init__(self, node: Node) -> None:
        self.node = node

    async def get(self, request: Request) -> ASGIApp:
        """GET /v1/generations/{id}/timeline; operators may read that of any owner."""
        identity = self.node.identity(request)
        async with answer_deadline():
            # The timeline shows nothing of prompt and answer, so the rule is that of a cancel.
            meta = await self.node.meta_to_end(request.path_params["id"], identity)
            partition = partitions_of(self.node.settings).of(meta.generation_id)
            moments = await read_story(self.node.redis, meta, partition)
        return json_response({"data": [row_of(timed) for timed in moments]})
