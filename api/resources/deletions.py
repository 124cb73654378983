"""The routes that delete a session, and all data of an owner.

api/dialects/native/routes.py has the route that deletes a generation.

Source: docs/protocol.md, "Deleting".
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp

from api.deadline import answer_deadline
from api.errors import request_error
from api.intake.body import invalid_request
from api.node import Node
from api.response import json_response
from shared.config.credentials import EVERYBODY, SESSION_CHARACTERS_MAX
from shared.erasure.owner import OwnerEraser
from shared.erasure.sessions import erase_session
from shared.errors import NotFound

OWNER_CHARACTERS_MAX = 1_024


class DeletionRoutes:
    """The handlers that delete sessions and owners."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.owners = OwnerEraser(node.redis, node.store, node.files, node.settings)

    async def session(self, request: Request) -> ASGIApp:
        """DELETE /v1/sessions/{session}: one owner's generations in it; operators name the owner.

        Also with a token whose claim covers the session, other owners' generations stay.
        """
        name = request.path_params["session"]
        if not name or len(name) > SESSION_CHARACTERS_MAX:
            raise NotFound("session")
        owner, _ = self.node.listed_owner(request)
        if owner == EVERYBODY:
            raise invalid_request("owner: name one owner")
        async with answer_deadline():
            deleted = await erase_session(self.owners.generations, owner, name)
        return json_response({"session": name, "deleted": deleted})

    async def owner(self, request: Request) -> ASGIApp:
        """DELETE /v1/owners/{owner}: one step of forgetting an owner; for operators only."""
        owner = request.path_params["owner"]
        if not owner or len(owner) > OWNER_CHARACTERS_MAX or owner == EVERYBODY:
            raise NotFound("owner")
        usage = request.query_params.get("usage") or "delete"
        if usage not in ("delete", "keep"):
            raise request_error("invalid_request", "usage must be delete or keep")
        async with answer_deadline():
            step = await self.owners.step(
                owner, request.query_params.get("after") or "", keeps_usage=usage == "keep"
            )
        counts = {kind: number for kind, number in sorted(step.deleted.items()) if number}
        return json_response({"owner": owner, "deleted": counts, "next": step.next or None})
